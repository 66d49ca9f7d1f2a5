"""Tar files of images: one for all parts, one for each, or several: one for each class, or shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..errors import UserError
from .folders import readable_suffixes
from .labelled import Part, labelled_source
from .numbered import Numbered, in_order
from .parts import PARTS, Skipped, Source, by_part, require_file, shown
from .request import Request
from .stored import Piece
from .tar_contents import contents
from .webdataset import CLASS_NAMES, samples_of

# train.tar, train-003.tar, imagenet1k-validation-00.tar, train-0-of-4.tar
_SHARD = re.compile(rf"(?:.*[-_.])?({'|'.join(PARTS)})(?:[-_](\d+)(?:-of-(\d+))?)?\.tar")

_NUMBER = re.compile(r"(.*[-_.])?(\d+)(?:-of-(\d+))?\.tar")


def tar_parts(folder: Path, skipped: Skipped) -> dict[str, list[Path]]:
    """The tar files of each part: FOLDER/PART.tar, FOLDER/NAME-PART-NUMBER.tar, or all in FOLDER/PART/."""
    named: dict[str, list[Numbered]] = {}
    for path in sorted(folder.iterdir()):
        match = _SHARD.fullmatch(path.name)
        if path.name.startswith("."):
            skipped.add(path, "hidden")
        elif match:
            part, *numbers = match.groups()
            named.setdefault(part, []).append(Numbered.of_texts(require_file(path), *numbers))
        elif path.name in PARTS and shown(path, "*.tar"):
            of_folder = enumerate(_of_folder(path, skipped))
            named.setdefault(path.name, []).extend(Numbered(place, None, file) for place, file in of_folder)
        elif path.name != CLASS_NAMES:
            skipped.add(path, "not named as a tar file of a part")
    parts = by_part({name: PARTS[name] for name in named}, folder)
    if "train" not in parts or len(parts) < 2:
        missing = "test" if "train" in parts else "train"
        raise UserError(
            f"{folder} must hold tar files of train and test (or val): PART.tar, NAME-PART-NUMBER.tar or "
            f"PART/CLASS.tar; {missing} is missing."
        )
    return {part: in_order(named[name], folder, "tar") for part, name in parts.items()}


def holds_tars(folder: Path) -> bool:
    """Whether a folder is one of tar files, for training at least."""
    matches = (_SHARD.fullmatch(path.name) for path in shown(folder, "*.tar"))
    return any(match and match[1] == "train" for match in matches) or bool(shown(folder / "train", "*.tar"))


def read_tar_folder(folder: Path, request: Request, *, samples: bool = False) -> Source:
    """With `samples`, or where labels stand next to images, shards of WebDataset samples, else images of folders."""
    skipped = Skipped(folder)
    paths = tar_parts(folder, skipped)
    found = {part: contents(files, skipped) for part, files in paths.items()}
    samples = samples or any(PurePosixPath(piece.name).suffix == ".cls" for piece in found["train"])
    parts = {}
    for part, pieces in found.items():
        if samples:
            _require_whole(paths[part], folder)
            parts[part] = samples_of(pieces, folder, request)
        else:
            is_one = len(paths[part]) == 1 and paths[part][0].parent == folder
            parts[part] = _images(pieces, folder, paths[part][0].stem if is_one else None, skipped)
    return labelled_source(parts, str(folder), request, skipped.lines(), no_test="there are no tar files of it")


def read_tar_file(path: Path, request: Request) -> Source:
    """One tar file of PART/CLASS/..., in a folder above them or not."""
    skipped = Skipped(path)
    by_name: dict[str, list[Piece]] = {}
    for piece in contents([path], skipped):
        folders = PurePosixPath(piece.name).parts[:-1]
        place = next((place for place, folder in enumerate(folders[:2]) if folder in PARTS), None)
        if place is None:
            skipped.add(path / piece.name, "in no part")
        else:
            below = "/".join(PurePosixPath(piece.name).parts[place + 1 :])
            by_name.setdefault(folders[place], []).append(piece._replace(name=below))
    names = by_part({name: PARTS[name] for name in by_name}, path)
    if "train" not in names or len(names) < 2:
        raise UserError(f"{path} must hold train/CLASS/*.jpg and test/CLASS/*.jpg (or val/); it does not.")
    parts = {part: _images(by_name[name], path, name, skipped) for part, name in names.items()}
    return labelled_source(parts, str(path), request, skipped.lines(), no_test="it holds no folder test/")


def _of_folder(folder: Path, skipped: Skipped) -> list[Path]:
    """Tar files in order of names, which are classes or numbered shards."""
    paths = sorted(folder.iterdir())
    for path in paths:
        if path.name.startswith("."):
            skipped.add(path, "hidden")
        elif path.is_dir():
            raise UserError(f"{folder} holds both tar files and folders ({path.name}); move one of the two elsewhere.")
        elif path.suffix != ".tar":
            skipped.add(path, "no tar file")
    return [require_file(path) for path in shown(folder, "*.tar")]


def _require_whole(shards: Sequence[Path], folder: Path) -> None:
    """Also of shards in PART/, if their names end with numbers; classes in PART/ are not counted."""
    found = [_NUMBER.fullmatch(path.name) for path in shards]
    if all(found) and len({match[1] for match in found if match}) == 1:
        numbers = [match.groups()[1:] for match in found if match]
        in_order([Numbered.of_texts(path, *each) for path, each in zip(shards, numbers, strict=True)], folder, "tar")


def _images(pieces: Sequence[Piece], where: Path, part: str | None, skipped: Skipped) -> Part:
    """Classes are the outermost folders of images, or else tar files, unless all is in that of one `part`."""
    readable = readable_suffixes()
    items: list[Piece] = []
    labels: list[str] = []
    for piece in pieces:
        name = PurePosixPath(piece.name)
        folders = name.parts[:-1]
        if part is not None and len(folders) > 1 and folders[0] == part:
            folders = folders[1:]  # the tar file of a folder PART, with its name
        if not readable.get(name.suffix.lower()):
            by_whom = "by this build of Pillow" if name.suffix.lower() in readable else "as an image"
            skipped.add(where / piece.path.name / name, f"{name.suffix or 'no suffix'}, not read {by_whom}")
        elif not folders and part is not None:
            skipped.add(where / piece.path.name / name, "in no class")
        else:
            items.append(piece)
            labels.append(folders[0] if folders else piece.path.stem)
    if items and len(set(labels)) < 2:
        raise UserError(f"{where} must hold images of at least 2 classes, folders in tar files, got {labels[0]} alone.")
    return Part(items, [f"{piece.path}/{piece.name}" for piece in items], labels, f"{where}, {part or 'a part'}")
