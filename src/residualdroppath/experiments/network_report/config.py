"""What `rdp analyze` looks at, and how closely."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from ...records.bounds import Bounded
from ...training.recipe import Threads

MEASURES = {
    "deletion": "accuracy without each branch, and without random sets of branches",
    "reordering": "accuracy with blocks in another order",
    "streams": "size and direction of what each branch adds",
    "cka": "similarity of all pairs of layers",
    "probes": "what a linear readout of each layer knows of the label",
    "reconstruction": "how much of the input and of earlier layers each layer keeps",
    "relations": "units that are alike, within a layer and across layers",
    "information": "KSG information of each layer about the input, in two dimensions",
}
FEWEST_SAMPLES = 32


class AnalyzeSetting(Bounded):
    """Data, samples and measures; data options left out are those that a run was trained with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str | None = Field(
        default=None, description="as for rdp train; default: the data of the run, digits for a name or a file"
    )
    data_dir: Path | None = Field(default=None, description="where named sets lie, in torchvision's layout")
    image_size: int | None = Field(default=None, ge=4, description="pixels a side that the network is given")
    label_column: str = Field(default="label", description="Parquet column of labels")
    image_column: str | None = Field(default=None, description="Parquet column of encoded images")
    part: Literal["validation", "test"] = Field(default="validation", description="images that measures are taken on")
    samples: int = Field(default=2000, ge=1, description="images of that part")
    probe_samples: int = Field(default=2000, ge=1, description="training images that probes are fitted on")
    deletion_samples: int = Field(default=1000, ge=1, description="of the samples, for deletion and reordering")
    sets: int = Field(default=10, ge=2, description="random sets of branches of each size, and random orders")
    measures: tuple[str, ...] = Field(default=tuple(MEASURES), description=f"of {', '.join(MEASURES)}")
    units: int = Field(default=128, ge=4, description="units of a layer that are related to others, chosen at random")
    probe_width: int = Field(default=128, ge=4, description="wider layers are projected to this before a linear fit")

    model: str | None = Field(default=None, description="network of a .safetensors file")
    depth: int = Field(default=20, description="small_resnet: layers, 6n + 2")
    width: int = Field(default=16, description="small_resnet: channels of the first stage")
    num_classes: int | None = Field(default=None, ge=2, description="outputs of a network; default: the data's classes")

    batch_size: int = Field(default=64, ge=4, description="images at a time")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of samples, random weights, sets, orders and projections")
    device: str = Field(default="auto", description="cpu, cuda, or auto")
    threads: Threads | None = Field(default=None, description="CPU threads; default: PyTorch's choice")

    @field_validator("measures")
    @classmethod
    def _known(cls, measures: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in measures if name not in MEASURES]:
            raise ValueError(f"must be some of {', '.join(MEASURES)}; {unknown[0]!r} is unknown")
        if not measures or len(set(measures)) < len(measures):
            raise ValueError("must be different measures, at least one")
        return measures

    @field_validator("samples", "probe_samples", "deletion_samples")
    @classmethod
    def _enough(cls, samples: int) -> int:
        if samples < FEWEST_SAMPLES:
            raise ValueError(f"must be at least {FEWEST_SAMPLES}, better 2,000: few samples tell little")
        return samples


class AnalyzeConfig(AnalyzeSetting):
    """All that a record was made with."""

    target: str = Field(description="run folder, name of a network, or .safetensors file with `model`")
    compare: str | None = Field(default=None, description="another one, to lay beside the first")
