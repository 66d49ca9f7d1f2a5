"""A study goes on from its record alone: the folder of runs may be gone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from residualdroppath.cli.main import run
from residualdroppath.experiments.compare.cost import Cost
from residualdroppath.experiments.studies import costs as costs_module
from residualdroppath.experiments.studies.cache import Cache
from residualdroppath.experiments.studies.definition import Study
from residualdroppath.experiments.studies.earlier import Earlier, restore
from residualdroppath.experiments.studies.engines import Engine
from residualdroppath.experiments.studies.progress import StudyProgress
from residualdroppath.experiments.studies.run import StudyRun
from residualdroppath.experiments.studies.trial import run_trial
from residualdroppath.records.files import read_json

from . import tiny_studies
from .tiny_studies import Inline, answer, study, written

TUNED: dict[str, Any] = {**tiny_studies.TUNED, "budget": "cost"}


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next timing finds; only the last one counts."""
    found = [0.5]

    def measure(plain: Any, configs: dict[str, Any], data_of: Any, **rest: Any) -> dict[str, Cost]:
        return {name: Cost(found[-1], 2 * found[-1], 9) for name in configs}

    monkeypatch.setattr(costs_module, "measure_against", measure)
    return found


def go_on(definition: Study, runs: Path, engine: Engine, record: dict[str, Any], *only: str) -> dict[str, Any]:
    earlier = Earlier(json.loads(json.dumps(record)))
    return StudyRun(
        definition, Cache(runs), engine, threads=1, progress=StudyProgress(), only=only, earlier=earlier
    ).record()


