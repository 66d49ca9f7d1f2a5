"""`residualdroppath.analysis` gives every name, and imports a library when it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from residualdroppath import analysis


def test_every_name_is_there_and_typed() -> None:
    tree = ast.parse(Path(analysis.__file__).read_text())
    typed = {
        (node.module, name.asname) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names
    }
    listed = {(module, name) for module, names in analysis._NAMES.items() for name in names}
    assert listed == {(module, name) for module, name in typed if name and module}
    for module, name in listed:
        assert getattr(analysis, name).__module__ == f"{analysis.__name__}.{module}"
        assert name in dir(analysis)


def test_no_name_is_that_of_a_module() -> None:
    """It would be the one or the other, depending on what was imported before."""
    modules = {path.stem for path in Path(analysis.__file__).parent.glob("*.py")}
    assert not modules & analysis._MODULES.keys()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reuses'"):
        _ = analysis.reuses  # pyright: ignore[reportAttributeAccessIssue]


def test_units_need_numpy_alone() -> None:
    code = "import sys; from residualdroppath.analysis import reuse; print({'sklearn', 'scipy'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
