"""One number per measure and network, their differences, and the table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Scalar:
    """How a number is called and printed."""

    title: str
    digits: int = 3
    factor: float = 1.0


SCALARS = {
    "accuracy": Scalar("accuracy (%)", 1, 100),
    "worst_deletion": Scalar("accuracy lost without the worst branch (points)", 1, 100),
    "mean_deletion": Scalar("accuracy lost without a branch, mean (points)", 2, 100),
    "half_deleted": Scalar("accuracy without half of the branches, mean (%)", 1, 100),
    "mean_kept": Scalar("answers kept without a branch, mean (%)", 1, 100),
    "half_kept": Scalar("answers kept without half of the branches (%)", 1, 100),
    "worst_swap": Scalar("accuracy lost by the worst swap of neighbours (points)", 1, 100),
    "norm_ratio": Scalar("‖branch‖ / ‖stream‖, mean"),
    "cosine": Scalar("cosine(branch, stream), mean"),
    "cka_branches": Scalar("CKA between branches, mean"),
    "early_readout": Scalar("accuracy of a linear readout, mean over layers (%)", 1, 100),
    "last_bits": Scalar("held-out bits of the label at the last layer", 3),
    "input_r2": Scalar("R² of the input from the last layer"),
    "reuse": Scalar("reuse, mean max r with the layer before"),
    "recreated": Scalar("recreated units (%)", 2, 100),
    "duplicates": Scalar("units with a duplicate in their layer, mean (%)", 2, 100),
    "effective": Scalar("effective units of a layer, mean (%)", 1, 100),
    "information": Scalar("KSG information on the input at the last layer (nats)"),
}


def scalars(row: dict[str, Any]) -> dict[str, float | None]:
    """The numbers that a network's measures give, by the names of `SCALARS`."""
    found, measures = {}, row["measures"]
    found["accuracy"] = measures["answers"]["accuracy"]
    if deletion := measures.get("deletion"):
        half = len(row["branches"]) // 2
        of_half = next((each for each in deletion["sets"] if each["size"] == half), None)
        if (whole := deletion["whole"]["accuracy"]) is not None:
            lost = whole - _array(deletion["single"]["accuracy"])
            found["worst_deletion"], found["mean_deletion"] = lost.max(), lost.mean()
            if of_half:
                found["half_deleted"] = of_half["accuracy"]["mean"]
        found["mean_kept"] = _array(deletion["single"]["kept"]).mean()
        if of_half:
            found["half_kept"] = of_half["kept"]["mean"]
    if (order := measures.get("reordering")) and order["whole"]["accuracy"] is not None:
        found["worst_swap"] = order["whole"]["accuracy"] - _array(order["swaps"]["accuracy"]).min()
    if streams := measures.get("streams"):
        found["norm_ratio"], found["cosine"] = (np.nanmean(_array(streams[name])) for name in ("norm_ratio", "cosine"))
    if cka := measures.get("cka"):
        matrix = _array(cka["branches"])
        if len(matrix) > 1:
            found["cka_branches"] = np.nanmean(matrix[~np.eye(len(matrix), dtype=bool)])
    if probes := measures.get("probes"):
        found["early_readout"], found["last_bits"] = _array(probes["accuracy"]).mean(), probes["bits"][-1]
    if reconstruction := measures.get("reconstruction"):
        found["input_r2"] = reconstruction["input"][-1]
    if relations := measures.get("relations"):
        found["reuse"] = _array(relations["reuse"]).mean()
        found["recreated"] = relations["recreated_share"]
        found["duplicates"] = _array(relations["duplicates"]).mean()
        found["effective"] = (_array(relations["effective"]) / _array(relations["units"])).mean()
    if information := measures.get("information"):
        found["information"] = information["value"][-1]
    return {name: None if value is None else float(value) for name, value in found.items()}


def table_rows(record: dict[str, Any]) -> list[list[str]]:
    """Name, a number per network, and their difference if there are two; only what was measured."""
    networks = record["networks"]
    rows = []
    for name, scalar in SCALARS.items():
        values = [network["scalars"].get(name) for network in networks]
        if all(value is None for value in values):
            continue
        cells = [scalar.title, *(_text(value, scalar) for value in values)]
        if len(values) == 2:
            first, second = values
            cells.append(_text(None if first is None or second is None else second - first, scalar, "+"))
        rows.append(cells)
    return rows


def table_head(record: dict[str, Any]) -> list[str]:
    titles = [network["title"] for network in record["networks"]]
    return ["", *titles, "difference"] if len(titles) == 2 else ["", *titles]


def headline(record: dict[str, Any]) -> str:
    """What was looked at, in one sentence."""
    data, networks = record["data"], record["networks"]
    parts = f"{data['samples']:,} {data['part']} images of {data['name']}"
    branches = " and ".join(dict.fromkeys(str(len(network["branches"])) for network in networks))
    return f"{branches} residual branches, {parts}, {networks[0]['image_size']} pixels a side."


def terminal_table(record: dict[str, Any]) -> Table:
    table = Table(title=headline(record), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(table_head(record)):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in table_rows(record):
        table.add_row(*row)
    return table


def skipped_lines(record: dict[str, Any]) -> list[str]:
    return [
        f"{network['title']}: no {name}, {reason}"
        for network in record["networks"]
        for name, reason in network["skipped"].items()
    ]


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values] if not _nested(values) else values, float)


def _nested(values: list[Any]) -> bool:
    return bool(values) and isinstance(values[0], list)


def _text(value: float | None, scalar: Scalar, sign: str = "") -> str:
    return "–" if value is None else f"{scalar.factor * value:{sign}.{scalar.digits}f}"