def without_mark(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def plain(run: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in run.items() if name != "from_record"}

    return [{**row, "runs": [plain(run) for run in row["runs"]]} for row in rows]


def test_nothing_is_run_that_the_record_holds(tmp_path: Path, cost: list[float]) -> None:
    first = answer(study(**TUNED), tmp_path / "first", Inline())
    cost.append(0.25)  # whoever timed again would find another, and train for longer
    engine = Inline()
    again = go_on(study(**TUNED), tmp_path / "second", engine, first)
    assert not engine.trials
    assert without_mark(again["rows"]) == first["rows"]
    assert all(run["from_record"] for row in again["rows"] for run in row["runs"])
    assert again["earlier"] == [first["environment"]]

    third = go_on(study(**TUNED), tmp_path / "third", engine, again)
    assert not engine.trials and third["earlier"] == [again["environment"], first["environment"]]


def test_rates_that_fall_are_timed_once_and_kept_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = iter([0.5])
    monkeypatch.setattr(
        costs_module, "measure_against", lambda *_, **__: {"ours": Cost(cost := next(timed), 2 * cost, 9)}
    )
    falls = {"method": "residual_drop_path", "drop_path_rate": 0.5, "rate_over_time": "decay"}
    definition = study(variants={"plain": {"method": "plain"}, "falls": falls}, budget="cost")
    first = answer(definition, tmp_path / "first", Inline())
    row = first["rows"][1]
    assert (row["iterations"], row["cost"]["per_iteration"]) == (8, 0.5) and row["total_cost"] == 1.0
    engine = Inline()
    again = go_on(definition, tmp_path / "second", engine, first)
    assert not engine.trials and without_mark(again["rows"]) == first["rows"]

    row["cost"] = {"per_iteration": 0.8, "per_cycle": 1.6}  # as of a record that has it from a second timing
    engine = Inline()
    again = go_on(definition, tmp_path / "third", engine, first)
    assert not engine.trials and again["rows"][1]["iterations"] == 8


def test_seeds_and_variants_are_added_to_a_record(tmp_path: Path, cost: list[float]) -> None:
    first = answer(study(**TUNED), tmp_path / "first", Inline())
    more = {
        **TUNED,
        "seeds": [0, 1, 2],
        "variants": {**TUNED["variants"], "alone": {"method": "drop_path", "like": "ours"}},
    }
    engine = Inline()
    found = go_on(study(**more), tmp_path / "second", engine, first)
    made = [(trial.config.method, trial.config.cycle, trial.config.seed) for trial in engine.trials]
    assert sorted(made) == sorted(
        [("plain", "next_batch", 2), ("residual_drop_path", "next_batch", 2), ("residual_drop_path", "same_batch", 2)]
        + [("drop_path", "next_batch", seed) for seed in (0, 1, 2)]
    )
    for row, before in zip(found["rows"], first["rows"], strict=False):
        assert without_mark([row])[0]["runs"][:2] == before["runs"]
        assert [run.get("from_record", False) for run in row["runs"]] == [True, True, False]
        assert row["tries"] == before["tries"] and row["chosen"] == before["chosen"]


@pytest.mark.parametrize(
    "change",
    [
        {"base": {**study().base, "batch_size": 25}},
        pytest.param({"tune": {"seeds": [8]}}, marks=pytest.mark.full),
        pytest.param(
            {"variants": {**TUNED["variants"], "plain": {"method": "plain", "grid": {"lr": [0.02, 0.1]}}}},
            marks=pytest.mark.full,
        ),
    ],
    ids=["base", "seeds of tuning", "tries"],
)
def test_what_was_changed_is_run_anew(tmp_path: Path, cost: list[float], change: dict[str, Any]) -> None:
    first = answer(study(**TUNED), tmp_path / "first", Inline())
    engine, fresh = Inline(), Inline()
    changed = study(**{**TUNED, **change})
    found = go_on(changed, tmp_path / "second", engine, first, "plain")
    wanted = answer(changed, tmp_path / "fresh", fresh, "plain")
    plain, alone = (next(row for row in record["rows"] if row["variant"] == "plain") for record in (found, wanted))
    assert [run["test_accuracy"] for run in plain["runs"]] == [run["test_accuracy"] for run in alone["runs"]]
    assert plain["tries"] == alone["tries"]
    assert {trial.key for trial in engine.trials if not trial.tested} == {
        trial.key for trial in fresh.trials if not trial.tested
    }


def test_a_measure_that_the_record_lacks_trains_again(tmp_path: Path, cost: list[float]) -> None:
    first = answer(study(**TUNED), tmp_path / "first", Inline())
    engine = Inline()
    found = go_on(study(**TUNED, measures=["elastic_depth"]), tmp_path / "second", engine, first, "plain")
    plain = found["rows"][0]
    assert [trial.tested for trial in engine.trials] == [True, True]  # what was chosen stands
    assert all("elastic_depth" in run["measures"] and "from_record" not in run for run in plain["runs"])
    assert [run["test_accuracy"] for run in plain["runs"]] == [run["test_accuracy"] for run in first["rows"][0]["runs"]]

    # What is still to be measured keeps its accuracy: the record may be written over.
    nothing_run = go_on(study(**TUNED, measures=["elastic_depth"]), tmp_path / "fourth", lambda *_: None, first)
    assert [row["test_accuracy"] for row in nothing_run["rows"]] == [row["test_accuracy"] for row in first["rows"]]
    assert not any("elastic_depth" in run["measures"] for row in nothing_run["rows"] for run in row["runs"])

    # Nor does a network that was stopped on its way take over what a record says of another.
    runs = tmp_path / "fifth"
    stopped = dataclasses.replace(engine.trials[0], folder=runs / engine.trials[0].key)

    def stop(epoch: int, epochs: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(stopped, stop)
    other = {**first["rows"][0]["runs"][0], "test_accuracy": 0.123}
    restore({"runs": [other]}, Cache(runs))
    assert run_trial(stopped, lambda *_: None).status == "done"
    evaluation = read_json(stopped.folder / "evaluation.json", dict[str, Any])
    assert evaluation["test_accuracy"] == first["rows"][0]["runs"][0]["test_accuracy"]

    # Taken over first, and measured later.
    go_on(study(**TUNED), tmp_path / "third", Inline(), first, "plain")
    later = answer(study(**TUNED, measures=["elastic_depth"]), tmp_path / "third", Inline(), "plain")
    assert all("elastic_depth" in run["measures"] for run in later["rows"][0]["runs"])


def test_a_cost_that_was_measured_here_counts(tmp_path: Path, cost: list[float]) -> None:
    first = answer(study(**TUNED), tmp_path / "first", Inline())
    cost.append(0.25)
    answer(study(**TUNED), tmp_path / "second", Inline(), "ours")
    engine = Inline()
    found = go_on(study(**TUNED), tmp_path / "second", engine, first)
    ours = next(row for row in found["rows"] if row["variant"] == "ours")
    assert ours["cost"]["per_iteration"] == 0.25 and not any("from_record" in run for run in ours["runs"])


def test_a_record_of_another_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    row = {
        "variant": "plain", "method": "plain", "budget": "iterations", "unit": "iterations", "scale": 1, "point": {},
        "chosen": {}, "tries": [], "iterations": 4, "cost": None, "total_cost": None, "runs": [{"seed": 0}],
    }  # fmt: skip
    other.write_text(
        json.dumps(
            {
                "study": "another",
                "question": "?",
                "file": "another.yaml",
                "environment": {},
                "threads_of_a_run": 1,
                "definition": {"base": {}, "grid": {}, "seeds": [], "tune": {"seeds": []}, "variants": {}},
                "failures": {},
                "pending": [],
                "rows": [],
            }
        )  # fmt: skip
    )
    file = written(tmp_path / "tiny.yaml")
    assert run(["study", str(file), "--out", str(tmp_path / "out"), "--earlier", str(other)]) == 1
    said = capsys.readouterr().err
    assert "`earlier` must be a record of the study tiny" in said and "'another'" in said
    assert not (tmp_path / "out").exists()
    for damaged in (
        "{",
        json.dumps({"study": "tiny", "rows": [{}]}),
        other.read_text().replace("tune", "t").replace("another", "tiny"),
        json.dumps({**json.loads(other.read_text()), "study": "tiny", "rows": [row]}),
        json.dumps({**json.loads(other.read_text()), "study": "tiny", "rows": [{**row, "runs": [], "cost": {}}]}),
    ):
        other.write_text(damaged)
        assert run(["study", str(file), "--out", str(tmp_path / "out"), "--earlier", str(other)]) == 1
        assert "other.json" in capsys.readouterr().err
    assert run(["study", str(file), "--out", str(tmp_path / "out"), "--earlier", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
