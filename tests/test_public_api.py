"""The public API is what `__all__` of a public module lists, and every name of it is there and typed."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import residualdroppath

PUBLIC = ["residualdroppath", "residualdroppath.analysis"]


@pytest.mark.parametrize("name", PUBLIC)
def test_all_lists_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    names = module.__all__
    assert names == sorted(set(names))
    assert set(names) <= set(dir(module)) and all(getattr(module, each) is not None for each in names)


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_what_type_checkers_see(name: str) -> None:
    module = importlib.import_module(name)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    shown = {alias.asname for node in imports for alias in node.names if alias.asname}
    assert set(module.__all__) - {"__version__"} == shown == set(module._MODULES)


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(residualdroppath.__file__).parent / "py.typed").is_file()
