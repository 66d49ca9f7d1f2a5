"""A study from end to end: what is run, what is not run again, and what comes out."""

from __future__ import annotations

import json
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from residualdroppath.cli.main import run
from residualdroppath.errors import UserError
from residualdroppath.experiments.compare.cost import Cost
from residualdroppath.experiments.studies import costs as costs_module
from residualdroppath.experiments.studies import trial as trial_module
from residualdroppath.experiments.studies.page import write_study_page
from residualdroppath.experiments.studies.table import table_rows, tries_rows
from residualdroppath.training.run import request_of
from residualdroppath.training.trainer import Trainer

from .tiny_studies import BASE, TUNED, Inline, answer, study, written


@pytest.fixture(autouse=True)
def known_costs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Costs are as below, not measured; returns what was measured."""
    measured: list[dict[str, Any]] = []

    def measure(plain: Any, configs: dict[str, Any], data_of: Any, **rest: Any) -> dict[str, Cost]:
        measured.append(configs)
        return {name: Cost(0.5, 1.0, 9) for name in configs}

    monkeypatch.setattr(costs_module, "measure_against", measure)
    return measured


def ended(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.json") if path.name != "study.json"}


def test_finished_runs_stay_and_what_is_new_is_added(tmp_path: Path) -> None:
    first = Inline()
    whole = answer(study(), tmp_path, first)
    assert [(trial.config.method, trial.config.seed) for trial in first.trials] == [
        ("plain", 0), ("residual_drop_path", 0), ("plain", 1), ("residual_drop_path", 1),
    ]  # fmt: skip
    before = ended(tmp_path)

    again = Inline()
    assert answer(study(), tmp_path, again)["rows"] == whole["rows"]
    assert not again.trials and ended(tmp_path) == before

    more = Inline()
    found = answer(study(seeds=3), tmp_path, more)
    assert [trial.config.seed for trial in more.trials] == [2, 2]
    assert [row["runs"][:2] for row in found["rows"]] == [row["runs"] for row in whole["rows"]]

    changed = Inline()
    ours = {"method": "residual_drop_path", "drop_path_rate": 0.4}
    answer(study(variants={"plain": {"method": "plain"}, "ours": ours}), tmp_path, changed)
    assert {trial.config.method for trial in changed.trials} == {"residual_drop_path"}
    assert before.items() <= ended(tmp_path).items()


def test_tries_are_chosen_on_validation_and_only_the_chosen_is_tested(tmp_path: Path) -> None:
    engine = Inline()
    record = answer(study(**TUNED), tmp_path, engine)
    tuning = [trial for trial in engine.trials if not trial.tested]
    final = [trial for trial in engine.trials if trial.tested]
    assert len(tuning) == 4 and {trial.config.seed for trial in tuning} == {7}
    assert len(final) == 6 and {trial.config.seed for trial in final} == {0, 1}
    assert not any((trial.folder / "evaluation.json").exists() for trial in tuning)
    assert all("test_accuracy" not in (trial.folder / "result.json").read_text() for trial in engine.trials)

    plain, ours, like = record["rows"]
    for row in (plain, ours):
        best = max(row["tries"], key=lambda each: each["validation_accuracy"])
        assert row["chosen"] == best["values"] and len(row["tries"]) == 2
        tried = [trial for trial in tuning if best["values"].items() <= trial.config.model_dump().items()]
        result = json.loads((tried[0].folder / "result.json").read_text())
        assert best["validation_accuracy"] == result["validation_accuracy"]
    assert like["chosen"] == ours["chosen"] and like["tries"] == []
    assert {run["recipe"]["drop_path_rate"] for run in like["runs"]} == {ours["chosen"]["drop_path_rate"]}


def test_tries_are_compared_with_the_first_over_seeds_of_tuning(tmp_path: Path) -> None:
    engine = Inline()
    record = answer(study(**{**TUNED, "budget": "cost", "tune": {"seeds": [7, 8, 9]}}), tmp_path, engine, "ours")
    (row,) = record["rows"]
    first, second = row["tries"]
    by_rate: dict[float, list[float]] = {}
    for trial in engine.trials:
        if not trial.tested:
            result = json.loads((trial.folder / "result.json").read_text())
            by_rate.setdefault(trial.config.model_dump()["drop_path_rate"], []).append(result["validation_accuracy"])
    differences = [ours - theirs for ours, theirs in zip(by_rate[0.6], by_rate[0.3], strict=True)]
    assert second["minus_first"]["mean"] == pytest.approx(sum(differences) / 3) and second["minus_first"]["n"] == 3
    assert first["minus_first"] is None and first["over_seeds"]["n"] == 3
    assert first["validation_accuracy"] == first["over_seeds"]["mean"] == pytest.approx(sum(by_rate[0.3]) / 3)
    assert first["cost"] == 0.5
    shown = tries_rows(record)
    chosen = [line for line in shown if line[2].endswith("(chosen)")]
    assert len(shown) == 2 and [line[1] for line in chosen] == [f"drop_path_rate {row['chosen']['drop_path_rate']}"]
    assert shown[0][3] == "-" and shown[1][3].startswith(f"{100 * second['minus_first']['mean']:+.2f} (")
    assert shown[0][4] == "0.50"
    page = write_study_page({**record, "file": "tiny.yaml"}, tmp_path / "page.html").read_text()
    assert "minus the first try" in page and shown[1][3] in page.replace("&#43;", "+")


def test_follower_alone_is_tuned_as_the_one_that_it_follows(tmp_path: Path) -> None:
    engine = Inline()
    record = answer(study(**TUNED), tmp_path, engine, "like ours")
    assert [row["variant"] for row in record["rows"]] == ["like ours"]
    assert [trial.config.cycle for trial in engine.trials] == ["next_batch"] * 2 + ["same_batch"] * 2


def test_test_set_is_used_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    evaluate = Trainer.evaluate

    def noted(self: Trainer, split: Any) -> Any:
        used.append(split is self.data.test)
        return evaluate(self, split)

    monkeypatch.setattr(Trainer, "evaluate", noted)
    for _ in range(2):
        answer(study(seeds=[0], variants={"plain": {"method": "plain"}}), tmp_path, Inline())
    assert used == [False, False, False, True]  # validation of two epochs, training images, test images


def test_equal_cost_is_that_of_plain(tmp_path: Path, known_costs: list[Any]) -> None:
    definition = study(budget={"cost": [0.5, 1], "iterations": 1, "trunk_updates": 1}, seeds=[0])
    record = answer(definition, tmp_path, Inline())
    rows = {(row["variant"], row["budget"]): row for row in record["rows"]}
    assert {key: row["iterations"] for key, row in rows.items()} == {
        ("plain", "cost x0.5"): 2, ("plain", "cost"): 4, ("plain", "iterations"): 4, ("plain", "trunk_updates"): 4,
        ("ours", "cost x0.5"): 4, ("ours", "cost"): 8, ("ours", "iterations"): 4, ("ours", "trunk_updates"): 7,
    }  # fmt: skip
    assert rows["ours", "cost"]["total_cost"] == 1.0 and rows["ours", "iterations"]["total_cost"] == 0.5
    assert rows["ours", "trunk_updates"]["trunk_updates"] == 4
    assert len(known_costs) == 1  # once for all budgets, never for plain
    answer(definition, tmp_path, Inline())
    assert len(known_costs) == 1


def test_grid_over_data(tmp_path: Path) -> None:
    grid = {"num_classes": [2, 4], "images_per_class": [25]}
    base = {**{name: value for name, value in BASE.items() if name != "train_size"}, "epochs": 1}
    record = answer(study(base=base, grid=grid, seeds=[0]), tmp_path, Inline())
    sizes = [(row["variant"], row["point"]["num_classes"], row["iterations"]) for row in record["rows"]]
    assert sizes == [("plain", 2, 1), ("ours", 2, 1), ("plain", 4, 2), ("ours", 4, 2)]
    assert [row["against"]["plain"]["n"] for row in record["rows"] if row["variant"] == "ours"] == [1, 1]


def test_grid_over_a_pair(tmp_path: Path) -> None:
    record = answer(study(grid={"schedule": [[1, 1], [2, 1]]}, seeds=[0]), tmp_path, Inline())
    assert [row["point"]["schedule"] for row in record["rows"]] == [[1, 1], [1, 1], [2, 1], [2, 1]]
    assert len({run["key"] for row in record["rows"] for run in row["runs"]}) == 3  # plain has no schedule
    page = write_study_page({**record, "file": "study.yaml"}, tmp_path / "index.html").read_text()
    assert "Test accuracy over schedule" in page


def test_report_runs_nothing(tmp_path: Path) -> None:
    empty = answer(study(**TUNED), tmp_path, None)
    assert empty["rows"] == [] and len(empty["pending"]) == 3
    answer(study(**TUNED), tmp_path, Inline(), "plain")
    part = answer(study(**TUNED), tmp_path, None)
    assert [row["variant"] for row in part["rows"]] == ["plain"] and len(part["pending"]) == 2
    untuned = answer(study(), tmp_path, None)
    assert [row["runs"] for row in untuned["rows"]] == [[], []]
    write_study_page({**untuned, "file": "study.yaml"}, tmp_path / "index.html")


def test_runs_that_diverge_are_worst_and_counted(tmp_path: Path) -> None:
    definition = study(
        seeds=[0],
        tune={"seeds": [7]},
        variants={"plain": {"method": "plain", "grid": {"lr": [1e30, 0.1]}}},
        base={**BASE, "warmup": 0.0},
    )
    record = answer(definition, tmp_path, Inline())
    assert record["rows"][0]["chosen"] == {"lr": 0.1} and not record["failures"]
    assert record["rows"][0]["tries"][0]["validation_accuracy"] == 0
    wild = study(seeds=[0, 1], variants={"wild": {"method": "plain", "lr": 1e30}}, base={**BASE, "warmup": 0.0})
    engine = Inline()
    row = answer(wild, tmp_path, engine)["rows"][0]
    assert row["test_accuracy"]["n"] == 0 and "diverged: 2 of 2" in row["signatures"]
    assert len(engine.trials) == 2 and not answer(wild, tmp_path, engine)["failures"] and len(engine.trials) == 2


def test_a_run_that_another_process_makes_is_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module.time, "sleep", lambda seconds: None)
    engine = Inline()
    outcomes: list[Any] = []

    evaluate = Trainer.evaluate
    current: list[Any] = []

    def met_while_evaluating(self: Trainer, split: Any) -> Any:
        if split is not self.data.validation:
            outcomes.append(trial_module.run_trial(current[0], lambda *rest: None))
        return evaluate(self, split)

    monkeypatch.setattr(Trainer, "evaluate", met_while_evaluating)

    class Nested(Inline):
        def __call__(self, trials: Any, events: Any) -> None:
            trial = trials[0]
            current.append(trial)
            outcomes.append(
                trial_module.run_trial(
                    trial, lambda epoch, epochs: outcomes.append(trial_module.run_trial(trial, lambda *rest: None))
                )
            )

    answer(study(seeds=[0], variants={"plain": {"method": "plain"}}), tmp_path, Nested())
    assert [outcome.status for outcome in outcomes] == ["busy", "busy", "busy", "busy", "done"]
    answer(study(seeds=[0], variants={"plain": {"method": "plain"}}), tmp_path, engine)
    assert not engine.trials


def test_unknown_variant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`only` must name variants"):
        answer(study(), tmp_path, None, "nothing")


class Page(HTMLParser):
    """The texts of a page, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href") and not _is_inside(value)]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def _is_inside(value: str | None) -> bool:
    return value is not None and value.startswith(("data:", "#"))


