"""Failures that have a name, read from a row of a study's table."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
FEWEST_PAIRS = 5
SIGNIFICANT = 0.05  # p values below it, after correction
UNDERFIT = 0.02  # of training accuracy
CLEARLY_FEWER = 0.9  # of updates: budgets of cost are never met exactly
# Methods that claim to be more than drop path.
ABOVE_DROP_PATH = ("residual_drop_path", "freezing_only")


def signatures(row: Row, plain: Row | None) -> list[str]:
    """Names of what shows in `row`; `plain` is the row of plain training that it is compared to."""
    found = []
    diverged = sum(run["diverged"] is not None for run in row["runs"])
    if diverged:
        found.append(f"diverged: {diverged} of {len(row['runs'])}")
    against = row["against"]
    to_drop_path, to_plain = against.get("drop_path"), against.get("plain")
    if known(to_drop_path):
        if to_drop_path["mean"] < 0 and significant(to_drop_path):
            found.append("below drop path")
        elif row["method"] in ABOVE_DROP_PATH and not gains(to_drop_path):
            found.append("no gain over drop path")
    if known(to_plain) and to_plain["mean"] > 0 and row["test_accuracy"]["std"] is not None:
        if row["test_accuracy"]["std"] > to_plain["mean"]:
            found.append("spread larger than the gain")
    if plain is not None and row["method"] != "plain" and underfits(row, plain):
        found.append("the trunk underfits: its updates are too few")
    pairs = [each["n"] for each in against.values()] or [row["test_accuracy"]["n"]]
    if min(pairs) < FEWEST_PAIRS:
        found.append("pilot")
    return found


def underfits(row: Row, plain: Row) -> bool:
    """Fewer updates of the trunk than in plain training, and clearly less accurate on the training images."""
    ours, theirs = row["train_accuracy"]["mean"], plain["train_accuracy"]["mean"]
    if None in (ours, theirs, row["trunk_updates"], plain["trunk_updates"]):
        return False
    return row["trunk_updates"] < CLEARLY_FEWER * plain["trunk_updates"] and ours < theirs - UNDERFIT


def significant(difference: Row) -> bool:
    """After correction over the comparisons of the study; of one pair nothing is."""
    return difference.get("p_holm") is not None and difference["p_holm"] < SIGNIFICANT


def gains(difference: Row) -> bool:
    """Above 0, and significantly so where there is more than one pair."""
    return difference["mean"] > 0 and (difference.get("p_holm") is None or significant(difference))


def known(difference: Row | None) -> bool:
    return difference is not None and difference["mean"] is not None
