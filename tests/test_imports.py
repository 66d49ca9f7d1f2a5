"""Who may import whom, read from the source: a rule for every folder, and no circles between modules.

Imports inside functions and under `TYPE_CHECKING` count: they too say what a module cannot be read without.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import residualdroppath

ROOT = Path(residualdroppath.__file__).parent
PACKAGE = "residualdroppath"

# What modules of a folder may import besides each other and COMMON: folders with all below them, or single modules.
COMMON = ("errors", "models.torchvision_ops")  # what a person can mend, and what importing torchvision takes
CORE_GROUND = (
    "core.forward_override",
    "core.garbage",
    "core.torch_internals",
    "core.options",
    "core.random_states",
)
GROUND = ("core", "records")
PARTS = (*GROUND, "models", "data", "analysis", "reporting")
RULES: dict[str, tuple[str, ...]] = {
    "": ("core", "cli.main"),  # `python -m residualdroppath` is the command line
    "records": (),
    "core": ("core",),
    "core.graph": CORE_GROUND,
    "core.discovery": (*CORE_GROUND, "core.graph"),
    "core.planning": CORE_GROUND,
    "core.running": (*CORE_GROUND, "core.graph", "core.discovery", "core.planning"),
    "core.freezing": (*CORE_GROUND, "core.graph", "core.discovery"),
    "models": GROUND,
    "data": GROUND,
    "analysis": GROUND,
    "reporting": GROUND,
    "integrations": ("core",),
    "training": PARTS,
    "inference": (*PARTS, "training"),
    "experiments": (),
    **{
        f"experiments.{name}": (*PARTS, "training", "experiments.progress")
        for name in ("bench", "compare", "network_report", "spiral")
    },
    "experiments.studies": (*PARTS, "training", "experiments.progress", "experiments.compare"),
    "cli": (*PARTS, "training", "inference", "experiments", ""),  # "" has the version
}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the package by its name below it, `""` the package itself."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        names = path.relative_to(root).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


MODULES = modules()


def imported(source: str, path: Path, known: dict[str, Path], root: Path = ROOT) -> tuple[set[str], set[str]]:
    """Modules of this package that a file imports, and the names of other packages."""
    package = [PACKAGE, *path.relative_to(root).parent.parts]
    own, others = set(), set()

    def add(name: str) -> None:
        top, _, below = name.partition(".")
        if top != PACKAGE:
            others.add(top)
            return
        while below not in known:  # the last name is one of what the module holds
            below = below.rpartition(".")[0]
        own.add(below)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                add(f"{module}.{alias.name}")
    return own, others


def folder_of(module: str) -> str:
    """The folder that a module lies in; a folder's own `__init__` lies in it."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def allowed(module: str, rules: tuple[str, ...]) -> bool:
    return any(module == rule or module.startswith(f"{rule}.") for rule in (*rules, *COMMON))


GRAPH = {name: imported(path.read_text(), path, MODULES)[0] for name, path in MODULES.items()}


def test_the_reader_of_imports_sees_every_form() -> None:
    source = """
import os.path
import torch.nn as nn
from ..core.planning import plan
from ..core.planning.plan import Plan
def f():
    from .find import find_model
    from .. import cli
if TYPE_CHECKING:
    from residualdroppath.core.options import Options
from . import spec
from residualdroppath import ResidualDropPath
"""
    own, others = imported(source, ROOT / "models" / "x.py", MODULES)
    assert own == {"core.planning.plan", "models.find", "cli", "core.options", "models.spec", ""}
    assert others == {"os", "torch"}


def test_every_folder_has_a_rule() -> None:
    folders = {folder_of(name) for name in MODULES if folder_of(name)}
    assert folders <= RULES.keys(), f"no rule for {sorted(folders - RULES.keys())}"
    assert RULES.keys() - folders <= {""}, "a rule for a folder that is not there"


@pytest.mark.parametrize("folder", RULES)
def test_imports_go_one_way(folder: str) -> None:
    for module in (name for name in MODULES if folder_of(name) == folder and name != "__main__"):
        wrong = {other for other in GRAPH[module] if folder_of(other) != folder and not allowed(other, RULES[folder])}
        assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_running_the_package_is_the_command_line() -> None:
    assert GRAPH["__main__"] == {"cli.main"}


def test_core_needs_torch_alone() -> None:
    for name, path in MODULES.items():
        if name.split(".")[0] == "core":
            others = imported(path.read_text(), path, MODULES)[1]
            assert others <= {"torch", *sys.stdlib_module_names}, f"{name} imports {others}"


def test_records_import_errors_alone() -> None:
    own = set().union(*(GRAPH[name] for name in MODULES if folder_of(name) == "records"))
    assert {name for name in own if folder_of(name) != "records"} == {"errors"}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first again at the end; empty if there are none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert sorted(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) in (["b", "b", "c"], ["b", "c", "c"])
    assert circle({"a": {"a"}}) == ["a", "a"]


def test_no_modules_import_each_other_in_a_circle() -> None:
    # A package's own `__init__` may gather what lies below it; importing any of that runs it first all the same.
    assert not circle(GRAPH), " -> ".join(circle(GRAPH))
