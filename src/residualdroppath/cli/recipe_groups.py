"""Options of a recipe in the help text: under headings, with the names that they have in a file."""

from __future__ import annotations

from collections import ChainMap
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from ..training.method_options import OF_THE_RUN, OPTIONS
from ..training.recipe import Recipe
from ..training.training_options import AugmentationOptions

# Each option of a recipe under one heading, in this order.
HEADINGS: dict[str, tuple[str, ...]] = {
    "data": (
        *("data", "data_dir", "download", "image_size", "label_column", "image_column", "validation_fraction"),
        *("train_size", "images_per_class", "num_classes", "class_seed", "split_seed", "shuffle_buffer"),
    ),
    "network": ("model", "depth", "width", "model_options", "pretrained", "weights", "freeze_modules"),
    "method": (
        *("method", "methods", "equal"),
        *(name for name in OPTIONS if name not in OF_THE_RUN),
        *("cycle", "dropped_part_lr"),
    ),
    "training": (
        *("epochs", "iterations", "batch_size", "accumulation", "clip_grad", "label_smoothing", "validate_every"),
        *("test", "seed", "seeds", "init_seed", "order_seed", "plan_seed"),
    ),
    "optimizer and learning rate": (
        *("optimizer", "lr", "weight_decay", "momentum", "betas", "eps", "layer_decay", "lr_over_time", "warmup"),
        *("warmup_iterations", "min_lr", "decay_epochs", "decay_rate", "patience", "power"),
    ),
    "augmentation": (
        *("crop_padding", "mirror"),
        *(name for name in AugmentationOptions.model_fields if name != "workers"),
    ),
    "final weights": ("ema", "ema_warmup", "use", "recalibrate_norms"),
    "device": ("device", "amp", "channels_last", "compile", "shard", "sync_batch_norm", "threads", "workers"),
    "checkpoints and logs": ("checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "log"),
}


def with_headings() -> ConstructorRegistry:
    """A context in which tyro shows recipes under `HEADINGS`; their values are checked together, in the recipe."""
    registry = ConstructorRegistry()
    groups: dict[type, tuple[StructFieldSpec, ...]] = {}

    @registry.struct_rule
    def _(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type in groups:
            return StructConstructorSpec(dict, groups[info.type])
        if not (isinstance(info.type, type) and issubclass(info.type, Recipe)):
            return None
        default = info.default if isinstance(info.default, Recipe) else info.type()
        fields = []
        for heading, names in HEADINGS.items():
            group = type(heading, (), {})
            groups[group] = tuple(_option(default, name) for name in names if name in info.type.model_fields)
            fields.append(StructFieldSpec(heading, Annotated[group, tyro.conf.OmitArgPrefixes], group()))  # pyright: ignore[reportArgumentType]
        return StructConstructorSpec(lambda **given: info.type(**ChainMap(*given.values())), tuple(fields))

    return registry


def _option(default: Recipe, name: str) -> StructFieldSpec:
    known, value = type(default).model_fields[name], getattr(default, name)
    kind: Any = known.annotation
    if value in (None, (), {}):  # "default: None" beside the description of what that means
        kind = Annotated[kind, tyro.conf.arg(help_behavior_hint="")]
    return StructFieldSpec(name, kind, value, helptext=known.description)
