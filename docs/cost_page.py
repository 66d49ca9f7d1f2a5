"""`docs/cost.md` and the README's cost table, from the records of `rdp bench` in `results/bench/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from residualdroppath.experiments.bench.config import OURS
from residualdroppath.experiments.bench.report import HEAD, LEGEND, table_rows, title

Record = dict[str, Any]

INTRODUCTION = f"""# What an iteration costs

Generated from the records in `results/bench/` by `python docs/generate.py`.

`rdp bench MODEL` trains the same network in several ways on one batch, in one process, iteration by iteration in turn,
each iteration beside a plain one; `drop_path` and `dropped_part` iterations of the same seeded plans count alike.
{LEGEND}

The floor is measured, not counted: each branch is taken out of the network and timed trained, frozen, and without a
graph, on the tensors that it is given there; the trunk is timed with all branches away, and the optimizer on the
parameters of each part. The parts that a plan needs are summed. Time / floor is what is lost on the way, in Python and
in caches: 1 means nothing.
"""
BREAK_EVEN = """
## Where skipping pays

Time per iteration relative to plain training. At small batches Python and the optimizer count, and they do not shrink
with what is dropped. These are single iterations of (1, 1), at uniform rates; an update of the trunk takes two of them,
one of each kind. Below 1 skipping pays: so in {paying} of {cells} cells."""
MEMORY = """
## What does not get better

- The peak memory of a run is about plain training's: bytes saved for the backward are fewer on average, but some plans
  drop little, and a run needs what its worst plan needs ("worst" in the tables).
- The trunk learns in one of two iterations. Compare at equal cost, or at equal cycles, as well as at equal iterations.
- `granularity="sample"` gathers rows: on branches with batch norm all rows of a branch run if any does.

## On a GPU

No record of a GPU is in `results/` yet. `make gpu` takes them in at most nine minutes: costs of three networks in bf16,
eager and compiled, and, with six trainings at once, as many seeds as fit of `recipes/studies/gpu_cifar10.yaml`. The
machine needs no network: where there is one,

```sh
make gpu-carry DATA=FOLDER     # FOLDER: the CIFAR-10 JPEG copy, train.parquet and test.parquet
```

copies the data to `build/gpu`, and with them the packages that Python 3.12 there may lack, 40 MiB in all. It must have
torch, torchvision, timm, scipy, scikit-learn, matplotlib and pyarrow; `GPU_PYTHON` and `GPU_PACKAGES` are for other
machines. With the checkout and `build/gpu` there,

```sh
make gpu OUT=FOLDER            # or: python3 benchmarks/gpu.py --minutes 9 --out FOLDER
python3 benchmarks/gpu.py --tiny --out FOLDER     # all of it in tiny sizes, on a CPU, in about two minutes
```

writes `costs.json` (a record of `rdp bench` by each name), `runs.json` (each training that has ended), `study.json` and
`study.html` (of all of them), `steps.json` (what was run, for how long, and what was stopped for time) and `log.txt`.
One network alone, compiled before it is timed:

```sh
rdp bench resnet50d --device cuda --dtype bf16 --channels-last --compile --no-counts --floor-rounds 0
```
"""


def records(folder: Path) -> dict[str, Record]:
    """By the name of the file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def readme_table(of_rates: list[Record]) -> str:
    """Our rows of one network at several rates."""
    head = ["drop rate", "`freeze`", "`drop_path`", "`dropped_part`", "per iteration", "95 % interval", "per cycle"]
    rows = []
    for record in of_rates:
        for name in ("parameters", "stop_gradient"):
            row = record["rows"][name]
            ratio = row["per_iteration"]
            rows.append(
                [
                    f"{record['config']['rate']:g}",
                    f"`{name}`",
                    *(f"{row['by_kind'][kind]['mean']:.2f}" for kind in ("drop_path", "dropped_part")),
                    f"**{ratio['mean']:.2f}**",
                    f"{ratio['low']:.2f} to {ratio['high']:.2f}",
                    f"{row['per_cycle']['mean']:.2f}",
                ]
            )
    environment = of_rates[0]["environment"]
    return (
        markdown_table(head, rows)
        + f"\n\n{title(of_rates[0]).replace(' rate 0.1', ' rates')}, {environment['threads']} threads, "
        + f"torch {environment['versions']['torch']}. `{environment['command']}`"
    )


def cost_page(folder: Path) -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for record in records(folder).values():
        rows = table_rows(record)
        used = [index for index in range(len(HEAD)) if index == 0 or any(row[index] != "-" for row in rows)]
        parts.append(f"\n## {title(record)}\n")
        parts.append(markdown_table([HEAD[i] for i in used], [[row[i] for i in used] for row in rows]))
        note = ""
        if of_plain := record["plain_over_floor"]:
            share = {name: row["floor"] * of_plain for name, row in ours(record).items()}
            shares = ", ".join(f"{value:.2f} (`{name}`)" for name, value in share.items())
            note = f"Plain training takes {of_plain:.2f} of its own floor; losing as much, ours would take {shares}. "
        versions = record["environment"]["versions"]
        made = f"`{record['environment']['command']}`, torch {versions['torch']}, seed {record['config']['seed']}."
        parts.append(f"\n{note}{made}\n")
    if pairs := records(folder / "break_even"):
        ratios = [row["per_iteration"]["mean"] for pair in pairs.values() for row in ours(pair).values()]
        parts.append(BREAK_EVEN.format(paying=sum(ratio < 1 for ratio in ratios), cells=len(ratios)))
        parts += ["", break_even_table(list(pairs.values())), ""]
    parts += [peer_section(peer) for peer in records(folder / "peers").values()]
    parts.append(forms_section(records(folder.parent / "studies")))
    return "\n".join([*parts, MEMORY.strip(), ""])


