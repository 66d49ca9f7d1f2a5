"""The recipe: written, read back, and refused in one line that names the option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from residualdroppath.errors import UserError
from residualdroppath.training.recipe import TrainConfig, read_config

EVERY_OPTION: dict[str, Any] = {
    "data": "some/folder", "data_dir": "elsewhere", "download": True, "image_size": 32, "label_column": "fine",
    "image_column": "img", "validation_fraction": 0.25, "train_size": 500, "split_seed": 4, "crop_padding": 0,
    "mirror": False, "shuffle_buffer": 1000, "sync_batch_norm": True,
    "images_per_class": 20, "num_classes": 5, "class_seed": 2,
    "model": "resnet18", "depth": 14, "width": 8, "model_options": {"layers": 2},
    "weights": "start.pth", "freeze_modules": ["stem"],
    "pretrained": False,  # the only one that goes with weights
    "method": "drop_path", "drop_path_rate": 0.3,
    "rate_over_depth": "uniform", "freeze": "stop_gradient", "granularity": "sample", "scale_by_keep": False,
    "frozen_norm": "running", "schedule": [2, 3], "rate_over_time": "late", "train_trunk": True,
    "drop_rates": {"*.2": 0.0}, "include": ["layer*"], "exclude": ["*.0"], "check_frozen": False, "epochs": 3,
    "iterations": 70, "cycle": "same_batch", "trains": "union", "draw": "balanced",
    "empty_draw": "redraw",  # the only one that goes with rows and with cycles on one batch
    "batch_size": 16, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.0, "warmup": 0.0, "label_smoothing": 0.1,
    "lr_over_time": "step", "decay_epochs": [3], "decay_rate": 0.5, "min_lr": 1e-4, "warmup_iterations": 3,
    "patience": 2, "power": 0.9, "momentum": 0.8, "betas": [0.8, 0.9], "eps": 1e-7, "layer_decay": 0.7,
    "crop_scale": [0.08, 1.0], "crop_ratio": [0.5, 2.0], "interpolation": "random", "auto_augment": "3a",
    "color_jitter": 0.4, "erase": 0.25, "erase_mode": "pixel", "erase_count": 2, "repeats": 3, "mixup": 0.8,
    "cutmix": 1.0, "mix_probability": 0.9, "mix_switch": 0.4, "mix_mode": "elem", "mix_until": 2, "workers": 2,
    "ema": 0.99, "ema_warmup": True, "use": "ema", "compile": True, "log": ["tensorboard"],
    "recalibrate_norms": 0,  # the only one that goes with frozen modules
    "accumulation": 2, "clip_grad": 1.5, "checkpoint_every": 10, "checkpoint_minutes": 2.5,
    "keep_checkpoints": 3,
    "shard": False,  # goes with neither rows nor `compile`
    "seed": 9,
    "init_seed": 1, "order_seed": 2, "plan_seed": 3, "dropped_part_lr": 2.0, "validate_every": 4, "test": False,
    "device": "cpu", "amp": "bf16", "channels_last": True, "threads": 1,
}  # fmt: skip


def refused(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_config(TrainConfig, path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("options", [{}, EVERY_OPTION, {"schedule": "random", "shard": True}])
def test_written_and_read_back(tmp_path: Path, options: dict[str, Any]) -> None:
    config = TrainConfig.model_validate(options)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert read_config(TrainConfig, tmp_path / "config.yaml") == config


def test_the_file_holds_every_option() -> None:
    assert EVERY_OPTION.keys() == TrainConfig.model_fields.keys()
    written = yaml.safe_load(TrainConfig.model_validate(EVERY_OPTION).to_yaml())
    assert written == EVERY_OPTION
    default = TrainConfig()
    assert [name for name in EVERY_OPTION if getattr(default, name) == EVERY_OPTION[name]] == [
        "pretrained",
        "empty_draw",
        "recalibrate_norms",
        "shard",
    ]


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 7\n")
    assert read_config(TrainConfig, tmp_path / "config.yaml") == TrainConfig(epochs=7)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("drop_path_rate", value) for value in (1.0, 1.5, -0.1, ".nan", ".inf", "a lot")],
        *[("validation_fraction", value) for value in (0, 1, -0.5, ".nan")],
        *[("lr", value) for value in (0, -1, ".nan", ".inf", "fast")],
        *[(option, ".inf") for option in ("mixup", "color_jitter", "weight_decay", "clip_grad", "crop_ratio", "power")],
        *[("auto_augment", value) for value in ("''", "rand-m9-foo", "rand-mx", "rand m9", "augmix-")],
        *[("betas", value) for value in ("[0.9, 1]", "[-0.1, 0.9]", "[.nan, 0.9]")],
        *[("label_smoothing", value) for value in (1, -0.1)],
        *[("warmup", value) for value in (1, -0.1)],
        *[("schedule", value) for value in ("[0, 1]", "[1, -1]", "[1]", "[1, 1, 1]", "often", "[1.5, 1]")],
        *[("epochs", value) for value in (0, -1, 2.5, "many")],
        *[("split_seed", value) for value in (-1, 2**32)],
        *[(option, 0) for option in ("train_size", "threads", "image_size")],
        *[(option, -1) for option in ("crop_padding", "seed", "weight_decay", "image_size")],
        *[(option, "foo") for option in ("method", "freeze", "granularity", "frozen_norm", "rate_over_depth", "amp")],
        *[(option, "foo") for option in ("rate_over_time", "optimizer", "download", "mirror", "channels_last")],
        ("batch_size", 1),
        ("repeats", 65),
        ("data", "{a: b}"),
        ("model", "[resnet18]"),
    ],
)  # fmt: skip
def test_value_that_is_not_allowed(tmp_path: Path, option: str, value: Any) -> None:
    assert f"`{option}`" in refused(tmp_path, f"{option}: {value}\n")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    assert "`granularity='sample'` goes with `freeze='stop_gradient'`" in refused(tmp_path, "granularity: sample\n")


def test_unknown_option(tmp_path: Path) -> None:
    assert "`epoch` is not an option" in refused(tmp_path, "epoch: 3\n")


def test_every_mistake_is_told(tmp_path: Path) -> None:
    message = refused(tmp_path, "epochs: 0\nlr: -1\nfoo: 1\n")
    assert "`epochs`" in message and "`lr`" in message and "`foo`" in message


@pytest.mark.parametrize(
    "text", ["", "just words", "- a\n- b\n", "a: [", "\t", "? [1\n", "1: 2\n", "\x00", "!!python/object:x {}"]
)
def test_text_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(UserError, match="cannot be read|must be a file, it is a folder") as error:
            read_config(TrainConfig, path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