def test_command_prints_the_table_and_writes_record_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("residualdroppath.experiments.studies.engines.local_engine", lambda workers, limit: Inline())
    file = written(tmp_path / "study.yaml", **TUNED)
    options = ["--out", "out", "--record", "kept/record.json", "--threads", "1", "--seeds", "2"]
    assert run(["study", "study.yaml", *options]) == 0
    record = json.loads(Path("out/study.json").read_text())
    assert record == json.loads(Path("kept/record.json").read_text())
    printed, page = capsys.readouterr().out, Page(Path("out/index.html").read_text())
    assert "page: out/index.html" in printed and page.fetched == []
    for cells in table_rows(record):
        assert cells[1] in printed and cells[1] in page.texts
    command = next(text for text in page.texts if text.startswith("rdp study"))
    assert shlex.split(command) == ["rdp", "study", "study.yaml", "--only", "plain", "--seeds", "2"]

    commands = [shlex.split(text) for text in page.texts if text.startswith("rdp train")]
    assert len(commands) == 6 and run([*commands[1][1:], "--out", "single"]) == 0
    single, ours = json.loads(Path("single/result.json").read_text()), record["rows"][0]["runs"][1]
    assert single["test_accuracy"] == ours["test_accuracy"] and single["trunk_updates"] == ours["trunk_updates"]
    weights = [load_file(Path(folder, "model.safetensors")) for folder in ("single", f"out/runs/{ours['key']}")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    shutil.rmtree(f"out/runs/{ours['key']}")
    assert run(["study", str(file), "--out", "out", "--only", "like ours", "--threads", "1"]) == 0
    rows = json.loads(Path("out/study.json").read_text())["rows"]  # what was there of others stays
    assert [(row["variant"], len(row["runs"])) for row in rows] == [("plain", 1), ("ours", 2), ("like ours", 2)]


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "study.yaml", base={**BASE, "batch_size": 5000})
    assert run(["study", str(file), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "batch_size" in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_what_a_kill_left_before_the_first_epoch_is_no_obstacle(tmp_path: Path) -> None:
    definition = study(seeds=[0], variants={"plain": {"method": "plain"}})
    record = answer(definition, tmp_path / "whole", Inline())
    left = tmp_path / "cut" / record["rows"][0]["runs"][0]["key"]
    (left / "checkpoints").mkdir(parents=True)
    (left / ".lock").touch()
    (left / "config.yaml.partial").write_text("me")
    found = answer(definition, tmp_path / "cut", Inline())
    assert not found["failures"] and found["rows"][0]["test_accuracy"] == record["rows"][0]["test_accuracy"]


def test_the_users_folder_in_a_study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    engine = Inline()
    found = study(base={**BASE, "data_dir": "~/sets"})
    answer(found, tmp_path, engine)
    assert {trial.data_dir for trial in engine.trials} == {tmp_path / "home/sets"}
    assert request_of(found.plain({})).data_dir == tmp_path / "home/sets"
