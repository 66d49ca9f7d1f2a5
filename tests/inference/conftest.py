"""Two trained networks: of grey digits, and of two classes of coloured squares in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.files import encoded
from residualdroppath.training.run import train
from training.tiny_runs import tiny

torch.set_num_threads(1)
COLOURS = {"blue": 2, "green": 1, "red": 0}


def square(colour: str, number: int) -> np.ndarray:
    """A picture of one colour, a little different each time."""
    array = np.full((12, 12, 3), 20 + number, np.uint8)
    array[..., COLOURS[colour]] = 200 + number
    return array


def write_squares(folder: Path, classes: tuple[str, ...] = tuple(COLOURS), count: int = 6) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(encoded(square(name, number)))
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits") / "run"
    train(tiny(width=8, train_size=640, epochs=3, method="plain"), out)
    return out


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `set` and the run `run`, which knows its colours."""
    folder = tmp_path_factory.mktemp("squares")
    for part, count in (("train", 12), ("val", 3), ("test", 2)):
        write_squares(folder / "set" / part, count=count)
    config = tiny(
        data=str(folder / "set"), width=4, train_size=None, batch_size=12, epochs=8, crop_padding=0, method="plain"
    )
    result = train(config, folder / "run")
    assert result["test_accuracy"] == 1
    return folder
