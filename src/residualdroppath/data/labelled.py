"""Images whose labels are numbers or texts given with each: classes are those of the training part, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import UserError
from .image_sources import encoded_images
from .images import Split
from .parts import Source, lacking_classes, shortened, source_of_parts
from .request import Request
from .stored import Item

HIDDEN = -1  # the label of images whose class is kept secret, by Hugging Face's habit


@dataclass(frozen=True)
class Part:
    """Images with their names and labels; of the classes, names by their numbers, if any were noted."""

    items: Sequence[Item]
    names: Sequence[str]
    labels: Sequence[int | str]
    title: str
    class_names: Sequence[str] = ()


def labelled_source(
    parts: Mapping[str, Part], where: str, request: Request, notes: Sequence[str], *, no_test: str
) -> Source:
    """A set of `where`, none of it decoded yet; `no_test` says what a test part would be."""
    notes, parts = list(notes), dict(parts)
    missing = f"{where} has no test part to test on: {no_test}."
    for part in [part for part in parts if part != "train"]:
        if set(parts[part].labels) == {HIDDEN}:
            del parts[part]
            notes.insert(0, f"the {part} part is not used: its labels are hidden, all are {HIDDEN}")
            if part == "test":
                missing = f"{where} has no test part to test on: its labels are hidden, all are {HIDDEN}."
    for part, content in parts.items():
        if hidden := sum(label == HIDDEN for label in content.labels):
            raise UserError(
                f"The {part} part of {where} holds {hidden} rows of {len(content.labels)} with the label {HIDDEN}, "
                "which stands for a hidden one; remove them."
            )
        if len({type(label) for label in content.labels}) > 1:
            raise UserError(f"The labels of the {part} part of {where} are whole numbers and texts; make them alike.")
    for part in [part for part in parts if part != "train"]:
        parts[part] = _numbered_as_train(part, parts[part], parts["train"], where, notes)
    values = sorted(set(parts["train"].labels))  # pyright: ignore[reportArgumentType]: all are of one type
    number = {value: index for index, value in enumerate(values)}
    classes = [_name(value, parts["train"].class_names) for value in values]
    splits: dict[str, Split] = {}
    stored_size = None
    for part, content in parts.items():
        if unknown := set(content.labels) - set(values):
            raise UserError(f"The {part} part of {where} holds labels that train lacks: {sorted(unknown)[:5]}.")
        images = encoded_images(
            content.items, content.names, content.title, size=request.image_size, stored_size=stored_size
        )
        stored_size = images.stored_size
        splits[part] = Split(images, torch.tensor([number[value] for value in content.labels]))
        notes += lacking_classes(part, splits[part].labels, classes)
    return source_of_parts(splits, classes, notes, no_test=missing)


def same_numbers(
    labels: Sequence[int | str], names: Sequence[str], known: Sequence[str], title: str
) -> Sequence[int | str]:
    """Whole numbers that stand for `names` as the numbers of the same names in `known`, if both were noted.

    Raises `UserError` for names that are not the same.
    """
    if not names or not known or list(names) == list(known):
        return labels
    if sorted(names) != sorted(known) or len(set(names)) < len(names):
        raise UserError(
            f"The names of classes that are noted in {title} must be those of the training images, "
            f"{shortened(known, 6)}, got {shortened(names, 6)}; write the files anew with one list of names."
        )
    number = [known.index(name) for name in names]
    return [number[label] if isinstance(label, int) and 0 <= label < len(number) else label for label in labels]


def _numbered_as_train(part: str, content: Part, train: Part, where: str, notes: list[str]) -> Part:
    labels = same_numbers(content.labels, content.class_names, train.class_names, f"the {part} part of {where}")
    if labels is content.labels:
        return content
    notes.append(f"classes of the {part} part are noted in another order than those of train, and were matched by name")
    return replace(content, labels=labels)


def _name(value: int | str, names: Sequence[str]) -> str:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else str(value)
