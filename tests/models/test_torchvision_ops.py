"""torchvision imports with or without its compiled operators, and a whole one is left alone."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.models import torchvision_ops
from residualdroppath.models.torchvision_ops import ensure_torchvision_ops


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be declared in a process that has neither imported torchvision nor declared anything."""
    names: list[str] = []

    class Recorder:
        def __init__(self, namespace: str, kind: str):
            assert (namespace, kind) == ("torchvision", "DEF")

        def define(self, schema: str) -> None:
            names.append(schema.partition("(")[0])

    monkeypatch.setattr(torch.library, "Library", Recorder)
    monkeypatch.setattr(torchvision_ops, "_declared", None)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    return names


def pretend_installed(monkeypatch: pytest.MonkeyPatch, package: Path | None) -> None:
    spec = package and importlib.machinery.ModuleSpec("torchvision", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_without_torchvision_nothing_is_declared(monkeypatch: pytest.MonkeyPatch, declared: list[str]) -> None:
    pretend_installed(monkeypatch, None)
    assert ensure_torchvision_ops() is False and declared == []


def test_operators_that_load_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, declared: list[str], tmp_path: Path
) -> None:
    (tmp_path / "_C.so").touch()
    loaded: list[Any] = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    pretend_installed(monkeypatch, tmp_path)
    assert ensure_torchvision_ops() is False and declared == [] and loaded == [str(tmp_path / "_C.so")]


@pytest.mark.parametrize("library", [None, "_C.so", "_C.pyd", "_C.cpython-311-x86_64-linux-gnu.so"])
def test_operators_that_do_not_load_are_declared_once(
    monkeypatch: pytest.MonkeyPatch, declared: list[str], tmp_path: Path, library: str | None
) -> None:
    if library is not None:
        (tmp_path / library).write_bytes(b"not a library")
    pretend_installed(monkeypatch, tmp_path)
    assert ensure_torchvision_ops() is True and declared == ["nms", "qnms"]
    assert ensure_torchvision_ops() is False and declared == ["nms", "qnms"]


def test_after_torchvision_was_imported_nothing_is_declared(
    monkeypatch: pytest.MonkeyPatch, declared: list[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", torch)
    pretend_installed(monkeypatch, tmp_path)
    assert ensure_torchvision_ops() is False and declared == []


def test_active_exactly_where_torchvision_does_not_import_by_itself() -> None:
    def python(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)

    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    imports_by_itself = python("import torchvision").returncode == 0
    ensured = python(
        "from residualdroppath.models.torchvision_ops import ensure_torchvision_ops\n"
        "print(ensure_torchvision_ops())\n"
        "import torchvision, timm"
    )
    assert ensured.returncode == 0, ensured.stderr
    assert ensured.stdout.strip() == str(not imports_by_itself)
