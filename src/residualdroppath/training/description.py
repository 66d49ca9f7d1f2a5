"""What using a network needs besides its weights: how it is made, its images, classes, and the recipe it came from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..data.images import ImageData
from ..errors import UserError
from .recipe import OF_CHECKPOINTS, TrainConfig

FORMAT = 1


class NetworkDescription(BaseModel):
    """Plain values, kept in the metadata of each weights file of a run.

    Images are uint8[image_channels, image_size, image_size]; the network is given (pixels - mean) / deviation, repeated
    to its own `channels` where images are grey.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    depth: int
    width: int
    model_options: dict[str, bool | int | float | str]
    image_channels: int
    channels: int
    image_size: int
    mean: tuple[float, ...]  # per channel, of pixel values from 0 to 255
    deviation: tuple[float, ...]
    classes: tuple[str, ...]
    recipe: dict[str, Any]
    data: dict[str, Any]  # as `data.json` of a run
    pruned: tuple[str, ...] = ()  # branches that were left out afterwards
    format: int = FORMAT

    def plain(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def describe(
    config: TrainConfig,
    data: ImageData,
    identity: dict[str, Any],
    *,
    channels: int,
    mean: list[float],
    deviation: list[float],
) -> NetworkDescription:
    """Of a network of `channels` that `config` trains on `data`."""
    recipe = config.model_dump(mode="json", exclude=set(OF_CHECKPOINTS))  # these change nothing of the weights
    return NetworkDescription(
        model=config.model,
        depth=config.depth,
        width=config.width,
        model_options=config.model_options,
        image_channels=data.channels,
        channels=channels,
        image_size=data.image_size,
        mean=tuple(mean),
        deviation=tuple(deviation),
        classes=data.classes or tuple(str(label) for label in range(data.num_classes)),
        recipe=recipe,
        data=identity,
    )


def parse_description(about: dict[str, Any], where: str) -> NetworkDescription:
    """What `plain` returned, checked. Raises `UserError`."""
    try:
        found = NetworkDescription.model_validate(about)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(
            f"The description in {where} is not complete ({'.'.join(map(str, problem['loc']))}: {problem['msg']}); "
            "write the file with this version."
        ) from error
    if found.format > FORMAT:
        raise UserError(f"{where} was written by a later version (format {found.format}, known is {FORMAT}).")
    return found
