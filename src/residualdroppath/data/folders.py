"""Folders of images, PART/CLASS/...: what is read of them, and what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from PIL import Image

from ..errors import UserError
from .image_sources import encoded_images
from .images import Split
from .parts import PARTS, Skipped, Source, by_part, lacking_classes, source_of_parts
from .request import Request

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".avif", ".tif", ".tiff", ".jp2",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip


def read_image_folder(folder: Path, request: Request) -> Source:
    """Labels are the places of the training part's classes in order of names. Nothing is decoded yet."""
    skipped = Skipped(folder)
    found = _folders(folder, skipped, "in no part")
    parts = by_part({name: PARTS[name] for name in found if name in PARTS}, folder)
    for name, path in found.items():
        if name not in parts.values():
            skipped.add(path, "neither train, val nor test")
    if "train" not in parts or len(parts) < 2:
        raise UserError(f"{folder} must hold train/CLASS/*.jpg and test/CLASS/*.jpg (or val/); it does not.")
    class_folders = {part: _folders(found[name], skipped, "in no class") for part, name in parts.items()}
    classes = list(class_folders["train"])
    if len(classes) < 2:
        raise UserError(f"{folder / 'train'} must hold a folder for each of at least 2 classes, got {len(classes)}.")
    readable = readable_suffixes()
    splits: dict[str, Split] = {}
    notes: list[str] = []
    stored_size = None
    for part, name in parts.items():
        if unknown := sorted(set(class_folders[part]) - set(classes)):
            raise UserError(f"{folder / name} holds classes that train/ lacks: {', '.join(unknown[:5])}.")
        files = [
            (path, classes.index(label))
            for label, class_folder in class_folders[part].items()
            for path in sorted(_images(class_folder, readable, skipped))
        ]
        paths = [path for path, _ in files]
        images = encoded_images(
            paths, [str(path) for path in paths], str(folder / name), size=request.image_size, stored_size=stored_size
        )
        stored_size = images.stored_size
        splits[part] = Split(images, torch.tensor([label for _, label in files]))
        notes += lacking_classes(part, splits[part].labels, classes)
    return source_of_parts(
        splits,
        classes,
        [*notes, *skipped.lines()],
        no_test=f"{folder} has no test part to test on: there is no folder test/.",
    )


def readable_suffixes() -> dict[str, bool]:
    """Whether this build of Pillow has a reader, by suffix: AVIF and others are optional."""
    formats = Image.registered_extensions()
    return {suffix: formats.get(suffix) in Image.OPEN for suffix in IMAGE_SUFFIXES}


def _folders(folder: Path, skipped: Skipped, reason: str) -> dict[str, Path]:
    """Those in `folder` by name; files are skipped for `reason`."""
    found = {}
    for entry in _entries(folder, skipped):
        if entry.is_dir():
            found[entry.name] = Path(entry)
        else:
            skipped.add(entry.path, reason)
    return found


def _images(
    folder: Path, readable: Mapping[str, bool], skipped: Skipped, above: tuple[str, ...] = (), *, strict: bool = True
) -> Iterator[Path]:
    """Files with the names of images, those of linked folders too.

    Those that cannot be read, and folders, are errors if `strict`, else skipped.
    """
    try:
        entries = _entries(folder, skipped)
    except UserError:
        if strict or not above:
            raise
        skipped.add(str(folder), "a folder that cannot be opened")
        return
    above = (*above, os.path.realpath(folder))
    for entry in entries:
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.is_dir():
            if entry.is_symlink() and os.path.realpath(entry) in above:
                skipped.add(entry.path, "a link to a folder that it is in")
            else:
                yield from _images(Path(entry), readable, skipped, above, strict=strict)
        elif not readable.get(suffix):
            by_whom = "by this build of Pillow" if suffix in readable else "as an image"
            skipped.add(entry.path, f"{suffix or 'no suffix'}, not read {by_whom}")
        elif not entry.is_file():  # a pipe would be waited for without end
            kind = "leads nowhere" if entry.is_symlink() else "is no regular file"
            if strict:
                raise UserError(f"{entry.path} has the name of an image but {kind}; remove it.")
            skipped.add(entry.path, f"has the name of an image but {kind}")
        else:
            yield Path(entry)


def _entries(folder: Path, skipped: Skipped) -> list[os.DirEntry[str]]:
    """In order of names, without what is hidden."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be opened ({error.strerror}); mend its permissions or remove it.") from error
    hidden = [entry for entry in entries if entry.name.startswith(".")]
    for entry in hidden:
        skipped.add(entry.path, "hidden")
    return [entry for entry in entries if entry not in hidden]


def labelled_files(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Images of each class of one part, CLASS/.../*.jpg, in order of names, and lines on what was skipped."""
    skipped = Skipped(folder)
    readable = readable_suffixes()
    files = {
        name: sorted(_images(path, readable, skipped))
        for name, path in _folders(folder, skipped, "in no class").items()
    }
    if not files:
        raise UserError(f"{folder} must hold a folder of images for each class; it holds none.")
    return files, skipped.lines()


def image_files(folder: Path) -> tuple[list[Path], list[str]]:
    """All images in a folder and below, in order of names, and lines on what was skipped, what cannot be read too."""
    skipped = Skipped(folder)
    return sorted(_images(folder, readable_suffixes(), skipped, strict=False)), skipped.lines()
