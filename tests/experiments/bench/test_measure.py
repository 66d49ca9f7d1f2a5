"""The record: who is timed beside whom, and what the ratios are made of."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from residualdroppath.core.residual_drop_path import ResidualDropPath
from residualdroppath.errors import UserError
from residualdroppath.experiments.bench import measure
from residualdroppath.experiments.bench.config import OURS
from residualdroppath.experiments.bench.contenders import Contender
from residualdroppath.experiments.bench.measure import bench

SECONDS = {"plain": 10.0, "rate_zero": 11.0, "naive": 12.0}
BY_KIND = {"drop_path": 8.0, "dropped_part": 4.0}
PART = 0.01


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Iterations take what the tables above say, each part of the floor `PART`; returns who was timed, in order."""
    order: list[str] = []

    class KnownStopwatch(measure.Stopwatch):
        def __call__(self, work: Any) -> float:
            contender = getattr(work, "__self__", None)
            if not isinstance(contender, Contender):
                work()
                return PART
            plan = contender.plan
            work()
            order.append(contender.name)
            return BY_KIND[plan.kind] if contender.name in OURS and plan else SECONDS[contender.name]

    monkeypatch.setattr(measure, "Stopwatch", KnownStopwatch)
    return order


def test_ratios_and_turns(tiny: Any, timed: list[str]) -> None:
    record = bench(tiny(contenders=("plain", "rate_zero", "naive", "parameters", "sample")))
    turn = ["plain", "rate_zero", "naive", "parameters", "sample"]
    assert timed == turn * (2 * (4 + 1))
    rows = record["rows"]
    assert list(rows) == turn
    assert rows["rate_zero"]["per_iteration"]["mean"] == rows["rate_zero"]["per_cycle"]["mean"] == pytest.approx(1.1)
    assert rows["naive"]["per_iteration"]["mean"] == pytest.approx(1.2)
    assert rows["naive"]["per_cycle"]["mean"] == pytest.approx(2.4)
    ours = rows["parameters"]
    assert {kind: ratio["mean"] for kind, ratio in ours["by_kind"].items()} == {"drop_path": 0.8, "dropped_part": 0.4}
    assert ours["per_iteration"] == pytest.approx({"mean": 0.6, "low": 0.6, "high": 0.6})
    assert ours["per_cycle"]["mean"] == pytest.approx(1.2)


def test_the_floor_is_of_the_same_plans(tiny: Any, timed: list[str]) -> None:
    """Every part takes the same here, so the floor counts parts."""
    record = bench(tiny(contenders=("plain", "parameters")))
    branches = 3
    # The trunk is timed less handing on at 3 adds; one update without owners, and one each above it, take nothing.
    of_plain = (1 - branches) * PART + branches * PART + PART
    assert record["plain_over_floor"] == pytest.approx(10.0 / of_plain)
    row = record["rows"]["parameters"]
    assert row["over_floor"] == pytest.approx((8.0 + 4.0) / 2 / (row["floor"] * 10.0))
    assert row["floor"] < of_plain / 10.0


def test_counts(tiny: Any, timed: list[str]) -> None:
    counts = {name: row["counts"] for name, row in bench(tiny())["rows"].items()}
    assert counts["plain"]["flops"] == 1.0 and counts["naive"] is None
    for name in ("parameters", "stop_gradient"):
        own = counts[name]
        assert 0.2 < own["flops"] < 1.0
        for kind, saved in own["saved"].items():
            assert 0 < saved <= own["saved_worst"][kind] <= 1.0
    assert counts["stop_gradient"]["flops"] < counts["parameters"]["flops"]
    assert counts["stop_gradient"]["saved"]["dropped_part"] < counts["parameters"]["saved"]["dropped_part"]
    assert counts["stop_gradient"]["saved"]["drop_path"] == counts["parameters"]["saved"]["drop_path"]


def test_counting_may_be_left_out(tiny: Any, timed: list[str]) -> None:
    told: list[str] = []
    record = bench(tiny(contenders=("plain", "parameters"), counts=False), lambda what, *_: told.append(what))
    assert [row["counts"] for row in record["rows"].values()] == [None, None] and {*told} == {"iterations"}


@pytest.mark.parametrize("name", ["parameters", "naive"])
def test_what_is_compiled_is_compiled_before_the_first_time(
    name: str, tiny: Any, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All plans that are timed are run before, unless nothing is compiled."""
    for each in (nn.Module, ResidualDropPath):
        monkeypatch.setattr(each, "compile", lambda self: None)
    run: list[int] = []
    iteration = Contender.iteration

    def noted(contender: Contender) -> None:
        if contender.name == name and contender.plan is not None:
            run.append(contender.plan.iteration)
        iteration(contender)

    monkeypatch.setattr(Contender, "iteration", noted)
    setting = {"contenders": ("plain", name), "counts": False}
    bench(tiny(**setting))
    assert run == [*range(10)]
    run.clear()
    timed.clear()
    bench(tiny(**setting, compile=True))
    assert run == [*range(10)] * 2 and len(timed) == 2 * 10


def test_what_the_model_does_not_have_is_left_out(tiny: Any, timed: list[str]) -> None:
    record = bench(tiny(contenders=("plain", "timm", "torchvision"), floor_rounds=0))
    assert list(record["rows"]) == ["plain"] and list(record["left_out"]) == ["timm", "torchvision"]
    assert record["plain_over_floor"] is None and record["rows"]["plain"]["floor"] is None


def test_by_a_real_clock(tiny: Any) -> None:
    record = bench(tiny())
    assert record["environment"]["device"].startswith("cpu") and record["config"]["plans"] == 4
    for row in record["rows"].values():
        assert row["per_iteration"]["low"] <= row["per_iteration"]["mean"] <= row["per_iteration"]["high"]


def test_progress_is_told(tiny: Any) -> None:
    told: list[tuple[str, int, int]] = []
    bench(tiny(contenders=("plain", "parameters"), floor_rounds=0), lambda *now: told.append(now))
    assert [now for now in told if now[0] == "iterations"] == [("iterations", i, 5) for i in range(6)]
    assert [now[1:] for now in told if now[0] == "counting parameters"] == [(i, 8) for i in range(9)]


def test_a_network_that_does_not_train_on_such_images(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(contender: Contender) -> None:
        raise RuntimeError("out of memory\nat great length")

    monkeypatch.setattr(Contender, "iteration", fail)
    with pytest.raises(
        UserError, match="does not train on 4 images of 8x8: out of memory.*another `image_size`"
    ) as error:
        bench(tiny())
    assert "\n" not in str(error.value)
