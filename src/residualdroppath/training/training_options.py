"""Options that trainings elsewhere have too: augmentation, optimizer, averages, logs. All off by default."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..records.bounds import Bounded

FORBIDS: ConfigDict = {"frozen": True, "extra": "forbid", "allow_inf_nan": False}
Share = Annotated[float, Field(gt=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
FactorOverTime = Literal["cosine", "constant", "step", "multistep", "poly", "plateau"]
OWN_OPTIMIZERS = ("sgd", "adamw")  # all others are timm's
# A policy, and sections of a key with a number, or of the transforms: timm leaves out what is neither, without a word.
POLICY = re.compile(r"\w+(-([a-z]+\d+(\.\d+)?|t[a-z0-9]+))*")
# Those that update shards as they update whole parameters, and whose state has the form of the parameters.
SHARDING_OPTIMIZERS = frozenset(
    """
    sgd adamw adabelief adadelta adagrad adam adamax adamc adamwlegacy adan adanw adopt adoptc adoptw lamb lambc lambcd
    lambcw lambw laprop lapropc larc lars lion lionc madgrad madgradw momentum nadam nadamc nadamlegacy nadamw nesterov
    nesterovw nlarc nlars radabelief radam radamlegacy radamw rmsprop rmsproptf rmsproptfc rmsproptfw sgdc sgdw
    """.split()
)
# What `shard` works with, and why with nothing else.
WITH_SHARD: dict[str, tuple[Any, str]] = {
    "granularity": ("batch", "processes would send gradients of different parameters"),
    "compile": (False, "the two were not tested together"),
    "channels_last": (False, "torch splits contiguous parameters alone"),
    "sync_batch_norm": (False, "the two were not tested together"),
}


class AugmentationOptions(Bounded):
    """What is done to training images besides shifts and mirroring: timm's augmentation."""

    model_config = FORBIDS

    crop_scale: tuple[Share, Share] | None = Field(
        default=None, description="random crops of so much of the area, resized (timm: 0.08 1); default: shifts instead"
    )
    crop_ratio: tuple[Positive, Positive] = Field(
        default=(0.75, 1.3333333333333333), description="width by height of random crops, smallest and largest"
    )
    interpolation: Literal["bilinear", "bicubic", "random"] = Field(
        default="bilinear", description="of random crops and of `auto_augment`"
    )
    auto_augment: str | None = Field(
        default=None, description="timm's policy, such as rand-m9-mstd0.5-inc1, original, augmix-m3-w3; default: none"
    )
    color_jitter: float | None = Field(
        default=None, ge=0, description="random change of brightness, contrast and saturation (timm: 0.4)"
    )
    erase: float = Field(default=0.0, ge=0, le=1, description="probability that a rectangle of an image is erased")
    erase_mode: Literal["const", "rand", "pixel"] = Field(
        default="const", description="rectangles become the mean colour, one random colour, or noise"
    )
    erase_count: int = Field(default=1, ge=1, description="at most so many rectangles")
    repeats: int = Field(
        default=1, ge=1, description="copies of an image in a batch, each augmented anew; an epoch then sees fewer"
    )
    mixup: float = Field(default=0.0, ge=0, description="alpha of mixup: pairs of images blended; 0: none")
    cutmix: float = Field(default=0.0, ge=0, description="alpha of cutmix: a rectangle from another image; 0: none")
    mix_probability: float = Field(default=1.0, ge=0, le=1, description="of mixup or cutmix")
    mix_switch: float = Field(default=0.5, ge=0, le=1, description="probability of cutmix, where both are on")
    mix_mode: Literal["batch", "pair", "elem"] = Field(
        default="batch", description="one draw a batch, a pair or an image"
    )
    mix_until: int | None = Field(default=None, ge=0, description="no mixup and cutmix after so many epochs")
    workers: int | None = Field(
        default=None, ge=0, le=1024, description="processes that decode and augment; default: up to 8, by threads"
    )

    @property
    def mixes(self) -> bool:
        return bool(self.mixup or self.cutmix)

    @model_validator(mode="after")
    def _check_augmentation(self) -> Self:
        for name in ("crop_scale", "crop_ratio"):
            if (given := getattr(self, name)) is not None and given[0] > given[1]:
                raise ValueError(f"`{name}` must be a smallest and a largest value, got {given[0]:g} {given[1]:g}")
        if self.crop_scale is not None and getattr(self, "crop_padding", None):
            raise ValueError("`crop_scale` takes the place of shifts; leave out `crop_padding`")
        if self.auto_augment is not None and self.color_jitter is not None and "3a" not in self.auto_augment:
            raise ValueError(
                "`color_jitter` must be left out with `auto_augment`, which changes colours itself (but for 3a)"
            )
        if self.auto_augment is not None and not POLICY.fullmatch(self.auto_augment):
            raise ValueError(
                "`auto_augment` must be a policy of timm, with sections of a key and a number, such as "
                f"rand-m9-mstd0.5-inc1, got {self.auto_augment!r}"
            )
        batch_size: int | None = getattr(self, "batch_size", None)
        if batch_size is not None and self.mixes and batch_size % 2:
            raise ValueError(f"`batch_size` must be even with `mixup` or `cutmix`, got {batch_size}")
        if batch_size is not None and self.repeats > batch_size // 2:
            raise ValueError(
                f"`repeats` must be at most {batch_size // 2}, half of `batch_size`, for a batch to hold two images, "
                f"got {self.repeats}"
            )
        return self


