"""What is said of runs that have ended, go on, were stopped, or are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residualdroppath.records.files import is_locked, locked
from residualdroppath.training.run import train
from residualdroppath.training.summaries import ORDERS, differing_options, find_runs, in_order, summarise

from .tiny_runs import contents, interrupted, tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 0):
        train(tiny(method="plain", seed=seed), folder / f"deep/plain-{seed}")
    with pytest.MonkeyPatch.context() as patch:
        interrupted(tiny(), folder / "cut", patch)
    (folder / "deep/notes").mkdir()
    (folder / "deep/notes/config.yaml").write_text("data: digits\n")  # of something else
    return folder


def test_numbers_are_those_of_the_result(runs: Path) -> None:
    paths = find_runs(runs)
    assert [path.relative_to(runs).as_posix() for path in paths] == ["cut", "deep/plain-0", "deep/plain-1"]
    assert find_runs(paths[1]) == [paths[1]] and find_runs(runs / "deep/notes") == []
    before = contents(runs)
    cut, first, _ = (summarise(path) for path in paths)
    assert contents(runs) == before  # nothing is written
    result = json.loads((paths[1] / "result.json").read_text())
    assert (first.state, first.test, first.last) == ("ended", result["test_accuracy"], result["validation_accuracy"])
    assert first.seconds == pytest.approx(result["train_seconds"]) and first.epoch == 2
    accuracies = [row["validation_accuracy"] for row in first.epochs]
    assert first.best == (max(accuracies), 1 + accuracies.index(max(accuracies)))
    assert (cut.state, cut.epoch, cut.test) == ("stopped", 1, None)
    record = json.loads(json.dumps(cut.record()))
    assert record["method"] == "residual_drop_path" and record["iterations"] == 3 and record["epochs"] == 2


def test_runs_without_their_checkpoints_and_links_to_runs(tmp_path: Path) -> None:
    for name in ("elsewhere", "all/whole", "all/result", "all/weights"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("method: plain\n")
        (tmp_path / name / ("model.safetensors" if name == "all/weights" else "result.json")).write_text("{}")
    (tmp_path / "all/whole/checkpoints").mkdir()
    folder = tmp_path / "all"
    for name, target in (("0", folder / "whole"), ("1", tmp_path / "elsewhere"), ("2", tmp_path / "elsewhere")):
        (folder / name).symlink_to(target)
    (folder / "above").symlink_to(tmp_path)  # not followed
    assert [path.name for path in find_runs(folder)] == ["1", "result", "weights", "whole"]
    assert find_runs(folder / "1") == [folder / "1"]


def test_validation_is_that_of_the_weights_that_are_tested(tmp_path: Path) -> None:
    result = train(tiny(method="plain", epochs=1, ema=0.999, use="ema"), tmp_path / "run")
    found = summarise(tmp_path / "run")
    assert found.last == result["validation_accuracy"] != found.epochs[-1]["validation_accuracy"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *[("result.json", f'{{"test_accuracy": {value}}}') for value in ('"high"', "null", "NaN", "90.5")],
        *[("metrics.jsonl", f'{{"epoch": 1, "train_seconds": {value}}}') for value in ("NaN", "1e999", "-1", '"long"')],
        ("metrics.jsonl", '{"epoch": 1, "train_seconds": 1, "validation_accuracy": Infinity}'),
    ],
)
def test_valid_json_of_wrong_content(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "config.yaml").write_text("method: plain\n")
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / name).write_text(content)
    found = summarise(tmp_path)
    assert found.state == "damaged" and f"{tmp_path / name} is damaged" in str(found.problem)


def test_a_run_goes_on_while_its_folder_is_held(runs: Path) -> None:
    assert not is_locked(runs / "cut") and not is_locked(runs / "nowhere")
    with locked(runs / "cut"):
        assert summarise(runs / "cut").state == "running"
        assert summarise(runs / "deep/plain-0").state == "ended"
    assert summarise(runs / "cut").state == "stopped"


def test_orders(runs: Path) -> None:
    found = [summarise(path) for path in find_runs(runs)]
    names = {order: [run.path.name for run in in_order(found, order)] for order in ORDERS}
    assert names["recipe"] == ["plain-0", "plain-1", "cut"] and names["path"] == ["cut", "plain-0", "plain-1"]
    assert names["test"][2] == names["epoch"][2] == "cut"
    last = [run.last or 0.0 for run in in_order(found, "validation")]
    assert last == sorted(last, reverse=True)


def test_options_that_differ(runs: Path) -> None:
    found = [summarise(path) for path in find_runs(runs)]
    assert differing_options(found) == {
        "method": ["residual_drop_path", "plain", "plain"],
        "seed": [0, 0, 1],
    }
    assert differing_options(found[:1]) == {}


@pytest.mark.parametrize(
    "name, content",
    [
        ("config.yaml", "data: ["),
        ("config.yaml", "colour: blue\n"),
        ("metrics.jsonl", '{"epoch": 1'),
        ("metrics.jsonl", '{"loss": 1}\n'),
        ("metrics.jsonl", "[1]\n"),
        ("result.json", "[]"),
        ("result.json", "\xff"),
    ],
)
def test_damage_is_said_of_the_run_alone(tmp_path: Path, name: str, content: str) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 3\n")
    (folder / name).write_text(content, encoding="latin-1")
    run = summarise(find_runs(tmp_path)[0])
    assert run.state == "damaged" and run.problem is not None and name in run.problem and "\n" not in run.problem
    assert (run.config is None) == (name == "config.yaml") and run.best is None and run.record()["path"] == str(folder)


def test_a_run_that_has_not_ended_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("iterations: 7\n")
    run = summarise(tmp_path)
    assert (run.state, run.epoch, run.last, run.best, run.seconds) == ("stopped", 0, None, None, 0)
    assert run.record()["epochs"] is None
