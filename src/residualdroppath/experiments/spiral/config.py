"""What `rdp spiral` trains and draws."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from ...core.options import Freeze, RateOverDepth
from ...records.bounds import Bounded
from ...training.method_options import option
from ...training.recipe import Method

TITLES: dict[str, str] = {
    "untrained": "untrained",
    "plain": "plain",
    "drop_path": "drop path",
    "residual_drop_path": "ResidualDroppath",
}


class SpiralConfig(Bounded):
    """The data, the network, the training, and how finely the features are looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    arms: int = Field(default=2, ge=2, le=10, description="arms of the spiral, one class each")
    turns: float = Field(default=2.0, gt=0, le=10, description="turns of each arm")
    noise: float = Field(default=0.02, ge=0, le=1, description="standard deviation around the arm, whose radius is 1")
    samples: int = Field(default=1024, ge=16, description="training points; half for validation, as many for testing")
    data_seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the points, the same for all networks")

    depth: int = Field(default=32, ge=2, le=128, description="residual blocks")
    width: int = Field(default=32, ge=2, le=256, description="units of the residual stream")
    activation: Literal["relu", "gelu", "tanh"] = Field(default="relu", description="within a block, and after its add")
    norm: Literal["none", "layer", "batch"] = Field(default="batch", description="after each linear layer")

    methods: tuple[Method, ...] = Field(
        default=("plain", "drop_path", "residual_drop_path"), description="methods to train with"
    )
    seeds: int = Field(default=3, ge=1, le=1000, description="networks of each method, from seed 0 on")
    drop_path_rate: float = option("drop_path_rate", gt=0, lt=1)
    rate_over_depth: RateOverDepth = option("rate_over_depth")
    freeze: Freeze = option("freeze")
    iterations: int = Field(default=600, ge=1, description="optimizer updates, the same for all methods")
    batch_size: int = Field(default=256, ge=2, description="points an iteration")
    lr: float = Field(default=2e-3, gt=0, description="largest learning rate of AdamW")
    weight_decay: float = Field(default=1e-2, ge=0, description="of weight matrices only")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="part of training over which lr rises; then a cosine")

    grid: int = Field(default=64, ge=8, le=256, description="points a side of the square that units are drawn over")
    frames: int = Field(default=24, ge=2, le=200, description="pictures of the animation over training")

    @model_validator(mode="after")
    def _check(self) -> SpiralConfig:
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                f"`methods` must be different ones of plain, drop_path, residual_drop_path, got {self.methods}"
            )
        if self.batch_size > self.samples:
            raise ValueError(f"`batch_size` must be at most `samples` ({self.samples}), got {self.batch_size}")
        return self

    @property
    def rows(self) -> tuple[str, ...]:
        """What is measured: the untrained network first, then every method."""
        return ("untrained", *self.methods)
