"""Sets that the library `datasets` reads: folders, saved tables, names of the hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.data import image_sources
from residualdroppath.data.identity import identity
from residualdroppath.data.load import load_data
from residualdroppath.data.sources import read_source
from residualdroppath.errors import UserError

from .files import parquet_columns, pixels, request, write_image_folder, write_parquet

datasets = pytest.importorskip("datasets")
LABELS = [0, 1, 2, 0, 1, 2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def saved(folder: Path, **parts: list[int]) -> None:
    """As `save_to_disk` writes it."""
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])})
    tables = {}
    for seed, (part, labels) in enumerate(parts.items()):
        columns = parquet_columns(labels, seed=50 * seed)
        rows = [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(columns["image"])]
        tables[part] = datasets.Dataset.from_dict({"image": rows, "label": labels}, features=kinds)
    datasets.DatasetDict(tables).save_to_disk(str(folder))


def refused(data: str, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read_source(request(data, **options))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_saved_tables(tmp_path: Path) -> None:
    saved(tmp_path / "set", train=LABELS, validation=[1, 1], test=[-1, -1])
    source = read_source(request(f"hfds/{tmp_path / 'set'}"))
    assert source.classes == ("ant", "bee", "cat") and source.train.labels.tolist() == LABELS
    assert source.validation is not None and source.validation.labels.tolist() == [1, 1]
    assert "the test part is not used: its labels are hidden, all are -1" in source.notes
    batch = next(iter(source.train.source.batches([torch.tensor([4, 0])])))
    for image, seed in zip(batch, (4, 0), strict=True):
        assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(pixels(seed, 10, 10, 3)))


def test_parquet_files_are_the_same_data_as_when_read_at_once(tmp_path: Path) -> None:
    for part, labels in (("train", LABELS * 3), ("test", LABELS)):
        write_parquet(tmp_path / f"{part}.parquet", parquet_columns(labels, seed=len(part)))
    at_once, on_disk = (
        load_data(request(f"{reader}{tmp_path}", image_column="image"), validation_fraction=0.34)
        for reader in ("", "hfds/")
    )
    ours, theirs = identity(at_once), identity(on_disk)
    for each in (ours, theirs):
        del each["sha256"]["test"]  # not decoded: of the bytes that are in memory, or of their sizes
    assert ours == theirs


def test_folders_of_images(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    ours, theirs = (read_source(request(f"{reader}{tmp_path}")) for reader in ("", "hfds/"))
    assert theirs.classes == ours.classes == ("cat", "dog")
    assert torch.bincount(theirs.train.labels).tolist() == torch.bincount(ours.train.labels).tolist()


def test_identity_is_of_rows_and_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 0)
    for place in ("a", "b"):
        saved(tmp_path / place, train=LABELS, test=LABELS)
    saved(tmp_path / "c", train=[0, 1, 2, 0, 2, 1], test=LABELS)
    a, b, c = (
        identity(load_data(request(f"hfds/{tmp_path / place}"), validation_fraction=0.5)) for place in ("a", "b", "c")
    )
    assert a == b and a != c


def test_parts_of_other_columns_and_class_names(tmp_path: Path) -> None:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    rows = [{"bytes": image, "path": None} for image in parquet_columns([0, 1])["image"]]

    def table(image: str, names: list[str]) -> Any:
        features = datasets.Features({image: kinds["image"], "label": datasets.ClassLabel(names=names)})
        return datasets.Dataset.from_dict({image: rows, "label": [0, 1]}, features=features)

    def read(image: str, names: list[str], place: str) -> Any:
        parts = datasets.DatasetDict(train=table("image", ["ant", "bee"]), test=table(image, names))
        parts.save_to_disk(str(tmp_path / place))
        return read_source(request(f"hfds/{tmp_path / place}"))

    assert read("image", ["bee", "ant"], "a").test.labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="training images, ant, bee, got ant, cow"):
        read("image", ["ant", "cow"], "b")
    with pytest.raises(UserError, match="test, got 'image'; its columns are thumbnail, label"):
        read("thumbnail", ["ant", "bee"], "c")


def test_parquet_files_must_be_whole_here_too(tmp_path: Path) -> None:
    for name in ("train-0", "train-2", "test"):
        write_parquet(tmp_path / f"{name}.parquet", parquet_columns(LABELS))
    assert "lacks Parquet files of one part (train-0.parquet, train-2.parquet)" in refused(f"hfds/{tmp_path}")


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "set", train=LABELS, test=LABELS)
    data = f"hfds/{tmp_path / 'set'}"
    assert "`label_column` 'kind' is not in" in refused(data, label_column="kind")
    assert "`image_column` must name the column of images" in refused(data, image_column="jpeg")
    saved(tmp_path / "alone", train=LABELS)
    assert "must hold the splits train and test (or validation), got train" in refused(f"hfds/{tmp_path / 'alone'}")
    assert "cannot be read by `datasets`" in refused("hfds/nobody/nothing")
    assert "or allow `download`" in refused("hfds/nobody/nothing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'residualdroppath[hfds]'" in refused(data)


def test_names_of_the_hub_are_loaded_by_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    columns = parquet_columns(LABELS)
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    rows = [{"bytes": image, "path": None} for image in columns["image"]]
    table = datasets.Dataset.from_dict({"image": rows, "label": LABELS}, features=kinds)

    def load(name: str, download_config: Any) -> Any:
        asked.append((name, download_config.local_files_only))
        return datasets.DatasetDict(train=table, test=table)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(read_source(request("hfds/uoft-cs/cifar10")).train) == 6
    read_source(request("hfds/uoft-cs/cifar10", download=True))
    assert asked == [("uoft-cs/cifar10", True), ("uoft-cs/cifar10", False)]
