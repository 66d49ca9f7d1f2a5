"""What the networks of all seeds say together: means, intervals, and differences from plain training."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...records.intervals import half_width, interval, paired_difference
from .config import SpiralConfig

Result = dict[str, Any]


def summarise(config: SpiralConfig, results: dict[str, list[Result]]) -> dict[str, Any]:
    """By row: scalars with intervals, their differences from plain paired by seed, profiles and matrices.

    `results` holds one result of `measure` per seed, seeds in order, for each of `config.rows`.
    """
    rows: dict[str, Any] = {}
    for name in config.rows:
        runs = results[name]
        scalars = {key: interval([run["scalars"][key] for run in runs]) for key in runs[0]["scalars"]}
        difference = None
        if "plain" in results and name not in ("plain", "untrained"):
            difference = {
                key: paired_difference(own["values"], [run["scalars"][key] for run in results["plain"]])
                for key, own in scalars.items()
            }
        rows[name] = {
            "scalars": scalars,
            "against_plain": difference,
            "sweep": np.mean([run["sweep"] for run in runs], 0).tolist(),
            "profiles": {key: _over_seeds([run["profiles"][key] for run in runs]) for key in runs[0]["profiles"]},
            "matrices": {
                key: np.round(np.mean([run["matrices"][key] for run in runs], 0), 4).tolist()
                for key in runs[0]["matrices"]
            },
        }
    return rows


def _over_seeds(profiles: list[list[float]]) -> dict[str, list[float]]:
    """Mean over seeds, and the 95 % interval where there are several."""
    array = np.asarray(profiles)
    mean = array.mean(0)
    half = half_width(array) if len(array) > 1 else np.zeros_like(mean)
    return {
        key: np.round(values, 5).tolist()
        for key, values in (("mean", mean), ("low", mean - half), ("high", mean + half))
    }


QUESTION = "Does ResidualDroppath lower the number of recreated units and raise reuse?"


def answer(record: dict[str, Any]) -> str:
    """One paragraph that answers the question, in the words that the intervals allow."""
    row = record["rows"].get("residual_drop_path")
    if row is None or row["against_plain"] is None:
        return "Plain training or ResidualDroppath was left out: there is nothing to compare."
    seeds = record["config"]["seeds"]
    if seeds == 1:
        return "One seed says nothing about the difference between methods; run several (`--seeds`)."
    recreated, reuse = row["against_plain"]["recreated"], row["against_plain"]["reuse"]
    fewer, more = _direction(recreated), _direction(reuse)
    verdict = {
        (-1, 1): "Yes, both",
        (-1, 0): "It lowers recreated units; no difference in reuse is shown",
        (0, 1): "It raises reuse; no difference in recreated units is shown",
        (-1, -1): "It lowers recreated units, but reuse too",
        (1, 1): "It raises reuse, but recreated units too",
        (0, 0): "No difference is shown in either",
        (1, 0): "No: recreated units rise, and no difference in reuse is shown",
        (0, -1): "No: reuse falls, and no difference in recreated units is shown",
        (1, -1): "No, the opposite of both",
    }[fewer, more]
    beside = row["against_plain"]
    return (
        f"{verdict}. Against plain training, paired over {seeds} seeds: recreated units {_signed(recreated, 1)}, "
        f"mean reuse {_signed(reuse, 4)} (95 % intervals). Also: branch / stream "
        f"{_signed(beside['norm_ratio'], 3)}, training loss {_signed(beside['train_loss'], 4)}, "
        f"test accuracy {_signed(beside['test_accuracy'], 2, 100)} points."
    )


def _direction(difference: dict[str, Any]) -> int:
    return (difference["low"] > 0) - (difference["high"] < 0)


def _signed(difference: dict[str, Any], digits: int, factor: float = 1) -> str:
    mean, low, high = (factor * difference[key] for key in ("mean", "low", "high"))
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
