"""Numbers that no training could compute with are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from residualdroppath.cli.main import run
from residualdroppath.experiments.bench.config import BenchConfig
from residualdroppath.experiments.studies.definition import Study
from residualdroppath.training.recipe import TrainConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2**31}, "`epochs` must be at most 2,147,483,647, got 2147483648"),
        ({"epochs": 10**5000}, "`epochs` must be at most 2,147,483,647, got one of about"),
        ({"batch_size": -(10**40), "epochs": 2**40}, "batch_size"),
        ({"lr": 1e300}, "`lr` must be at most 3.4e+38, got 1e+300"),
        ({"seed": 2**63}, "`seed` must be at most 9,223,372,036,854,775,807"),
        ({"num_classes": 3, "class_seed": 2**32}, "class_seed"),
        ({"image_size": 65_536}, "image_size"),
        ({"crop_padding": 10**9}, "crop_padding"),
        ({"decay_epochs": (1, 2**40)}, "`decay_epochs` must be at most"),
        ({"drop_rates": {"a": 1e39}}, "drop_rates"),
    ],
)
def test_recipes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("+", r"\+")):
        TrainConfig(**options)


def test_the_largest_ones_pass() -> None:
    config = TrainConfig(epochs=2**31 - 1, seed=2**63 - 1, lr=3e38, image_size=65_535)
    assert config.epochs == 2**31 - 1


def test_other_settings() -> None:
    with pytest.raises(ValidationError, match="`batch_size` must be at most"):
        BenchConfig(model="small_resnet", batch_size=10**18)
    with pytest.raises(ValidationError, match="`seeds` must be at most"):
        Study(name="a", question="b?", seeds=(2**70,), variants={"plain": {"method": "plain"}})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("arguments", [["train", "--epochs", "9" * 400], ["train", "--lr", "1e300"]])
def test_a_line_and_no_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 1
    assert "must be at most" in capsys.readouterr().err
