"""Check that expected files name real models, blocks and parameters: `PYTHONPATH=tests python -m zoo.validate FILE...`.

Finds nothing by itself: it knows no more about residual branches than the files say.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch

from .expected import ExpectedModel, load_file
from .models import build, inputs


def validate(model: ExpectedModel) -> str:
    started = time.perf_counter()
    network = build(model)
    owned: set[str] = set()
    for branch in model.branches:
        network.get_submodule(branch.block)
        parameters = branch.parameters(network)
        if overlap := owned & parameters:
            raise ValueError(f"{branch.block}: {sorted(overlap)[:3]} belong to two branches")
        owned |= parameters
    with torch.no_grad():
        network(**inputs(model))
    seconds = time.perf_counter() - started
    total = sum(p.numel() for p in network.parameters())
    return f"{len(model.branches)} branches, {total / 1e6:.1f} M parameters, {seconds:.1f} s"


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in sys.argv[1:]:
        for model in load_file(Path(name)).models:
            try:
                print(model.id, validate(model), flush=True)
            except Exception as error:
                print(model.id, "WRONG:", f"{type(error).__name__}: {error}"[:600], flush=True)


if __name__ == "__main__":
    main()
