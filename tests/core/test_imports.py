"""Who may import whom (DESIGN.md section 7), read from the source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import residualdroppath

ROOT = Path(residualdroppath.__file__).parent
PACKAGE = "residualdroppath"
# Modules that belong to no part: what a person can mend, and what importing torchvision takes.
COMMON = ("errors", "models.torchvision_ops")
# What each part may import beside itself and those.
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "errors": set(),
    "records": set(),
    "reporting": {"records"},
    "models": {"core"},
    "data": set(),
    "analysis": {"core"},
    "training": {"core", "records", "reporting", "models", "data"},
    "experiments": {"core", "records", "reporting", "models", "data", "training", "analysis"},
    "cli": {"core", "records", "reporting", "models", "data", "training", "experiments", "analysis"},
}


def imported_modules(source: str, path: Path, root: Path = ROOT) -> set[str]:
    """Absolute names of all modules that a file imports, inside functions too."""
    package = [PACKAGE, *path.relative_to(root).parent.parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str | None:
    """The part of this package that a module lies in; None for other packages, and for what is common."""
    names = module.split(".")
    if module.startswith(tuple(f"{PACKAGE}.{name}" for name in COMMON)):
        return None
    return names[1] if names[0] == PACKAGE and len(names) > 1 else None


def files(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py")) or [ROOT / f"{part}.py"]


def test_the_reader_of_imports_sees_every_form() -> None:
    source = "import os.path\nfrom ..core import plan\ndef f():\n    from .branch import Branch\n    from .. import cli"
    found = imported_modules(source, ROOT / "core" / "x.py")
    assert found == {
        "os.path",
        f"{PACKAGE}.core.plan",
        f"{PACKAGE}.core.branch.Branch",
        f"{PACKAGE}.cli",
    }
    assert {part_of(module) for module in found} == {None, "core", "cli"}


def test_core_needs_torch_alone() -> None:
    for path in files("core"):
        for module in imported_modules(path.read_text(), path):
            top = module.split(".")[0]
            assert top in {"torch", PACKAGE, *sys.stdlib_module_names}, f"{path.name} imports {module}"


def test_every_part_of_the_package_has_a_rule() -> None:
    parts = {path.stem for path in ROOT.glob("*") if path.is_dir() and any(path.rglob("*.py"))}
    parts |= {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert parts <= ALLOWED.keys()
    assert "core" in parts


@pytest.mark.parametrize("part", [part for part in ALLOWED if (ROOT / part).is_dir() or (ROOT / f"{part}.py").exists()])
def test_imports_go_one_way(part: str) -> None:
    for path in files(part):
        parts = {part_of(module) for module in imported_modules(path.read_text(), path)} - {None, part, "__version__"}
        assert parts <= ALLOWED[part], f"{path.relative_to(ROOT)} imports {sorted(map(str, parts - ALLOWED[part]))}"
