"""What `rdp bench` measures."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from ...core.options import RateOverDepth
from ...records.bounds import Bounded
from ...training.method_options import option
from ...training.recipe import Threads

Contending = Literal["plain", "rate_zero", "timm", "torchvision", "naive", "parameters", "stop_gradient", "sample"]
OURS: dict[str, dict[str, str]] = {
    "parameters": {"freeze": "parameters"},
    "stop_gradient": {"freeze": "stop_gradient"},
    "sample": {"freeze": "stop_gradient", "granularity": "sample"},
}
TITLES: dict[Contending, str] = {
    "plain": "plain training",
    "rate_zero": "ours at rate 0",
    "timm": "timm drop_path_rate",
    "torchvision": "torchvision StochasticDepth",
    "naive": "computing everything",
    "parameters": "ours, parameters",
    "stop_gradient": "ours, stop_gradient",
    "sample": "ours, stop_gradient, sample",
}


class BenchSetting(Bounded):
    """How a network is trained, and what is timed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    depth: int = Field(default=20, description="small_resnet: layers, 6n + 2")
    width: int = Field(default=16, description="small_resnet: channels of the first stage")
    image_size: int = Field(default=32, ge=4, description="pixels a side")
    batch_size: int = Field(default=128, ge=2, description="images an iteration")
    rate: float = option("drop_path_rate", gt=0, lt=1, description="drop_path_rate")
    rate_over_depth: RateOverDepth = option("rate_over_depth", default="uniform")
    contenders: tuple[Contending, ...] = Field(default=tuple(TITLES), description="what is timed; plain always is")
    plans: int = Field(default=64, ge=2, description="seeded plans, each run as both kinds of iteration")
    warmup: int = Field(default=3, ge=1, description="cycles before the first that counts")
    floor_rounds: int = Field(default=12, ge=0, description="times that each part is timed apart; 0: no floor")
    counts: bool = Field(default=True, description="count FLOPs and bytes saved for the backward, on the CPU")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd with momentum and weight decay")
    fused: bool = Field(default=False, description="the fused kind of the optimizer")
    device: str = Field(default="auto", description="cpu, cuda, or auto")
    dtype: Literal["float32", "bf16", "fp16"] = Field(default="float32", description="bf16, fp16: under autocast")
    compile: bool = Field(default=False, description="torch.compile the network, and ours by branches")
    channels_last: bool = Field(default=False, description="memory format of images and weights")
    threads: Threads | None = Field(default=None, description="CPU threads; default: PyTorch's choice")
    seed: int = Field(default=0, ge=0, description="of weights, inputs and plans")

    @model_validator(mode="after")
    def _check(self) -> BenchSetting:
        if len(set(self.contenders)) < len(self.contenders):
            raise ValueError(f"`contenders` must be different, got {self.contenders}")
        return self


class BenchConfig(BenchSetting):
    """All that a record was measured with."""

    model: str = Field(description="small_resnet, a timm name, torchvision/NAME, or transformers/CLASS")
