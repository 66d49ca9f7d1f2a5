"""Which images are trained on, chosen on and tested on; what is not read is noted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from residualdroppath.data import folders
from residualdroppath.data.describe import describe
from residualdroppath.data.images import ImageData
from residualdroppath.data.load import load_data
from residualdroppath.data.parts import same_text
from residualdroppath.data.stored import Piece, identity_of
from residualdroppath.errors import UserError

from .files import encoded, parquet_columns, pixels, request, write_image_folder, write_parquet, write_tar

LABELS = [0, 1, 2, 0, 1, 2]


def load(folder: Path, **options: int) -> ImageData:
    return load_data(request(str(folder), **options), validation_fraction=0.34)


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def notes(folder: Path) -> str:
    return "\n".join(load(folder).notes)


def first_pixels(data: ImageData, part: str) -> list[int]:
    """What tells one image from another."""
    split = getattr(data, part)
    return next(iter(split.batches([torch.arange(len(split))])))[0][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folder_is_the_validation_part(tmp_path: Path, name: str) -> None:
    write_image_folder(tmp_path)
    written = write_image_folder(tmp_path, test=name, per_class=3)
    data = load(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (2 * 3 + 2 * 3, 6, 12)
    expected = [int(written[f"{name}/{label}/{i}.png"][0, 0, 0]) for label in ("cat", "dog") for i in range(3)]
    assert first_pixels(data, "validation") == expected
    assert "validation images are the set's own, `validation_fraction` has no effect" in data.notes


@pytest.mark.parametrize("kind", ["folders", "parquet"])
def test_validation_part_is_never_tested(tmp_path: Path, kind: str) -> None:
    if kind == "folders":
        write_image_folder(tmp_path, test="val")
    else:
        for part in ("train", "validation"):
            write_parquet(tmp_path / f"{part}.parquet", parquet_columns(LABELS))
    data = load(tmp_path)
    assert not data.has_test and len(data.test) == 0 and len(data.validation) > 4
    for use in (data.require_test, lambda: list(data.test.batches([torch.arange(1)]))):
        with pytest.raises(UserError, match="has no test part to test on"):
            use()
    assert "test: there is no test part, so accuracy is reported on validation images" in describe(data)


def test_without_a_folder_for_it_validation_is_cut(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    data = load(tmp_path)
    assert (len(data.train), len(data.validation)) == (7, 5) and data.has_test
    assert any("cut from those of training (`validation_fraction` 0.34)" in note for note in data.notes)


def test_one_part_under_two_names(tmp_path: Path) -> None:
    for name in ("val", "validation"):
        write_image_folder(tmp_path, test=name)
    assert "holds the validation part twice, as val and validation" in refused(tmp_path)


def test_some_classes_of_all_parts(tmp_path: Path) -> None:
    for name in ("val", "test"):
        write_image_folder(tmp_path, classes=("ant", "bee", "cat"), test=name)
    data = load_data(request(str(tmp_path)), num_classes=2, class_seed=1)
    assert [len(data.validation), len(data.test)] == [12, 12] and len(data.classes) == 2


@pytest.mark.parametrize("part", ["val", "test"])
def test_classes_that_a_part_lacks_are_named(tmp_path: Path, part: str) -> None:
    write_image_folder(tmp_path, classes=("ant", "bee", "cat"), test="test")
    write_image_folder(tmp_path, classes=("ant", "bee", "cat"), test="val")
    shutil.rmtree(tmp_path / part / "ant")
    for path in (tmp_path / part / "cat").iterdir():
        path.unlink()
    data = load(tmp_path)
    full = "validation" if part == "val" else part
    assert f"the {full} part lacks 2 of 3 classes: ant, cat" in data.notes
    assert getattr(data, full).labels.tolist() == [1] * 6  # as training numbers them


def test_what_is_skipped_is_noted_with_its_reason(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    for name in (".ipynb_checkpoints", ".cache"):
        (tmp_path / "train" / name).mkdir()
        (tmp_path / "train" / name / "0.png").write_bytes(encoded(pixels(0, 10, 10, 3)))
    (tmp_path / "train" / "cat" / ".ipynb_checkpoints").mkdir()
    for name in ("cat/notes.txt", "cat/._0.png", "dog/photo.heic", "dog/README", "labels.csv", "cat/Thumbs.db"):
        (tmp_path / "train" / name).write_text("x")
    (tmp_path / "raw").mkdir()
    (tmp_path / "LICENSE").write_text("x")
    data = load(tmp_path)
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.validation) == 12
    assert {note for note in data.notes if note.startswith("skipped")} == {
        "skipped, hidden: train/.cache, train/.ipynb_checkpoints, train/cat/._0.png and 1 more",
        "skipped, .txt, not read as an image: train/cat/notes.txt",
        "skipped, .heic, not read as an image: train/dog/photo.heic",
        "skipped, .db, not read as an image: train/cat/Thumbs.db",
        "skipped, no suffix, not read as an image: train/dog/README",
        "skipped, in no class: train/labels.csv",
        "skipped, in no part: LICENSE",
        "skipped, neither train, val nor test: raw",
    }


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".jfif", ".JPE", ".pgm", ".tif", ".webp", ".jp2"])
def test_images_of_other_formats_are_read(tmp_path: Path, suffix: str) -> None:
    if not folders.readable_suffixes()[suffix.lower()]:
        pytest.skip(f"this build of Pillow does not read {suffix}")
    write_image_folder(tmp_path)
    from PIL import Image

    Image.fromarray(pixels(9, 10, 10)).save(tmp_path / "train" / "cat" / f"one{suffix}")
    data = load(tmp_path)
    assert len(data.train) + len(data.validation) == 13


def test_format_that_this_pillow_does_not_read_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "train" / "cat" / "x.avif").write_text("x")
    monkeypatch.setattr(folders, "readable_suffixes", lambda: {".png": True, ".avif": False})
    assert "skipped, .avif, not read by this build of Pillow: train/cat/x.avif" in notes(tmp_path)


def test_linked_folders_are_read(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "set")
    write_image_folder(tmp_path / "other", classes=("cat", "newt"))
    (tmp_path / "set" / "train" / "cat" / "more").symlink_to(tmp_path / "other" / "train" / "cat")
    for part in ("train", "test"):
        (tmp_path / "set" / part / "newt").symlink_to(tmp_path / "other" / part / "newt")
    data = load(tmp_path / "set")
    assert data.classes == ("cat", "dog", "newt") and len(data.train) + len(data.validation) == 12 + 6 + 6


def test_link_to_a_folder_above_is_noted(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat")
    assert "skipped, a link to a folder that it is in: train/cat/again" in notes(tmp_path)


def test_folder_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image_folder(tmp_path)
    scandir = os.scandir

    def closed(path: Path) -> object:  # permissions do not bind the user that tests may run as
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert f"{tmp_path / 'train' / 'dog'} cannot be opened (Permission denied)" in refused(tmp_path)


def test_link_that_leads_nowhere(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "train" / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert "gone.jpg has the name of an image but leads nowhere; remove it" in refused(tmp_path)


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "a")
    os.mkfifo(tmp_path / "a" / "train" / "cat" / "pipe.jpg")
    assert "pipe.jpg has the name of an image but is no regular file; remove it" in refused(tmp_path / "a")
    write_image_folder(tmp_path / "b")
    os.mkfifo(tmp_path / "b" / "train" / "cat" / "pipe")
    assert "skipped, no suffix, not read as an image: train/cat/pipe" in notes(tmp_path / "b")
    write_parquet(tmp_path / "c" / "train.parquet", parquet_columns(LABELS))
    os.mkfifo(tmp_path / "c" / "test.parquet")
    assert "test.parquet is no regular file" in refused(tmp_path / "c")


@pytest.mark.parametrize("name", ["train/cat.tar", "train-001.tar"])
def test_pipe_among_tar_files_is_not_waited_for(tmp_path: Path, name: str) -> None:
    for file in ("train/dog.tar", "test/dog.tar") if "/" in name else ("train-000.tar", "test.tar"):
        write_tar(tmp_path / file, {"dog/0.png": encoded(pixels(0, 10, 10, 3))})
    os.mkfifo(tmp_path / name)
    assert f"{name} is no regular file; remove it" in refused(tmp_path)


@pytest.mark.parametrize(
    "stray", [".cache/x.parquet", "._train.parquet", "data/.x.parquet", ".cache/train.tar", "train/._cat.tar"]
)
def test_hidden_files_do_not_say_what_a_folder_holds(tmp_path: Path, stray: str) -> None:
    write_image_folder(tmp_path)
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    (tmp_path / stray).write_bytes(b"x")
    assert load(tmp_path).classes == ("cat", "dog")


def test_hidden_tar_files_are_noted(tmp_path: Path) -> None:
    image = encoded(pixels(0, 10, 10, 3))
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        write_tar(tmp_path / f"{name}.tar", {f"{number}.png": image for number in range(3)})
    (tmp_path / "train/._cat.tar").write_bytes(b"x")
    assert "skipped, hidden: train/._cat.tar" in notes(tmp_path)


def test_broken_image_of_the_test_part_is_found_before_training(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "test" / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="3.png cannot be decoded as an image"):
        load(tmp_path, image_size=10)


def test_description_of_a_folder(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name / "clear.png").write_bytes(encoded(pixels(1, 10, 10, 4)))
    assert describe(load(tmp_path)) == [
        f"data: {tmp_path}",
        "images: 9 training, 5 validation, 14 test; 10x10 pixels, colour",
        "classes: 2, by training images cat: 4, dog: 5",
        "2 training images: transparent parts composed on white",
        "2 test images: if there are any, transparent parts composed on white",
        "validation images are cut from those of training (`validation_fraction` 0.34)",
        "images have 10x10 pixels as stored",
    ]


def test_description_of_many_classes() -> None:
    data = load_data(request("digits"))
    many = ImageData(**{**vars(data), "num_classes": 40, "classes": tuple(f"c{i}" for i in range(40))})
    assert describe(many)[2].endswith("c11: 0 and 28 more, 0 to 131 training images each")


@pytest.mark.parametrize("name", ["café", "cat", os.fsdecode(b"caf\xe9")])
def test_names_are_the_same_in_any_locale(name: str) -> None:
    """In that of C, Python has the bytes of other letters one by one."""
    in_c = os.fsencode(name).decode("ascii", "surrogateescape")
    assert same_text(in_c) == same_text(name) == name
    pieces = [Piece(Path("a.tar"), each, 0, 1) for each in (in_c, name)]
    assert identity_of(pieces[0]) == identity_of(pieces[1]) == b"a.tar/" + os.fsencode(name) + b" 1"
