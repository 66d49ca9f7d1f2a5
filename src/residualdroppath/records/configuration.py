"""YAML that a person wrote: refused by its size and depth before it is understood.

A few lines of YAML can name a list of lists of lists many times over, and stand for more values than fit in memory.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, first_line

MOST_BYTES = 2**20
MOST_VALUES = 100_000  # names written out wherever they stand
MOST_LEVELS = 20
MERGE = "tag:yaml.org,2002:merge"  # `<<`, which may be there more than once


def read_yaml(path: Path) -> Any:
    """The values in a file. Raises `UserError` for what is none, or too much."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"The configuration {path} must be a file, it is a folder, a pipe or a device.")
        if found.st_size > MOST_BYTES:
            raise UserError(f"The configuration {path} must have at most {MOST_BYTES:,} bytes, got {found.st_size:,}.")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"The configuration {path} cannot be read ({first_line(error)}).") from error


def parse_yaml(text: str) -> Any:
    """The values in a text. Raises `ValueError` with the reason."""
    try:
        require_small(yaml.parse(text, Loader=yaml.SafeLoader))
        require_different_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(first_line(error)) from error


def require_small(events: Iterable[yaml.Event]) -> None:
    """Raises `ValueError` for too many levels or values, before any value is made of the events of a YAML parser."""
    sizes: dict[str, int] = {}  # by name (&name) of a value that has ended: how many it stands for
    depths: dict[str, int] = {}
    open_values: list[list[Any]] = [["", 0, 0]]  # name, values and levels within, of each that has not ended
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            open_values.append([event.anchor, 1, 1])
            _add(open_values, 0, 0)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            name, values, levels = open_values.pop()
        elif isinstance(event, yaml.ScalarEvent):
            name, values, levels = event.anchor, 1, 0
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} stands within itself, or for nothing")
            name, values, levels = None, sizes[event.anchor], depths[event.anchor]
        else:
            continue
        if name:
            sizes[name], depths[name] = values, levels
        _add(open_values, values, levels)


def require_different_keys(root: yaml.Node | None) -> None:
    """Raises `ValueError` for a key that a mapping has twice: its first value would be lost without a word."""
    waiting, seen = [root], set[yaml.Node | None]()  # what a name stands for is one node in several places
    while waiting:
        node = waiting.pop()
        if node in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(node)
        if isinstance(node, yaml.MappingNode):
            _require_different([key for key, _ in node.value if key.tag != MERGE])
            waiting += itertools.chain(*node.value)
        else:
            waiting += node.value


def _require_different(keys: Iterable[yaml.Node]) -> None:
    before: set[tuple[str, str]] = set()
    for key in keys:
        name = (key.tag, str(key.value))
        if name in before:
            raise ValueError(f"{key.value} is given twice, again in line {key.start_mark.line + 1}")
        before.add(name)


def _add(open_values: list[list[Any]], values: int, levels: int) -> None:
    """Count what has ended within what has not."""
    innermost = open_values[-1]
    innermost[1] += values
    innermost[2] = max(innermost[2], levels + 1)
    if sum(within for _, within, _ in open_values) > MOST_VALUES:
        raise ValueError(f"it stands for more than {MOST_VALUES:,} values")
    if len(open_values) - 1 + levels > MOST_LEVELS:
        raise ValueError(f"it has more than {MOST_LEVELS} levels")
