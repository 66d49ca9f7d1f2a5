"""WebDataset shards: samples of an image and its label."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.data.load import load_data
from residualdroppath.data.sources import read_source
from residualdroppath.errors import UserError

from .files import encoded, pixels, request, write_shards, write_tar

IMAGE = encoded(pixels(0, 10, 10, 3))


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read_source(request(f"wds/{folder}", **options))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("prefix", ["", "wds/", "WDS/"])
def test_samples_in_the_order_of_shards(tmp_path: Path, prefix: str) -> None:
    images = write_shards(tmp_path)
    write_shards(tmp_path, (4,), part="val")
    (tmp_path / "classes.txt").write_text("n01\tcat\nn02\tdog\n")
    source = read_source(request(f"{prefix}{tmp_path}"))
    assert source.classes == ("cat", "dog") and source.validation is not None and len(source.validation) == 4
    assert source.train.labels.tolist() == [number % 2 for number in range(12)]
    batch = next(iter(source.train.source.batches([torch.tensor([11, 0, 6])])))
    for image, number in zip(batch, (11, 0, 6), strict=True):
        assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(images[number]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_same_samples_as_the_library_reads(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    write_shards(tmp_path)
    write_shards(tmp_path, (4,), part="test")
    theirs = wds.WebDataset([str(path) for path in sorted(tmp_path.glob("train-*.tar"))], shardshuffle=False)
    expected = [(sample["png"], int(sample["cls"])) for sample in theirs]
    ours = read_source(request(f"wds/{tmp_path}")).train
    found = [(item.read(), label) for item, label in zip(ours.source.items, ours.labels.tolist(), strict=True)]  # pyright: ignore
    assert found == expected
    del theirs
    gc.collect()


def test_shards_in_a_folder_of_their_part_are_counted_too(tmp_path: Path) -> None:
    write_shards(tmp_path, (4,), part="test")
    for number in (0, 2):
        write_tar(tmp_path / f"train/{number:03}.tar", {"a.png": IMAGE, "a.cls": str(number).encode()})
    assert "lacks tar files of one part (000.tar, 002.tar): number 1; fetch" in refused(tmp_path)
    write_tar(tmp_path / "train/001.tar", {"a.png": IMAGE, "a.cls": b"1"})
    assert read_source(request(f"wds/{tmp_path}")).num_classes == 3


def test_labels_in_json(tmp_path: Path) -> None:
    for part in ("train", "test"):
        members = {}
        for number, name in enumerate(("dog", "cat", "dog")):
            members |= {
                f"{number}.png": IMAGE,
                f"{number}.json": json.dumps({"kind": name}).encode(),
                f"{number}.txt": b"",
            }
        write_tar(tmp_path / f"pets-{part}-0000.tar", members)
    source = read_source(request(f"wds/{tmp_path}", label_column="kind"))
    assert source.classes == ("cat", "dog") and source.train.labels.tolist() == [1, 0, 1]
    assert "`label_column` 'label' (KeyError)" in refused(tmp_path)


@pytest.mark.parametrize(
    "members, reason",
    [
        ({"a.png": IMAGE}, "The sample a of .* must hold a .cls file"),
        ({"a.cls": b"0"}, "The sample a of .* must hold one image, got 0 among cls"),
        ({"a.png": IMAGE, "a.jpg": IMAGE, "a.cls": b"0"}, "must hold one image, got 2 among png, jpg, cls"),
        ({"a.png": IMAGE, "a.cls": b"cat"}, "must hold a .cls file with a whole number"),
        ({"a.png": IMAGE, "a.PNG": IMAGE, "a.cls": b"0"}, "holds a.PNG twice"),
        ({"a.png": IMAGE, "a.json": b"[" * 100_000}, "RecursionError|JSONDecodeError"),
        ({"a.png": IMAGE, "a.json": b'{"label": 1.5}'}, "must hold a whole number or a text"),
    ],
)
def test_samples_that_are_not_whole(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    write_shards(tmp_path, (4,), part="test")
    write_tar(tmp_path / "train-0.tar", members)
    with pytest.raises(UserError, match=reason):
        read_source(request(f"wds/{tmp_path}"))
    refused(tmp_path)


def test_hidden_labels(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_shards(tmp_path, (4,), part="val")
    write_tar(tmp_path / "test-0.tar", {"a.png": IMAGE, "a.cls": b"-1"})
    source = read_source(request(f"wds/{tmp_path}"))
    assert "the test part is not used: its labels are hidden, all are -1" in source.notes


def test_only_what_is_used_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from residualdroppath.data import stored

    write_shards(tmp_path, (30, 30))
    write_shards(tmp_path, (4,), part="test")
    read: list[str] = []
    piece_read = stored.Piece.read
    monkeypatch.setattr(stored.Piece, "read", lambda self: read.append(self.name) or piece_read(self))
    load_data(request(f"wds/{tmp_path}"), validation_fraction=0.1, train_size=8)
    images = [name for name in read if name.endswith(".png")]
    # One for the size of all, those of training and validation, the test part for its headers.
    assert len(images) <= 2 + 8 + 6 + 4
