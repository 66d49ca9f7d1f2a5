"""The public API is what `__all__` of a public module lists, and every name of it is there and typed."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import residualdroppath

LAZY = ["residualdroppath", "residualdroppath.analysis"]  # names are imported when they are first asked for
INTEGRATIONS = [f"residualdroppath.integrations.{name}" for name in ("ddp", "lightning", "transformers")]
PUBLIC = LAZY + INTEGRATIONS


# Of a class of another library that is derived from, which pyright does not follow here.
OF_OTHERS = {"Type of base class unknown", "Type of metaclass unknown"}


def imported(name: str) -> ModuleType:
    if name in INTEGRATIONS and not name.endswith(".ddp"):
        pytest.importorskip(name.rpartition(".")[2])
    return importlib.import_module(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_all_lists_what_is_there(name: str) -> None:
    module = imported(name)
    names = module.__all__
    assert names == sorted(set(names))
    assert set(names) <= set(dir(module)) and all(getattr(module, each) is not None for each in names)


def test_every_integration_says_what_is_public() -> None:
    folder = Path(str(residualdroppath.__file__)).parent / "integrations"
    assert INTEGRATIONS == [f"residualdroppath.integrations.{path.stem}" for path in sorted(folder.glob("[a-z]*.py"))]


@pytest.mark.parametrize("name", LAZY)
def test_all_is_what_type_checkers_see(name: str) -> None:
    module = importlib.import_module(name)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    shown = {alias.asname for node in imports for alias in node.names if alias.asname}
    assert set(module.__all__) - {"__version__"} == shown == set(module._MODULES)


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(residualdroppath.__file__).parent / "py.typed").is_file()


@pytest.mark.full
def test_types_of_all_public_names_are_known() -> None:
    """As `pyright --verifytypes` reads them: each name of `__all__` with its members."""
    pytest.importorskip("pyright")
    words = [sys.executable, "-m", "pyright", "--verifytypes", "residualdroppath", "--ignoreexternal", "--outputjson"]
    words += ["--pythonpath", sys.executable]
    source = str(Path(str(residualdroppath.__file__)).parents[1])  # it does not look into editable installations
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, env=environment)
    found = json.loads(done.stdout)
    symbols = found["typeCompleteness"]["symbols"]
    doubtful = [each for each in symbols if not each["isTypeKnown"] or each["isTypeAmbiguous"]]
    unknown = [each["name"] for each in doubtful if {told["message"] for told in each["diagnostics"]} - OF_OTHERS]
    public = [full_name(name, each) for name in PUBLIC for each in imported(name).__all__]
    assert {each["name"] for each in symbols} >= {name for name in public if "__version__" not in name}
    assert [name for name in unknown if is_of(name, public)] == []


def full_name(module: str, name: str) -> str:
    value = getattr(importlib.import_module(module), name)
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else f"{module}.{name}"


def is_of(symbol: str, names: list[str]) -> bool:
    return any(symbol == name or symbol.startswith(f"{name}.") for name in names)
