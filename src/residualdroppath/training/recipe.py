"""The recipe of a run: typed, written out, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model, field_validator, model_validator

from ..core.options import Options
from ..data.request import NAMED_SETS, located
from ..errors import UserError
from ..records.bounds import Bounded
from ..records.configuration import read_yaml
from ..records.paths import expanded
from .method_options import OF_THE_RUN, OPTIONS, option_fields
from .training_options import (
    FORBIDS,
    OWN_OPTIMIZERS,
    AugmentationOptions,
    FactorOverTime,
    OptimizationOptions,
    WeightOptions,
    require_shardable,
)

C = TypeVar("C", bound=BaseModel)
Threads = Annotated[int, Field(ge=1, le=1024)]  # so many more than there are cores only take memory
OF_CHECKPOINTS = ("checkpoint_every", "checkpoint_minutes", "keep_checkpoints")
LONGEST_SHOWN = 300  # characters of a value that is refused, which may be all variants of a study
LARGEST_SIDE = 65_535  # of an image that a JPEG file can hold
MAY_CHANGE = (*OF_CHECKPOINTS, "workers", "log", "shard")  # when a run is resumed
Method = Literal["plain", "drop_path", "residual_drop_path"]
# A part of the method taken out or replaced (`controls.py`), to see what that part is worth.
Control = Literal["drop_path_effective", "freezing_only"]


class _DataAndModel(Bounded):
    model_config = FORBIDS

    data: str = Field(
        default="digits",
        description="digits, mnist, fashion_mnist, cifar10; a folder (images, tar files, Parquet) or tar file; or "
        "hfds/NAME, tfds/FOLDER, wds/FOLDER: Hugging Face, TensorFlow and WebDataset sets",
    )
    data_dir: Path = Field(default=Path("data"), description="where named sets lie, in torchvision's layout")
    download: bool = Field(default=False, description="fetch a named set that is not there")
    image_size: int | None = Field(
        default=None,
        ge=4,
        le=LARGEST_SIDE,
        description="pixels a side; default: the set's own, if its images are all of one size",
    )
    label_column: str = Field(default="label", description="Parquet column of labels")
    image_column: str | None = Field(
        default=None, description="Parquet column of encoded images; default: the only one that holds images"
    )
    validation_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="of the training images, to choose on; not of a set with a part for it"
    )
    train_size: int | None = Field(default=None, ge=1, description="train on this many images only")
    images_per_class: int | None = Field(
        default=None, ge=1, description="of these, train on this many of each class only"
    )
    num_classes: int | None = Field(default=None, ge=2, description="keep this many classes only, the first ones")
    class_seed: int | None = Field(
        default=None, ge=0, lt=2**32, description="choose the classes kept by this seed instead"
    )
    split_seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the cuts, apart from the seed of training")
    shuffle_buffer: int | None = Field(
        default=None,
        ge=1,
        description="read tar files and tables one after another, drawing from the next so many images; default: from "
        "all, anywhere",
    )
    crop_padding: int | None = Field(
        default=None, ge=0, le=LARGEST_SIDE, description="random shift in pixels; default: an eighth of the size"
    )
    mirror: bool | None = Field(default=None, description="random mirroring; default: by data set")

    model: str = Field(
        default="small_resnet", description="small_resnet, a timm name, torchvision/NAME, or transformers/CLASS"
    )
    depth: int = Field(default=20, description="small_resnet: layers, 6n + 2")
    width: int = Field(default=16, description="small_resnet: channels of the first stage")
    model_options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="others: arguments of the model, such as {patch_size: 4, embed_dim: 64}"
    )
    pretrained: bool = Field(
        default=False, description="start from the weights that timm has by that name, such as resnet18.a1_in1k"
    )
    weights: Path | None = Field(
        default=None, description="start from these: a run folder, a .safetensors or a .pth file; a head may differ"
    )
    freeze_modules: tuple[str, ...] = Field(
        default=(), description="parts that do not learn: names or globs of modules, such as stem blocks.[01]"
    )


# The options of the method stand between what is trained and how it is trained.
_WithMethod = create_model("_WithMethod", __base__=_DataAndModel, **option_fields())


class Recipe(WeightOptions, OptimizationOptions, AugmentationOptions, _WithMethod):
    """What decides the result of a run, but for its method and its seed."""

    epochs: int = Field(default=20, ge=1, description="passes over the training images")
    iterations: int | None = Field(
        default=None, ge=1, description="optimizer updates of the training, in place of `epochs`; the last may be cut"
    )
    cycle: Literal["next_batch", "same_batch"] = Field(
        default="next_batch", description="each iteration on its own batch, or a whole cycle on one (the paper's form)"
    )
    batch_size: int = Field(default=128, ge=2, description="images an iteration, of all processes together")
    optimizer: str = Field(default="sgd", description="sgd (with Nesterov momentum), adamw, or any name that timm has")
    lr: float = Field(default=0.1, gt=0, description="largest learning rate")
    weight_decay: float = Field(default=5e-4, ge=0, description="of weight matrices and kernels only")
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="part of training over which lr rises; then as `lr_over_time` has it"
    )
    lr_over_time: FactorOverTime = Field(
        default="cosine",
        description="lr after `warmup`: down to `min_lr` (cosine, poly), or so that `epochs` may grow later",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="of the cross-entropy")
    accumulation: int = Field(default=1, ge=1, description="parts of a batch, one after another, to save memory")
    clip_grad: float | None = Field(default=None, gt=0, description="largest norm of the gradient; default: any")

    dropped_part_lr: float = Field(default=1.0, gt=0, description="factor on lr in dropped_part iterations")
    validate_every: int = Field(default=1, ge=1, description="epochs from one validation to the next; the last always")
    test: bool = Field(default=True, description="use the test set, once, after training, if there is one")
    device: str = Field(default="auto", description="cpu, cuda, or auto")
    amp: Literal["none", "bf16", "fp16"] = Field(default="none", description="automatic mixed precision")
    sync_batch_norm: bool = Field(
        default=False, description="batch norms over the images of all processes (CUDA); default: over each one's"
    )
    shard: bool = Field(
        default=False, description="split weights and optimizer state over the processes (FSDP2), to save memory"
    )
    channels_last: bool = Field(default=False, description="memory format of images and weights")
    threads: Threads | None = Field(default=None, description="CPU threads; default: PyTorch's choice")
    checkpoint_every: int | None = Field(
        default=None, ge=1, description="iterations from one checkpoint to the next, besides one an epoch"
    )
    checkpoint_minutes: float | None = Field(default=None, gt=0, description="likewise, minutes")
    keep_checkpoints: int = Field(default=2, ge=1, description="the last ones that are kept, besides the best")

    @model_validator(mode="after")
    def _check(self) -> Self:
        options = self.options(seed=0, total_iterations=1)
        if self.pretrained and self.weights is not None:
            raise ValueError("`pretrained` and `weights` both name weights to start from; give one")
        if self.freeze_modules and self.recalibrate_norms:
            raise ValueError("`recalibrate_norms` must be 0 with `freeze_modules`, whose norms stay as they are")
        if self.shard:
            require_shardable(self)
        fixed = options.schedule != "random" and getattr(options, "empty_draw", "redraw") == "redraw"
        if self.class_seed is not None and self.num_classes is None:
            raise ValueError("`class_seed` chooses `num_classes` classes; give that too")
        if self.cycle == "same_batch" and not fixed:
            raise ValueError(
                "`cycle: same_batch` needs cycles of a fixed length: a `schedule`, and empty draws redrawn"
            )
        return self

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OWN_OPTIMIZERS:
            from .timm_optimizers import require_known  # timm, for those who want it

            require_known(name)
        return name

    def options(self, *, seed: int, total_iterations: int, **changes: Any) -> Options:
        """The options of the method. Raises `ValueError` for what is not allowed."""
        values = {name: getattr(self, name) for name in OPTIONS if name not in OF_THE_RUN}
        return Options(**{**values, "seed": seed, "total_iterations": total_iterations, **changes})

    def located(self) -> Self:
        """With the places of data and weights named from the root, so that they hold wherever the recipe is read."""
        if self.weights is not None and not self.weights.is_absolute():
            return self.model_copy(update={"weights": expanded(self.weights).absolute()}).located()
        if self.data == "digits":  # in no folder
            return self
        if self.data in NAMED_SETS:
            return self.model_copy(update={"data_dir": expanded(self.data_dir).absolute()})
        return self.model_copy(update={"data": located(self.data)})

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class TrainConfig(Recipe):
    """Everything that decides the result of one run."""

    method: Method | Control = Field(default="residual_drop_path", description="how to train")
    seed: int = Field(default=0, ge=0, description="of initialisation, order, augmentation and draws")
    init_seed: int | None = Field(default=None, ge=0, description="of initialisation; default: `seed`")
    order_seed: int | None = Field(default=None, ge=0, description="of order, augmentation, dropout; default: `seed`")
    plan_seed: int | None = Field(default=None, ge=0, description="of draws; default: `seed`")

    def seed_of(self, purpose: Literal["init", "order", "plan"]) -> int:
        own = {"init": self.init_seed, "order": self.order_seed, "plan": self.plan_seed}[purpose]
        return self.seed if own is None else own


def read_config(kind: type[C], path: Path) -> C:
    """A recipe from a YAML file; what the file leaves out keeps its default."""
    values = read_yaml(path)
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
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    if problem["type"] == "extra_forbidden":
        return f"`{option}` is not an option"
    if not option:
        return message
    if problem["type"] == "value_error" and ", got " in message:
        return f"`{option}`: {message}"
    given = repr(problem["input"])
    return f"`{option}`: {message}, got {given if len(given) <= LONGEST_SHOWN else given[:LONGEST_SHOWN] + ' ...'}"
