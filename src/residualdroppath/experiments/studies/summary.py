"""Rows of runs made into rows of a table: over seeds, against plain training and drop path, with what shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .elastic_depth import SELECTIONS
from .reuse_names import QUANTITIES as REUSE
from .signatures import signatures
from .statistics import holm, paired, rank_correlation, slopes, summary

Row = dict[str, Any]
REFERENCES = ("plain", "drop_path")
QUANTITIES = ("test_accuracy", "validation_accuracy", "train_accuracy", "test_loss")


def summarise(rows: list[Row]) -> Row:
    """`rows`, with figures over seeds, comparisons corrected by Holm's method over all of the study, and signatures."""
    for row in rows:
        for quantity in QUANTITIES:
            row[quantity] = summary([run[quantity] for run in row["runs"] if run[quantity] is not None])
        updates = [run["trunk_updates"] for run in row["runs"] if run["trunk_updates"] is not None]
        row["trunk_updates"] = sum(updates) / len(updates) if updates else None
    comparisons = []
    for row in rows:
        row["against"] = {}
        for method in REFERENCES:
            other = reference(rows, row, method)
            if other is None or other is row or (row["method"] == "plain" and method != "plain"):
                continue
            found = paired(_by_seed(row), _by_seed(other))
            row["against"][method] = {**found, "variant": other["variant"], "budget": other["budget"]}
            comparisons.append(row["against"][method])
    tested = [comparison for comparison in comparisons if comparison["p"] is not None]
    for comparison, adjusted in zip(tested, holm([each["p"] for each in tested]), strict=True):
        comparison["p_holm"] = adjusted
    for row in rows:
        if elastic := _elastic_depth(row, reference(rows, row, "plain")):
            row["elastic_depth"] = elastic
        if reuse := _feature_reuse(row, reference(rows, row, "plain")):
            row["feature_reuse"] = reuse
        row["signatures"] = signatures(row, reference(rows, row, "plain"))
    return {
        "rows": rows,
        "comparisons": len(tested),
        "reuse_and_accuracy": _reuse_and_accuracy(rows),
        "slopes": _slopes(rows),
    }


def reference(rows: Sequence[Row], row: Row, method: str) -> Row | None:
    """The first row of `method` at the same point and budget; where there is none, at the whole of the budget.

    Plain training is the same in all units.
    """
    same_point = [each for each in rows if each["method"] == method and each["point"] == row["point"]]
    alike = [each for each in same_point if each["unit"] == row["unit"]]
    alike += [each for each in same_point if method == "plain" and each not in alike]
    for scale in (row["scale"], 1.0):
        for each in alike:
            if each["scale"] == scale:
                return each
    return None


def _elastic_depth(row: Row, plain: Row | None) -> Row | None:
    """Accuracy over seeds by how many branches are out, and with half of them out the difference to plain training."""
    measured = _measured(row, "elastic_depth")
    if not measured:
        return None
    first = next(iter(measured.values()))
    sizes = range(len(first["chosen"]))
    found: Row = {"branches": first["branches"], "test_images": first["test_images"], "half_minus_plain": {}}
    found["whole"] = summary([own["whole"] for own in measured.values()])  # over the same images as the rest
    for how in SELECTIONS:
        found[how] = [summary([own[how][size] for own in measured.values()]) for size in sizes]
        if len(sizes) and (gained := _minus_plain(row, plain, "elastic_depth", lambda own, how=how: own[how][-1])):
            found["half_minus_plain"][how] = gained
    return found


def _feature_reuse(row: Row, plain: Row | None) -> Row | None:
    """Each measure of reuse over seeds, and its paired difference to plain training."""
    measured = _measured(row, "feature_reuse")
    if not measured:
        return None
    found: Row = {}
    for name in REUSE:
        found[name] = summary([own[name] for own in measured.values()])
        if gained := _minus_plain(row, plain, "feature_reuse", lambda own, name=name: own[name]):
            found[name]["minus_plain"] = gained
    return found


def _minus_plain(row: Row, plain: Row | None, measure: str, value: Callable[[Row], float]) -> Row | None:
    """The paired difference of a value of a measure to that of plain training, if there is such a row."""
    if plain is None or plain is row:
        return None
    ours, theirs = ({seed: value(own) for seed, own in _measured(each, measure).items()} for each in (row, plain))
    return paired(ours, theirs)


def _reuse_and_accuracy(rows: Sequence[Row]) -> Row:
    """Rank correlation of each measure of reuse with test accuracy, over the means of the rows."""
    measured = [row for row in rows if "feature_reuse" in row and row["test_accuracy"]["mean"] is not None]
    accuracy = [row["test_accuracy"]["mean"] for row in measured]
    names = REUSE if measured else ()
    return {
        name: rank_correlation([row["feature_reuse"][name]["mean"] for row in measured], accuracy) for name in names
    }


def _slopes(rows: Sequence[Row]) -> list[Row]:
    """How the difference to plain training changes with each doubling of what the grid varies, for each variant."""
    found = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["budget"]), []).append(row)
    for (variant, budget), own in groups.items():
        differences: dict[int, list[tuple[Row, float]]] = {}
        for row in own:
            plain = reference(rows, row, "plain")
            if plain is None or plain is row or row["method"] == "plain":
                continue
            ours, theirs = _by_seed(row), _by_seed(plain)
            for seed in ours.keys() & theirs.keys():
                differences.setdefault(seed, []).append((row["point"], ours[seed] - theirs[seed]))
        found += [{"variant": variant, "budget": budget, **each} for each in slopes(differences)]
    return found


def _measured(row: Row, name: str) -> dict[int, Row]:
    runs = [run for run in row["runs"] if name in run.get("measures", {})]
    return {run["seed"]: run["measures"][name] for run in runs}


def _by_seed(row: Row) -> dict[int, float]:
    return {run["seed"]: run["test_accuracy"] for run in row["runs"] if run["test_accuracy"] is not None}
