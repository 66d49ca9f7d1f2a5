"""A comparison from end to end: table, page, record, and going on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from residualdroppath.cli.main import run
from residualdroppath.errors import UserError
from residualdroppath.experiments.compare import run as run_module
from residualdroppath.experiments.compare.config import CompareConfig, goes_on
from residualdroppath.experiments.compare.cost import Cost
from residualdroppath.experiments.compare.run import compare, run_path
from residualdroppath.experiments.compare.table import HEAD, table_rows, write_compare_page
from residualdroppath.records.files import locked
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import train

TINY: dict[str, Any] = {"depth": 8, "width": 4, "train_size": 64, "batch_size": 32, "epochs": 2, "device": "cpu"}
ARGUMENTS = "--depth 8 --width 4 --train-size 64 --batch-size 32 --epochs 2 --device cpu".split()
SEEDS = ["--seeds", "0", "1"]


def tiny(**options: Any) -> CompareConfig:
    return CompareConfig(**{**TINY, "seeds": (0, 1), **options})


@pytest.fixture
def known_costs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Cost]:
    costs = {"plain": Cost(1.0, 1.0, 9), "drop_path": Cost(0.8, 0.8, 9), "residual_drop_path": Cost(0.5, 1.0, 9)}
    monkeypatch.setattr(run_module, "measure_costs", lambda *args: dict(costs))
    return costs


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def without_clock(summary: dict[str, Any]) -> list[Any]:
    return [
        {**row, "runs": [{**run, "train_seconds": 0} for run in row["runs"]], "cost": 0, "total_cost": 0}
        for row in summary["rows"]
    ]


def test_command_prints_the_table_and_writes_page_and_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, record = tmp_path / "out", tmp_path / "records" / "digits.json"
    assert run(["compare", *ARGUMENTS, *SEEDS, "--out", str(out), "--record", str(record)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(record.read_text()) == summary
    assert [row["name"] for row in summary["rows"]] == ["plain", "drop_path", "residual_drop_path"]

    printed = capsys.readouterr().out
    page = (out / "index.html").read_text()
    for row in table_rows(summary):
        assert all(cell in printed for cell in row[:3]) and all(f"<td>{cell}</td>" in page for cell in row)
    assert all(f'<th scope="col">{name}</th>' in page for name in HEAD) and f"page: {out / 'index.html'}" in printed

    for row in summary["rows"]:
        results = [json.loads((run_path(out, row["name"], seed) / "result.json").read_text()) for seed in (0, 1)]
        assert row["runs"] == results and [result["seed"] for result in results] == [0, 1]
        accuracies = [result["test_accuracy"] for result in results]
        assert row["test_accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
        assert row["test_accuracy"]["std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert row["iterations"] == 4 and row["total_cost"] == pytest.approx(row["cost"]["per_iteration"])

    with Image.open(out / "curves.png") as opened:
        pixels = np.asarray(opened.convert("RGB"))
    for colour in ([0x55, 0x55, 0x55], [0xD0, 0x8C, 0x00], [0x0B, 0x6F, 0xB8]):  # one for each method
        assert (pixels == colour).all(2).sum() > 100


def test_runs_are_those_of_train(tmp_path: Path, known_costs: Any) -> None:
    compare(tiny(seeds=(1,), methods=("residual_drop_path",)), tmp_path / "compare")
    train(TrainConfig(**TINY, seed=1, method="residual_drop_path"), tmp_path / "train")
    ours, theirs = run_path(tmp_path / "compare", "residual_drop_path", 1), tmp_path / "train"
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()


def test_equal_cost(tmp_path: Path, known_costs: Any) -> None:
    summary = compare(tiny(seeds=(0,), equal="both"), tmp_path)
    rows = {row["name"]: row for row in summary["rows"]}
    assert rows["residual_drop_path-equal-cost"]["epochs"] == 4
    assert rows["residual_drop_path-equal-cost"]["iterations"] == 8
    assert rows["residual_drop_path-equal-cost"]["total_cost"] == pytest.approx(1.0)
    assert rows["residual_drop_path"]["total_cost"] == pytest.approx(0.5)
    assert rows["plain"]["test_accuracy"]["std"] is None
    assert write_compare_page(summary, tmp_path) == tmp_path / "index.html"


@pytest.mark.parametrize("stop_at", [2, *(pytest.param(stop_at, marks=pytest.mark.full) for stop_at in (1, 3))])
def test_interrupted_comparison_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_costs: dict[str, Cost], stop_at: int
) -> None:
    config = tiny(methods=("plain", "residual_drop_path"), seeds=(0, 1))
    whole = compare(config, tmp_path / "whole")
    calls = 0

    def stopping(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        return train(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "train", stopping)
        with pytest.raises(KeyboardInterrupt):
            compare(config, tmp_path / "cut")
    ended = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("result.json")}
    assert len(ended) == stop_at - 1 and not (tmp_path / "cut" / "summary.json").exists()

    known_costs["residual_drop_path"] = Cost(0.9, 1.8, 9)  # what is measured now is not what was measured at first
    cut = compare(config, tmp_path / "cut", resume=True)
    assert {path: path.stat().st_mtime_ns for path in ended} == ended
    assert without_clock(cut) == without_clock(whole)
    assert cut["rows"][1]["cost"]["per_iteration"] == 0.5
    for row in ("plain", "residual_drop_path"):
        weights = [run_path(tmp_path / name, row, 1) / "model.safetensors" for name in ("whole", "cut")]
        assert load_file(weights[0]).keys() and weights[0].read_bytes() == weights[1].read_bytes()


def refused(config: CompareConfig, out: Path, *, resume: bool) -> str:
    before = contents(out)
    with pytest.raises(UserError) as error:
        compare(config, out, resume=resume)
    assert "\n" not in str(error.value) and contents(out) == before
    return str(error.value)


def test_folder_in_use(tmp_path: Path, known_costs: Any) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "is in use" in refused(tiny(), tmp_path, resume=False)
    (tmp_path / "file").write_text("x")
    assert "is in use" in refused(tiny(), tmp_path / "file", resume=False)


def test_resume_keeps_the_recipe(tmp_path: Path, known_costs: Any) -> None:
    compare(tiny(seeds=(0, 3), methods=("plain",)), tmp_path)
    said = refused(tiny(seeds=(0,)), tmp_path, resume=True)
    assert "keeps its configuration, but for more seeds" in said
    assert "seeds ((0, 3) there, (0,) now)" in said and "methods (('plain',) there" in said
    assert "no comparison to resume" in refused(tiny(), tmp_path / "none", resume=True)


def test_seeds_are_added_to_a_finished_comparison(tmp_path: Path, known_costs: dict[str, Cost]) -> None:
    methods = ("plain", "residual_drop_path")
    first = compare(tiny(methods=methods, seeds=(0,)), tmp_path / "a")
    ended = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("result.json")}
    known_costs["residual_drop_path"] = Cost(0.9, 1.8, 9)  # those of the first time hold
    more = compare(tiny(methods=methods, seeds=(0, 1)), tmp_path / "a", resume=True)
    assert {path: path.stat().st_mtime_ns for path in ended} == ended and len(ended) == 2
    known_costs["residual_drop_path"] = Cost(0.5, 1.0, 9)
    assert without_clock(more) == without_clock(compare(tiny(methods=methods, seeds=(0, 1)), tmp_path / "b"))
    assert more["rows"][0]["runs"][0] == first["rows"][0]["runs"][0]
    assert compare(tiny(methods=methods, seeds=(0, 1)), tmp_path / "a", resume=True)["rows"] == more["rows"]


def test_epochs_are_added_where_nothing_goes_by_the_length(tmp_path: Path, known_costs: dict[str, Cost]) -> None:
    of_any_length = {"methods": ("plain",), "seeds": (0,), "lr_over_time": "constant", "warmup": 0}
    compare(tiny(**of_any_length), tmp_path / "a")
    more = compare(tiny(**of_any_length, epochs=3), tmp_path / "a", resume=True)
    assert without_clock(more) == without_clock(compare(tiny(**of_any_length, epochs=3), tmp_path / "b"))
    assert "epochs (3 there, 2 now)" in refused(tiny(**of_any_length), tmp_path / "a", resume=True)
    compare(tiny(methods=("plain",), seeds=(0,)), tmp_path / "c")
    said = refused(tiny(methods=("plain",), seeds=(0,), epochs=3), tmp_path / "c", resume=True)
    assert "epochs (2 there, 3 now), and runs cannot be made longer: they go by `lr_over_time` cosine" in said


def test_a_record_is_replaced_by_the_same_comparison_with_more_seeds(tmp_path: Path) -> None:
    config = tiny(seeds=(0,))
    assert goes_on(config.model_dump(mode="json"), tiny(seeds=(0, 1)))
    assert not goes_on(tiny(seeds=(0, 1)).model_dump(mode="json"), config)
    assert not goes_on(None, config) and not goes_on({"lr": "fast"}, config)


def test_page_of_a_comparison_that_is_not_validated_every_epoch(tmp_path: Path, known_costs: Any) -> None:
    summary = compare(tiny(methods=("plain",), seeds=(0,), validate_every=2, epochs=3), tmp_path)
    assert write_compare_page(summary, tmp_path).is_file()


def test_a_single_run_is_not_resumed_as_a_comparison(tmp_path: Path, known_costs: Any) -> None:
    train(TrainConfig(**TINY, method="plain"), tmp_path / "run")
    config = CompareConfig(**TINY)
    assert "no comparison to resume" in refused(config, tmp_path / "run", resume=True)


def test_damaged_costs(tmp_path: Path, known_costs: Any) -> None:
    config = tiny(seeds=(0,), methods=("plain",))
    compare(config, tmp_path)
    (tmp_path / "costs.json").write_text("{")
    assert "costs.json is damaged" in refused(config, tmp_path, resume=True)


def test_costs_of_other_methods(tmp_path: Path, known_costs: Any) -> None:
    config = tiny(seeds=(0,), methods=("plain", "drop_path"))
    compare(config, tmp_path)
    costs = json.loads((tmp_path / "costs.json").read_text())
    (tmp_path / "costs.json").write_text(json.dumps({"plain": costs["plain"]}))
    assert "costs.json is damaged (no cost of drop_path)" in refused(config, tmp_path, resume=True)


def test_a_result_without_a_test(tmp_path: Path, known_costs: Any) -> None:
    config = tiny(seeds=(0,), methods=("plain",))
    compare(config, tmp_path)
    path = run_path(tmp_path, "plain", 0) / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in result.items() if name != "test_accuracy"}))
    assert "result.json is damaged (no test_accuracy)" in refused(config, tmp_path, resume=True)


@pytest.mark.parametrize("content", ["[]", '{"plain": 1}', '{"plain": {"per_iteration": "much"}}'])
def test_costs_of_another_kind(tmp_path: Path, known_costs: Any, content: str) -> None:
    config = tiny(seeds=(0,), methods=("plain",))
    compare(config, tmp_path)
    (tmp_path / "costs.json").write_text(content)
    assert "costs.json is damaged" in refused(config, tmp_path, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_comparison_in_the_folder_is_refused(tmp_path: Path, known_costs: Any, resume: bool) -> None:
    config, out = tiny(seeds=(0,), methods=("plain",)), tmp_path / "out"
    if resume:
        compare(config, out)
    with locked(out):
        assert "in use by a comparison that still goes on" in refused(config, out, resume=resume)


@pytest.mark.parametrize("wrong", [{"batch_size": 65}, {"depth": 9}, {"data": "nope"}])
def test_mistakes_found_at_the_start_leave_no_folder(tmp_path: Path, wrong: dict[str, Any]) -> None:
    refused(tiny(**wrong), tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()
