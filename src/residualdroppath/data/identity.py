"""What a run remembers of its data, to be compared when it is resumed: counts, classes, and a digest of each part."""

from __future__ import annotations

import hashlib
from typing import Any

from ..errors import UserError
from .image_sources import DecodedOnce, Encoded, ImageSource, InMemory
from .images import ImageData, Split
from .stored import identity_of


def identity(data: ImageData) -> dict[str, Any]:
    """Plain values that are equal for equal data, wherever the folder of the data is."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "classes": list(data.classes) or data.num_classes,
        "channels": data.channels,
        "image_size": data.image_size,
        "images": {part: len(split) for part, split in parts.items()},
        "sha256": {part: _digest(split) for part, split in parts.items()},
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two identities, in a few words each."""
    found = [
        f"{name} ({before.get(name)} then, {now[name]} now)"
        for name in ("channels", "image_size", "images")
        if before.get(name) != now[name]
    ]
    if before.get("classes") != now["classes"]:
        found.append("classes")
    digests = before.get("sha256")
    digests = digests if isinstance(digests, dict) else {}  # a file that somebody wrote into
    return found or [
        f"content of the {part} part" for part in now["sha256"] if digests.get(part) != now["sha256"][part]
    ]


def only_test_differs(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two identities differ, and only in their test part."""
    return bool(differences(before, now)) and not differences(_without_test(before), _without_test(now))


def _without_test(found: dict[str, Any]) -> dict[str, Any]:
    def others(name: str) -> dict[str, Any]:
        return {part: value for part, value in found.get(name, {}).items() if part != "test"}

    return {**found, "images": others("images"), "sha256": others("sha256")}


def require_trained_on(before: dict[str, Any], data: ImageData) -> None:
    """Raise `UserError` unless data, read anew, are those that a network was trained on."""
    if different := differences(before, identity(data)):
        raise UserError(
            f"The data at {data.name} are not those that the network was trained on, they differ in "
            f"{', '.join(different)}; put them back, or name data as `data`."
        )


def _digest(split: Split) -> str:
    """Of labels and pixels; where images are not held, of labels, names and sizes of files."""
    digest = hashlib.sha256(split.labels.cpu().numpy().tobytes())
    source: ImageSource = split.source
    if isinstance(source, DecodedOnce):
        source = source.encoded
    if isinstance(source, InMemory):
        digest.update(source.images.cpu().contiguous().numpy())  # pyright: ignore[reportArgumentType]
    elif isinstance(source, Encoded):
        for item in source.items:
            named = identity_of(item)
            digest.update(len(named).to_bytes(8, "little"))
            digest.update(named)
    return digest.hexdigest()
