r"""How many images of a Parquet set are decoded for a small training: those that it uses, and the validation part.

.venv/bin/python benchmarks/decoding.py --out results/training/decoding.json [--data FOLDER]

Without --data a set of 60,000 small images is made.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from builds import write
from PIL import Image

from residualdroppath.data import image_sources
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data


def made_set(folder: Path, counts: dict[str, int]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    draws = np.random.default_rng(0)
    for part, count in counts.items():
        encoded = []
        for _ in range(count):
            buffer = io.BytesIO()
            Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "JPEG")
            encoded.append(buffer.getvalue())
        pq.write_table(pa.table({"image": encoded, "label": np.arange(count) % 10}), folder / f"{part}.parquet")
    return folder


@contextmanager
def counting(found: Counter[str]):
    """Decoded images by part, as their names begin."""
    decode = image_sources.decode

    def counted(item, name, **options):
        found[Path(name.split(" row")[0]).name] += 1
        return decode(item, name, **options)

    image_sources.decode = counted
    try:
        yield
    finally:
        image_sources.decode = decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--train-size", type=int, default=500)
    parser.add_argument("--images", type=int, default=50_000, help="of the training part of a set that is made")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        counts = {"train": arguments.images, "test": arguments.images // 5}
        data = arguments.data or made_set(Path(folder), counts)
        start = time.perf_counter()
        with counting(found):
            loaded = load_config_data(TrainConfig(data=str(data), train_size=arguments.train_size))
    used = {part: len(getattr(loaded, part)) for part in ("train", "validation", "test")}
    record = {
        "config": {"train_size": arguments.train_size, "data": "made" if arguments.data is None else data.name},
        "seconds": time.perf_counter() - start,
        "images_used": used,
        "decoded": dict(found),
        "decoded_in_all": sum(found.values()),
        "expected": used["train"] + used["validation"],
    }
    write(record, arguments.out)
    assert record["decoded_in_all"] == record["expected"], "more was decoded than is used"


if __name__ == "__main__":
    main()
