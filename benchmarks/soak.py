r"""Memory over a long training with validation, checkpoints and the method: flat after its start.

.venv/bin/python benchmarks/soak.py --iterations 2000 --out results/training/soak.json
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from builds import write

from residualdroppath.training import run as run_module
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.trainer import Trainer

START = 0.25  # share of iterations after which memory is to be flat
MOST_GROWTH = 0.02  # from there to the end


def resident() -> int:
    """Bytes in memory, of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    config = TrainConfig(
        iterations=arguments.iterations, batch_size=64, depth=8, width=8, drop_path_rate=0.5, device="cpu", threads=1,
        checkpoint_every=50, train_size=1000,
    )  # fmt: skip
    sampled: list[tuple[int, int]] = []
    train_iteration = Trainer.train_iteration

    def sampling(self: Trainer, *batch: Any) -> Any:
        made = train_iteration(self, *batch)
        if self.iteration % max(1, arguments.iterations // 100) == 0:
            sampled.append((self.iteration, resident()))
        return made

    Trainer.train_iteration = sampling
    with tempfile.TemporaryDirectory() as folder:
        run_module.train(config, Path(folder) / "run", on_epoch=lambda epoch, epochs: None)
    later = [size for iteration, size in sampled if iteration >= START * arguments.iterations]
    half = len(later) // 2
    growth = max(later[half:]) / max(later[:half]) - 1
    record = {
        "config": config.model_dump(mode="json"),
        "resident_bytes": [list(each) for each in sampled],
        "growth": growth,
        "most_growth": MOST_GROWTH,
        "is_flat": growth <= MOST_GROWTH,
    }
    write(record, arguments.out)
    assert record["is_flat"], f"memory grew by {growth:.1%}"


if __name__ == "__main__":
    main()
