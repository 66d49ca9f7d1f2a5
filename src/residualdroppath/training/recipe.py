"""The recipe of a run: typed, written out, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import UserError, first_line

C = TypeVar("C", bound=BaseModel)
Method = Literal["plain", "drop_path", "residual_drop_path"]


class Recipe(BaseModel):
    """What decides the result of a run, but for its method and its seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(
        default="digits", description="digits, mnist, fashion_mnist, cifar10, or a folder (images or Parquet)"
    )
    data_dir: Path = Field(default=Path("data"), description="where named sets lie, in torchvision's layout")
    download: bool = Field(default=False, description="fetch a named set that is not there")
    image_size: int | None = Field(default=None, ge=4, description="pixels a side; default: the set's own")
    label_column: str = Field(default="label", description="Parquet column of labels")
    image_column: str | None = Field(
        default=None, description="Parquet column of encoded images; default: the first of bytes"
    )
    validation_fraction: float = Field(default=0.1, gt=0, lt=1, description="of the training images, to choose on")
    train_size: int | None = Field(default=None, ge=1, description="train on this many images only")
    split_seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the cuts, apart from the seed of training")
    crop_padding: int | None = Field(
        default=None, ge=0, description="random shift in pixels; default: an eighth of the size"
    )
    mirror: bool | None = Field(default=None, description="random mirroring; default: by data set")

    model: str = Field(
        default="small_resnet", description="small_resnet, a timm name, torchvision/NAME, or transformers/CLASS"
    )
    depth: int = Field(default=20, description="small_resnet: layers, 6n + 2")
    width: int = Field(default=16, description="small_resnet: channels of the first stage")

    drop_path_rate: float = Field(default=0.1, ge=0, lt=1, description="largest drop rate")
    rate_over_depth: Literal["linear", "uniform"] = Field(default="linear", description="drop rate over the blocks")
    freeze: Literal["parameters", "stop_gradient"] = Field(default="parameters", description="how dropped_part freezes")
    granularity: Literal["batch", "sample"] = Field(default="batch", description="drop for a batch or for each sample")
    scale_by_keep: bool = Field(default=True, description="divide kept branches by their keep probability")
    frozen_norm: Literal["update", "batch", "running"] = Field(
        default="update", description="batch norms of frozen parts"
    )
    schedule: tuple[int, int] | Literal["random"] = Field(
        default=(1, 1), description="drop_path and dropped_part iterations"
    )
    rate_over_time: Literal["constant", "warmup", "early", "late"] = Field(
        default="constant", description="rate over training"
    )
    train_trunk: bool = Field(default=False, description="let the trunk learn in dropped_part iterations")

    epochs: int = Field(default=20, ge=1, description="passes over the training images")
    batch_size: int = Field(default=128, ge=2, description="images an iteration")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd has Nesterov momentum 0.9")
    lr: float = Field(default=0.1, gt=0, description="largest learning rate")
    weight_decay: float = Field(default=5e-4, ge=0, description="of weight matrices and kernels only")
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="part of training over which lr rises; then a cosine to 0"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="of the cross-entropy")

    device: str = Field(default="auto", description="cpu, cuda, or auto")
    amp: Literal["none", "bf16", "fp16"] = Field(default="none", description="automatic mixed precision")
    channels_last: bool = Field(default=False, description="memory format of images and weights")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: PyTorch's choice")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.granularity == "sample" and self.freeze != "stop_gradient":
            raise ValueError("`granularity` sample goes with `freeze` stop_gradient only")
        if self.schedule != "random" and (self.schedule[0] < 1 or self.schedule[1] < 0):
            raise ValueError(f"`schedule` must be random, or A >= 1 and B >= 0, got {self.schedule}")
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class TrainConfig(Recipe):
    """Everything that decides the result of one run."""

    method: Method = Field(default="residual_drop_path", description="how to train")
    seed: int = Field(default=0, ge=0, description="of initialisation, order, augmentation and draws")


def read_config(kind: type[C], path: Path) -> C:
    """A recipe from a YAML file; what the file leaves out keeps its default."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"The configuration {path} cannot be read ({first_line(error)}).") from error
    if not isinstance(values, dict):
        raise UserError(f"The configuration {path} must hold `option: value` lines.")
    return checked(lambda: kind.model_validate(values), str(path))


def checked(make: Any, where: str) -> Any:
    """Call `make`, and tell what pydantic finds wrong as one line."""
    try:
        return make()
    except ValidationError as error:
        raise UserError("; ".join(_one_line(problem) for problem in error.errors()) + f" (in {where})") from error


def _one_line(problem: Any) -> str:
    option = next((str(part) for part in problem["loc"]), "")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"`{option}` is not an option"
    return f"`{option}`: {message}, got {problem['input']!r}" if option else message
