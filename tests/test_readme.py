"""What the README shows runs, and its tables say what the records say."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from residualdroppath.cli.main import run
from residualdroppath.experiments.compare.config import CompareConfig
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training.recipe import TrainConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_two_lines_train():
    (snippet,) = code_blocks("python")
    torch.manual_seed(0)
    model = SmallResNet(8, 4, in_channels=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scope = {
        "model": model,
        "criterion": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "loader": [(torch.randn(4, 1, 8, 8), torch.arange(4)) for _ in range(3)],
    }
    exec(snippet, scope)
    assert scope["rdp"].iteration == 3
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


COMMANDS = [
    line.split("#")[0].strip() for block in code_blocks("sh") for line in block.splitlines() if line.startswith("rdp ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_options_in_the_readme_exist(command: str, capsys: pytest.CaptureFixture[str]):
    words = shlex.split(command)
    if words[1] == "help" or words[1].startswith("--"):
        try:
            code: object = run(words[1 : words.index(">") if ">" in words else None])
        except SystemExit as stopped:
            code = stopped.code
        assert code in (0, None)
        return
    with pytest.raises(SystemExit) as stopped:
        run([words[1], "--help"])
    assert stopped.value.code == 0
    listed = capsys.readouterr().out
    for word in words[2:]:
        if word.startswith("--"):
            assert re.search(rf"{word}\b", listed), word


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(path: Path):
    """Of `rdp train`, or of `rdp compare` with plain training."""
    values = yaml.safe_load(path.read_text())
    if "method" in values:
        TrainConfig.model_validate(values)
    else:
        assert "plain" in CompareConfig.model_validate(values).methods


@pytest.mark.parametrize("script", ["generate.py", "evidence.py", "spiral.py", "analyze.py"])
def test_tables_and_records_agree(script: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", [script, "--check"])
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.chdir(ROOT)
    try:
        runpy.run_path(str(ROOT / "docs" / script), run_name="__main__")
    except SystemExit as stopped:
        assert stopped.code in (0, None), stopped.code
