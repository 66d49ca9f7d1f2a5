"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str], extra: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `package`, from the module below it that holds each name.

    `extra`: the extra of the distribution that brings what these modules need; an error names it.
    """

    def getattribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f".{modules[name]}", package), name)
        except ModuleNotFoundError as error:
            if extra is None or not error.name or error.name.startswith(package.partition(".")[0]):
                raise
            needs = f"`{package}.{name}` needs {error.name}: pip install '{package.partition('.')[0]}[{extra}]'"
            raise ModuleNotFoundError(needs, name=error.name) from error

    def listed() -> list[str]:
        return sorted([*vars(sys.modules[package]), *modules])

    return getattribute, listed
