"""`analyze`: one or two networks in, a record and what the page draws out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...records.environment import environment, peak_memory
from ...training.runtime import pick_device
from ..progress import OnProgress, no_progress
from .config import AnalyzeConfig
from .measure import measure, plain_values
from .sample import draw_samples
from .summary import scalars
from .targets import Network, find_target, load_images, load_network


@dataclass(frozen=True)
class Analysis:
    """The record as it is written, and per network the unit maps of its layers, which only the page shows."""

    record: dict[str, Any]
    unit_maps: list[list[np.ndarray]]


def analyze(config: AnalyzeConfig, on_progress: OnProgress = no_progress) -> Analysis:
    """Measure `config.target`, and `config.compare` on the same images if there is one.

    Raises:
        UserError: unknown or damaged target, data that is missing, no residual branches, networks that do not share
            their images.
    """
    started = time.perf_counter()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    targets = [find_target(name, config) for name in (config.target, config.compare) if name is not None]
    data = load_images(targets, config)
    samples = draw_samples(data, config)
    networks = [load_network(target, config, data, device) for target in targets]
    rows, maps = [], []
    for place, network in enumerate(networks):
        prefix = f"[{place + 1}/{len(networks)}] " if len(networks) > 1 else ""
        begun = time.perf_counter()
        result = measure(
            network, samples, config, device,
            lambda what, done, total, prefix=prefix: on_progress(prefix + what, done, total),
        )  # fmt: skip
        row = {
            **_describe(network),
            "layers": result.layers,
            "branches": result.branches,
            "measures": plain_values(result.measures),
            "skipped": result.skipped,
            "seconds": round(time.perf_counter() - begun, 1),
        }
        row["scalars"] = plain_values(scalars(row))
        rows.append(row)
        maps.append(result.unit_maps)
        network.rdp.remove()
    record = {
        "config": config.model_dump(mode="json"),
        "environment": environment(device),
        "data": {
            "name": Path(data.name).name,
            "part": config.part,
            "samples": len(samples[0]),
            "probe_samples": len(samples[1]),
            "deletion_samples": min(config.deletion_samples, len(samples[0])),
            "num_classes": data.num_classes,
        },
        "networks": rows,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_bytes": peak_memory(),
    }
    if device.type == "cuda":
        record["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return Analysis(record, maps)


def _describe(network: Network) -> dict[str, Any]:
    return {
        "title": network.title,
        "kind": network.kind,
        "method": network.method,
        "image_size": network.image_size,
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
    }
