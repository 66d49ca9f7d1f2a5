"""Images in tar files: of parts, of classes, of everything; what is wrong with them is said."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from residualdroppath.data.identity import identity
from residualdroppath.data.load import load_data
from residualdroppath.data.parts import Source
from residualdroppath.data.sources import read_source
from residualdroppath.errors import UserError

from .files import encoded, pixels, request, write_image_folder, write_tar


def members(folder: Path, below: str = "") -> dict[str, bytes]:
    return {
        path.relative_to(folder / below).as_posix(): path.read_bytes()
        for path in sorted((folder / below).rglob("*.png"))
    }


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read_source(request(str(path), **options))
    assert "\n" not in str(error.value)
    return str(error.value)


def same(ours: Source, theirs: Source) -> None:
    assert ours.classes == theirs.classes and ours.image_size == theirs.image_size
    for part in ("train", "test"):
        first, second = getattr(ours, part), getattr(theirs, part)
        assert torch.equal(first.labels, second.labels), part
        every = [torch.arange(len(first))]
        assert torch.equal(next(first.source.batches(every)), next(second.source.batches(every))), part


@pytest.mark.parametrize(
    "layout", ["one of each part", "each class", "one of all", "shards of folders", "tars in a tar"]
)
def test_every_layout_is_read_as_the_folder_is(tmp_path: Path, layout: str) -> None:
    folder, to = tmp_path / "folder", tmp_path / "tars"
    write_image_folder(folder)
    if layout == "one of each part":
        for part in ("train", "test"):
            write_tar(to / f"{part}.tar", members(folder, part))
    elif layout == "each class":
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                write_tar(to / part / f"{name}.tar", members(folder, f"{part}/{name}"))
    elif layout == "one of all":
        to = tmp_path / "all.tar"
        write_tar(to, {f"./pets/{name}": content for name, content in members(folder).items()})
    elif layout == "shards of folders":
        for part in ("train", "test"):
            found = list(members(folder, part).items())
            write_tar(to / f"{part}-0.tar", dict(found[:5]))
            write_tar(to / f"{part}-1.tar", dict(found[5:]))
    else:
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                write_tar(tmp_path / f"{name}.tar", members(folder, f"{part}/{name}"))
            inner = {f"{name}.tar": (tmp_path / f"{name}.tar").read_bytes() for name in ("cat", "dog")}
            write_tar(to / f"{part}.tar", inner)
    same(read_source(request(str(to))), read_source(request(str(folder))))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_labels_and_bytes_are_those_of_timms_reader(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number, name in enumerate(("n01", "n02", "n03")):
            images = {f"{name}_{i}.png": encoded(pixels(10 * number + i, 10, 10, 3)) for i in range(3)}
            write_tar(tmp_path / part / f"{name}.tar", images)
    reader = ReaderImageInTar(str(tmp_path / "train"))
    ours = read_source(request(str(tmp_path))).train
    theirs = [(image.read(), label) for image, label in (reader[place] for place in range(len(reader)))]  # pyright: ignore
    assert [(item.read(), label) for item, label in zip(ours.source.items, ours.labels.tolist(), strict=True)] == theirs  # pyright: ignore


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "f")
    strange = {".DS_Store": b"", "cat/notes.txt": b"", "alone.png": b"", "cat/._0.png": b""}
    write_tar(tmp_path / "t/train.tar", {**members(tmp_path / "f", "train"), **strange})
    write_tar(tmp_path / "t/test.tar", members(tmp_path / "f", "test"))
    (tmp_path / "t/readme.md").write_text("x")
    notes = "\n".join(read_source(request(str(tmp_path / "t"))).notes)
    assert "skipped, .txt, not read as an image: train.tar/cat/notes.txt" in notes
    assert "skipped, hidden: train.tar/.DS_Store, train.tar/cat/._0.png" in notes
    assert "skipped, in no class: train.tar/alone.png" in notes
    assert "skipped, not named as a tar file of a part: readme.md" in notes


def test_links_in_tar_files_are_not_followed(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "f")
    for part in ("train", "test"):
        write_tar(tmp_path / f"t/{part}.tar", members(tmp_path / "f", part))
    with tarfile.open(tmp_path / "t/train.tar", "a") as tar:
        link = tarfile.TarInfo("cat/passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    source = read_source(request(str(tmp_path / "t")))
    assert len(source.train) == 12
    assert "skipped, neither a file nor a folder in a tar file: train.tar/cat/passwd.png" in source.notes


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda content: content[:1700], "unexpected end of data"),
        (lambda content: content[: content.rindex(b"ustar") + 255 + 512], "its end is missing"),
        (lambda content: content.rstrip(b"\0")[:-300], "end"),
        (lambda content: content + content, "it goes on after its end"),
        (lambda content: b"", "empty file"),
        (lambda content: b"x" * 5000, "invalid header|truncated header|bad checksum"),
        (gzip.compress, "invalid header|not a gzip|bad checksum|truncated header"),
    ],
)
def test_damaged_or_compressed_tar_files(tmp_path: Path, damage: Any, reason: str) -> None:
    write_image_folder(tmp_path / "f")
    for part in ("train", "test"):
        write_tar(tmp_path / f"t/{part}.tar", members(tmp_path / "f", part))
    path = tmp_path / "t/train.tar"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=reason):
        read_source(request(str(tmp_path / "t")))
    assert refused(tmp_path / "t").startswith(f"{path} cannot be read as an uncompressed tar file (")


def test_wrong_layouts(tmp_path: Path) -> None:
    image = encoded(pixels(0, 10, 10, 3))
    write_tar(tmp_path / "a/train.tar", {"cat/0.png": image, "dog/0.png": image})
    assert "test is missing" in refused(tmp_path / "a")
    write_tar(tmp_path / "a/val.tar", {"cat/0.png": image, "bird/0.png": image})
    assert "The validation part" in refused(tmp_path / "a") and "['bird']" in refused(tmp_path / "a")
    write_tar(tmp_path / "b/train-0.tar", {"cat/0.png": image, "dog/0.png": image})
    write_tar(tmp_path / "b/train-2.tar", {"cat/0.png": image})
    write_tar(tmp_path / "b/test.tar", {"cat/0.png": image})
    assert "lacks tar files of one part (train-0.tar, train-2.tar): number 1" in refused(tmp_path / "b")
    write_tar(tmp_path / "c/train/cat.tar", {"0.png": image})
    write_tar(tmp_path / "c/test/cat.tar", {"0.png": image})
    assert "at least 2 classes" in refused(tmp_path / "c")
    (tmp_path / "c/train/dog").mkdir()
    assert "holds both tar files and folders (dog)" in refused(tmp_path / "c")
    write_tar(tmp_path / "d.tar", {"cat/0.png": image, "dog/1.png": image})
    assert "must hold train/CLASS/*.jpg and test/CLASS" in refused(tmp_path / "d.tar")


def test_a_broken_image_is_named_by_its_place(tmp_path: Path) -> None:
    image = encoded(pixels(0, 10, 10, 3))
    for part in ("train", "test"):
        write_tar(tmp_path / f"{part}.tar", {f"{name}/{i}.png": image for name in ("cat", "dog") for i in range(4)})
    write_tar(tmp_path / "test.tar", {"cat/0.png": image, "dog/1.png": image[:50]})
    with pytest.raises(UserError, match=r"test\.tar/dog/1\.png cannot be decoded as an image"):
        load_data(request(str(tmp_path)), validation_fraction=0.5).test.decoded()


def test_identity_survives_a_move_and_notices_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from residualdroppath.data import image_sources

    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 0)
    write_image_folder(tmp_path / "f")
    for place in ("a", "b", "c"):
        for part in ("train", "test"):
            content = members(tmp_path / "f", part)
            if place == "c" and part == "train":
                content["cat/0.png"] += b"\0"
            write_tar(tmp_path / place / f"{part}.tar", content)
    a, b, c = (
        identity(load_data(request(str(tmp_path / place)), validation_fraction=0.5))["sha256"]
        for place in ("a", "b", "c")
    )
    assert a == b and c != a
