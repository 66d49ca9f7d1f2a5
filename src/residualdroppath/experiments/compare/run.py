"""`compare`: a configuration and a folder in; runs, costs and a summary out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...data.images import ImageData
from ...errors import UserError
from ...records.environment import environment
from ...records.files import locked, read_json, write_json, write_text
from ...records.intervals import mean_and_deviation
from ...training.recipe import Method, read_config
from ...training.run import load_config_data, train
from ...training.runtime import pick_device
from .config import CompareConfig, Row, differences, plan_rows
from .cost import Cost, measure_costs


def compare(config: CompareConfig, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Run everything, and return (and keep in `out`) the summary: rows, costs, and what made them.

    With `resume`, runs that have ended stay, the one that was interrupted goes on, and the costs measured at first
    hold. There may be more seeds then and, where nothing goes by the length of a run, more epochs.
    """
    config = config.located()
    costs_path, config_path = out / "costs.json", out / "config.yaml"
    if resume:
        if not costs_path.is_file():  # a single run has none
            raise UserError(f"{out} holds no comparison to resume; choose another `out`, or leave out `resume`.")
        if different := differences(read_config(CompareConfig, config_path), config):
            raise UserError(
                f"A resumed comparison keeps its configuration, but for more seeds; {out} differs in "
                f"{', '.join(different)}. Give the same options, or choose another `out`."
            )
    with locked(out, in_use="a comparison that still goes on; wait for it or stop it", new=not resume):
        return _compare(config, out, resume=resume)


def _compare(config: CompareConfig, out: Path, *, resume: bool) -> dict[str, Any]:
    costs_path, config_path = out / "costs.json", out / "config.yaml"
    data = load_config_data(config)
    data.require_test()
    if resume:
        costs = read_json(costs_path, dict[Method, Cost])
        if lacking := [method for method in config.methods if method not in costs]:
            raise UserError(f"{costs_path} is damaged (no cost of {', '.join(lacking)}); put back a whole copy.")
    else:
        costs = measure_costs(config.run("plain", 0, config.epochs), list(config.methods), data)
        write_json(costs_path, {method: asdict(cost) for method, cost in costs.items()})

    write_text(config_path, config.to_yaml())
    rows = plan_rows(config, costs)
    results: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}
    count = 0
    for seed in config.seeds:
        for row in rows:
            count += 1
            results[row.name].append(_run(config, row, seed, out, data, f"{count}/{len(rows) * len(config.seeds)}"))
    summary = {
        "config": config.model_dump(mode="json"),
        "environment": environment(pick_device(config.device)),
        "rows": [_summarise(config, row, results, costs) for row in rows],
    }
    write_json(out / "summary.json", summary)
    return summary


def run_path(out: Path, row_name: str, seed: int) -> Path:
    return out / row_name / f"seed_{seed}"


def _run(config: CompareConfig, row: Row, seed: int, out: Path, data: ImageData, count: str) -> dict[str, Any]:
    path = run_path(out, row.name, seed)
    run_config = config.run(row.method, seed, row.epochs)
    started = (path / "config.yaml").is_file()
    result = train(run_config, path, resume=started, title=f"[{count}] {row.name} seed {seed}", data=data)
    if "test_accuracy" not in result:
        raise UserError(f"{path / 'result.json'} is damaged (no test_accuracy); remove that folder to run it again.")
    return result


def _summarise(
    config: CompareConfig, row: Row, results: dict[str, list[dict[str, Any]]], costs: dict[Method, Cost]
) -> dict[str, Any]:
    runs = results[row.name]
    # Not by the clock of the runs, which were not taken in turn: whatever else the machine did would count.
    plain_iterations = runs[0]["iterations"] / row.epochs * config.epochs
    return {
        **asdict(row),
        "name": row.name,
        "iterations": runs[0]["iterations"],
        "cost": asdict(costs[row.method]),
        "total_cost": costs[row.method].per_iteration * runs[0]["iterations"] / plain_iterations,
        **{name: mean_and_deviation([run[name] for run in runs]) for name in ("test_accuracy", "validation_accuracy")},
        "train_accuracy": mean_and_deviation([run["train_accuracy"] for run in runs]),
        "runs": runs,
    }
