"""`python private_names.py FILE...`: names of torch in these files that the installed torch lacks, as a JSON list.

It imports torch alone, so that it runs where the package itself cannot be imported any more.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path


def names_of_torch(source: str) -> list[str]:
    """Dotted names below torch that a file imports or reads as attributes, optional ones (`getattr`) left out."""
    found: dict[str, None] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            found.update(dict.fromkeys(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Attribute) and (name := _dotted(node)).startswith("torch."):
            found[name] = None
    return [*found]


def missing_names(source: str) -> list[str]:
    """Those that cannot be looked up in the installed torch."""
    return [name for name in names_of_torch(source) if not _is_there(name)]


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _is_there(name: str) -> bool:
    value: object = importlib.import_module("torch")
    path = "torch"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(value, part) and not _imports(path):
            return False
        value = getattr(value, part)
    return True


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _in_files(paths: list[str]) -> Iterator[str]:
    for path in paths:
        yield from missing_names(Path(path).read_text())


if __name__ == "__main__":
    print(json.dumps(sorted(set(_in_files(sys.argv[1:])))))
