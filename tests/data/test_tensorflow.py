"""Sets that TensorFlow Datasets has prepared, read without TensorFlow."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.data.sources import read_source
from residualdroppath.errors import UserError

from .files import encoded, pixels, request

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")


def prepare(folder: Path, **splits: int) -> Path:
    class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder
        code_path = None

        def _info(self) -> Any:
            kinds = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(kinds))

        def _split_generators(self, manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(count) for split, count in splits.items()}

        def _generate_examples(self, count: int) -> Iterator[tuple[int, Any]]:
            for number in range(count):
                yield number, {"image": io.BytesIO(encoded(pixels(number, 10, 10, 3))), "label": number % 2}

    Pets(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder / "pets"


@pytest.mark.parametrize("below", ["", "1.0.0"])
def test_prepared_set(tmp_path: Path, below: str) -> None:
    folder = prepare(tmp_path, train=8, test=4) / below
    source = read_source(request(f"tfds/{folder}"))
    assert source.classes == ("cat", "dog") and (len(source.train), len(source.test)) == (8, 4)
    images = next(iter(source.train.source.batches([torch.arange(8)])))
    written = {pixels(number, 10, 10, 3).tobytes(): number % 2 for number in range(8)}  # their order is the library's
    found = {
        image.permute(1, 2, 0).numpy().tobytes(): label
        for image, label in zip(images, source.train.labels.tolist(), strict=True)
    }
    assert found == written and "tensorflow" not in sys.modules


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(data: str, **options: Any) -> str:
        with pytest.raises(UserError) as error:
            read_source(request(data, **options))
        assert "\n" not in str(error.value)
        return str(error.value)

    folder = prepare(tmp_path, train=8, test=4)
    assert "no column of classes" in refused(f"tfds/{folder}", label_column="kind")
    assert "`image_column` must name" in refused(f"tfds/{folder}", image_column="label")
    assert "which is not there" in refused("tfds/imagenet2012")
    (folder / "1.0.0/dataset_info.json").write_text("[" * 10)
    assert "array_record" in refused(f"tfds/{folder}")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "pip install 'residualdroppath[tfds]'" in refused(f"tfds/{folder}")