def peer_section(record: Record) -> str:
    """What `benchmarks/peer_composer.py` measured, in words and a table."""
    config, made = record["config"], record["environment"]
    rows = [
        [f"`{method}`, rate {rate}", f"{ratio['mean']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}"]
        for name, ratio in record["relative_to_plain"].items()
        for method, rate in [name.split()]
    ]
    size = f"{config['image_size']}x{config['image_size']}"
    return f"""
## Composer's stochastic depth

In a process of its own, relative to plain training there: torchvision's {config["model"]}, {size}, batch
{config["batch_size"]}, channels-last, uniform rates. Every iteration drops; there are no `dropped_part` iterations.

{markdown_table(["Composer", "per iteration", "95 % interval"], rows)}

`{made["command"]}`, mosaicml {made["versions"]["mosaicml"]}, torch {made["versions"]["torch"]}, seed {config["seed"]}.
"""


OF_ONE_FORM = ("levers", "spread")  # studies that compare no forms


def forms_section(studies: dict[str, Record]) -> str:
    """What an iteration of each form cost where it was studied, at the rate that was chosen there."""
    cells: dict[str, dict[str, str]] = {}
    names = [name for name, record in studies.items() if name not in OF_ONE_FORM and not record["definition"]["grid"]]
    for name in names:
        for row in studies[name]["rows"]:
            cost = row["cost"] or {}
            if row["method"] != "plain" and cost.get("per_iteration") is not None:
                rate = row["runs"][0]["recipe"]["drop_path_rate"]
                cells.setdefault(row["variant"], {})[name] = f"{cost['per_iteration']:.2f} at {rate:g}"
    rows = [[variant, *(row.get(name, "-") for name in names)] for variant, row in cells.items()]
    return f"""
## Forms of the method, in the studies

Per iteration, relative to plain training, with the largest drop rate of the branches: the small networks of
[the studies](evidence.md), one thread, timed in turn with plain iterations before their trainings.
(4, 1) costs about a tenth less than drop path at low rates, and about as much at high ones.

{markdown_table(["form", *(f"`{name}`" for name in names)], rows)}
"""


def ours(record: Record) -> dict[str, Record]:
    """The rows of the method, by its name in `rdp bench`."""
    return {name: record["rows"][name] for name in OURS if name in record["rows"]}


def _with_interval(ratio: dict[str, float]) -> str:
    return f"{ratio['mean']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _by_network(cells: dict[str, dict[str, str]]) -> str:
    """A row per network, a column for each name that some network has."""
    columns = sorted({column for row in cells.values() for column in row})
    return markdown_table(
        ["network", *columns], [[name, *(row.get(column, "-") for column in columns)] for name, row in cells.items()]
    )


def drop_path_table(folder: Path) -> str:
    """`drop_path` iterations alone: a row per network and batch size, a column per rate."""
    cells: dict[str, dict[str, str]] = {}
    found = [*records(folder).values(), *records(folder / "break_even").values()]
    for record in sorted(found, key=lambda each: (each["config"]["model"], each["config"]["batch_size"])):
        network = title(record).split(" rate ")[0].removesuffix(", uniform")
        for name, row in record["rows"].items():
            if name == "parameters":
                ratio = row["by_kind"]["drop_path"]
                cells.setdefault(network, {}).setdefault(f"rate {record['config']['rate']:g}", _with_interval(ratio))
    for peer in records(folder / "peers").values():
        config = peer["config"]
        network = f"Composer's block-wise stochastic depth: {config['model']}, "
        network += f"{config['image_size']}x{config['image_size']}, batch {config['batch_size']}"
        for rate in config["rates"]:
            ratio = peer["relative_to_plain"][f"block {rate:g}"]
            cells.setdefault(network, {})[f"rate {rate:g}"] = _with_interval(ratio)
    return _by_network(cells)


def break_even_table(found: list[Record]) -> str:
    """A row per network and batch size, a column per rate and freeze."""
    cells: dict[str, dict[str, str]] = {}
    for record in sorted(found, key=lambda r: (r["config"]["model"], r["config"]["batch_size"], r["config"]["rate"])):
        config = record["config"]
        network = title(record).split(", batch")[0]
        row = cells.setdefault(f"{network}, batch {config['batch_size']}", {})
        for name, measured in ours(record).items():
            mean = measured["per_iteration"]["mean"]
            row[f"rate {config['rate']:g}, {name}"] = f"**{mean:.2f}**" if mean >= 1 else f"{mean:.2f}"
    return _by_network(cells)