class OptimizationOptions(Bounded):
    """The optimizer beyond its name, and the learning rate over time."""

    model_config = FORBIDS

    momentum: float | None = Field(default=None, ge=0, lt=1, description="default: 0.9, or the optimizer's own")
    betas: tuple[Beta, ...] | None = Field(default=None, description="of Adam and its kind; default: its own")
    eps: float | None = Field(default=None, gt=0, description="likewise")
    layer_decay: float | None = Field(
        default=None, gt=0, le=1, description="factor on lr from a layer to the one below it (timm's groups of layers)"
    )
    min_lr: float = Field(default=0.0, ge=0, description="lr that cosine and poly end with, and plateau keeps above")
    warmup_iterations: int | None = Field(default=None, ge=0, description="in place of `warmup`, a part of training")
    decay_epochs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="step: epochs from one decay of lr to the next; multistep: after which epochs"
    )
    decay_rate: float = Field(default=0.1, gt=0, lt=1, description="factor on lr of step, multistep and plateau")
    patience: int = Field(default=10, ge=0, description="plateau: validations without a better accuracy before a decay")
    power: float = Field(default=1.0, gt=0, description="poly: exponent of what is left of training")

    @model_validator(mode="after")
    def _check_optimization(self) -> Self:
        over_time, lr = getattr(self, "lr_over_time", "cosine"), getattr(self, "lr", float("inf"))
        given = self.decay_epochs
        if over_time == "step" and len(given) != 1:
            raise ValueError(f"`decay_epochs` must be one number for `lr_over_time: step`, got {list(given)}")
        if over_time == "multistep" and (not given or sorted(set(given)) != list(given)):
            raise ValueError(f"`decay_epochs` must be rising numbers for `lr_over_time: multistep`, got {list(given)}")
        if given and over_time not in ("step", "multistep"):
            raise ValueError(f"`decay_epochs` goes with `lr_over_time` step or multistep, got {over_time}")
        if self.min_lr > lr:
            raise ValueError(f"`min_lr` must be at most `lr`, {lr:g}, got {self.min_lr:g}")
        return self


class WeightOptions(Bounded):
    """Which weights a run ends with, and what is written while it trains."""

    model_config = FORBIDS

    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay of an average of the weights over updates (timm: 0.9998)"
    )
    ema_warmup: bool = Field(default=False, description="a smaller decay at first")
    use: Literal["last", "best", "ema"] = Field(
        default="last", description="final weights: the last, of best validation accuracy, or the average"
    )
    recalibrate_norms: int = Field(
        default=0, ge=0, description="batches on which the final network's batch norms are measured anew"
    )
    compile: bool = Field(default=False, description="torch.compile the network, with the method by branches")
    log: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        default=(), description="write each epoch there too, besides log.csv"
    )

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.use == "ema" and self.ema is None:
            raise ValueError("`use: ema` needs an average: give its decay, `ema`")
        if self.ema_warmup and self.ema is None:
            raise ValueError("`ema_warmup` needs an average: give its decay, `ema`")
        return self


def require_shardable(recipe: BaseModel) -> None:
    """Raises `ValueError` for options of a recipe that do not go with `shard`."""
    for name, (value, reason) in WITH_SHARD.items():
        if getattr(recipe, name) != value:
            raise ValueError(f"`{name}` must be {value} with `shard`: {reason}")
    optimizer = getattr(recipe, "optimizer", "").lower()
    if optimizer.removeprefix("lookahead_") not in SHARDING_OPTIMIZERS:
        raise ValueError(
            f"`optimizer` {optimizer} does not go with `shard`: it needs whole parameters, or was not tested with "
            "parts of them; sgd, adamw, lamb, lion and others do"
        )
