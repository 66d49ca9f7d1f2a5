"""Recipes are valid, and tables of the pages say what the records say. Code of the pages: `tests/docs`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import yaml

from residualdroppath.experiments.compare.config import CompareConfig
from residualdroppath.training.recipe import TrainConfig

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(path: Path):
    """Of `rdp train`, or of `rdp compare` with plain training."""
    values = yaml.safe_load(path.read_text())
    if "method" in values:
        TrainConfig.model_validate(values)
    else:
        assert "plain" in CompareConfig.model_validate(values).methods


@pytest.mark.parametrize("script", ["generate.py", "evidence.py", "spiral.py", "analyze.py", "method_pictures.py"])
def test_tables_and_records_agree(script: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", [script, "--check"])
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.chdir(ROOT)
    try:
        runpy.run_path(str(ROOT / "docs" / script), run_name="__main__")
    except SystemExit as stopped:
        assert stopped.code in (0, None), stopped.code
