"""Configuration files are refused by their size and depth, before they are understood."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from residualdroppath.errors import UserError
from residualdroppath.records import configuration
from residualdroppath.records.configuration import parse_yaml, read_yaml


def nested(levels: int) -> str:
    return "a: " + "[" * (levels - 1) + "1" + "]" * (levels - 1) + "\n"


def repeated(names: int, times: int) -> str:
    """Each name stands for `times` of the one before: times ** names values in a few lines."""
    lines = ["n0: &n0 [1]"]
    for index in range(1, names + 1):
        lines.append(f"n{index}: &n{index} [{', '.join([f'*n{index - 1}'] * times)}]")
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def understood(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was understood: what is refused is not among it."""
    texts: list[str] = []
    load = yaml.safe_load

    def noting(text: str) -> Any:
        texts.append(text)
        return load(text)

    monkeypatch.setattr(configuration.yaml, "safe_load", noting)
    return texts


@pytest.mark.parametrize(
    "text",
    [
        "epochs: 3\nschedule: [2, 1]\nmirror: ~\n",
        "a: &forms [{lr: 0.1}, {lr: 0.2}]\nb: *forms\nc: {<<: {d: 1}}\n",
        nested(configuration.MOST_LEVELS),
        repeated(names=3, times=4),
        "",
    ],
)
def test_what_is_small_is_read_as_ever(text: str) -> None:
    assert parse_yaml(text) == yaml.load(text, Loader=yaml.SafeLoader)


def test_levels_are_bounded(understood: list[str]) -> None:
    with pytest.raises(ValueError, match="more than 20 levels"):
        parse_yaml(nested(configuration.MOST_LEVELS + 1))
    with pytest.raises(ValueError, match="more than 20 levels"):  # by names within names, each in few
        parse_yaml(repeated(names=configuration.MOST_LEVELS, times=1))
    assert understood == []


def test_values_are_bounded(understood: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "MOST_VALUES", 100)
    assert len(parse_yaml(f"a: [{', '.join('1' * 90)}]")["a"]) == 90
    del understood[:]
    with pytest.raises(ValueError, match="more than 100 values"):
        parse_yaml(f"a: [{', '.join('1' * 110)}]")
    with pytest.raises(ValueError, match="more than 100 values"):
        parse_yaml(repeated(names=4, times=3))
    assert understood == []


def test_a_value_within_itself_is_refused(understood: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\*a stands within itself"):
        parse_yaml("a: &a [*a]")
    assert understood == []


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("a: 1\n" + "#" * 200)
    assert read_yaml(path) == {"a": 1}
    monkeypatch.setattr(configuration, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="at most 100 bytes, got 205"):
        read_yaml(path)


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")  # which nobody writes to: to open it would wait for ever
    for name in (tmp_path / "pipe.yaml", tmp_path):
        with pytest.raises(UserError, match="must be a file"):
            read_yaml(name)


@pytest.mark.parametrize("content", [b"a: [\n", b"\xff\xfe\xff", b"a: !!python/name:os.system\n", b"a: 2020-99-99\n"])
def test_what_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match="recipe.yaml cannot be read") as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "lr: 0.1\nepochs: 3\nlr: 0.2\n",
        "variants:\n  lr: {a: 1}\n  lr: {b: 2}\n",
        "tries: [{a: 1}, {lr: 1, 'lr': 2}]\n",
        "{lr: 1, lr: 1}",
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, understood: list[str], text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"x.yaml cannot be read \(lr is given twice, again in line [13]\)"):
        read_yaml(tmp_path / "x.yaml")
    assert understood == []


def test_a_key_over_that_of_another_value_is_none_given_twice() -> None:
    text = "a: &a {lr: 1}\nb: &b {<<: *a, lr: 2}\nc: {<<: *b, lr: 3}\nd: {<<: *a, <<: *b}\n1: x\n'1': y\n"
    assert parse_yaml(text) == yaml.load(text, Loader=yaml.SafeLoader) and parse_yaml(text)["c"] == {"lr": 3}
