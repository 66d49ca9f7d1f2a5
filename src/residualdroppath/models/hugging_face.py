"""Classes of Hugging Face transformers, made from their default config without any download, and their inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import UserError, did_you_mean, first_line
from .spec import Inputs, ModelSpec, quiet
from .torchvision_ops import ensure_torchvision_ops

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

TOKENS = 128
SAMPLES = 16_000  # a second of sound
FRAMES = 512  # of a spectrogram
NOT_NETWORKS = ("Config", "Tokenizer", "TokenizerFast", "Processor", "ProcessorFast", "Extractor", "Output", "Pipeline")


def find_hugging_face(
    name: str, options: dict[str, Any], image_size: int | None, sequence_length: int | None
) -> ModelSpec:
    """The class `name` of transformers, `options` going to its config."""
    kind = _model_class(name)
    config = _config(kind, options, image_size)
    main = kind.main_input_name
    if image_size is not None and not _takes_images(main, config):
        raise UserError(f"`image_size` does not go with {name}, which takes {main}.")
    if sequence_length is not None and str(main).startswith("pixel_values") and not config.is_encoder_decoder:
        raise UserError(f"`sequence_length` does not go with {name}, which takes {main}.")

    def inputs(model: nn.Module, rows: int) -> list[Inputs]:
        return forward_inputs(kind, config, rows, image_size, sequence_length)

    def make() -> nn.Module:
        model: Any = kind(config)
        if hasattr(model, "set_experts_implementation"):  # the default one, grouped, asks for bfloat16
            model.set_experts_implementation("batched_mm")
        return model

    return ModelSpec(f"transformers/{name}", make, inputs)


def classifier_options(name: str, in_channels: int, num_classes: int) -> tuple[dict[str, Any], int]:
    """Options that make the class `name` a classifier of such images, and the channels that it takes.

    Its own drop path is switched off. Raises `UserError` if it does not take images alone.
    """
    kind = _model_class(name)
    first = next(argument for argument in inspect.signature(kind.forward).parameters if argument != "self")
    if not kind.main_input_name == first == "pixel_values":
        raise UserError(
            f"`model` transformers/{name} does not classify images, it takes {kind.main_input_name}; choose a class "
            "such as transformers/ViTForImageClassification."
        )
    config = _config(kind, {}, None)
    options: dict[str, Any] = {"num_labels": num_classes}
    if hasattr(config, "drop_path_rate"):
        options["drop_path_rate"] = 0.0
    if not hasattr(config, "num_channels"):
        return options, 3
    return {**options, "num_channels": in_channels}, in_channels


def forward_inputs(
    kind: type[PreTrainedModel],
    config: PreTrainedConfig,
    rows: int,
    image_size: int | None = None,
    sequence_length: int | None = None,
) -> list[Inputs]:
    """What to try as arguments of one forward, the fullest first; nothing where no such input is known."""
    main = kind.main_input_name
    makers: dict[str, Callable[[], list[tuple[int, ...]]]] = {
        "input_ids": lambda: [(rows, _text_length(config, sequence_length))],
        "pixel_values": lambda: _image_shapes(config, rows, image_size),
        "pixel_values_videos": lambda: _image_shapes(config, rows, image_size)[:1],
        "input_values": lambda: _sound_shapes(config, rows, sequence_length),
        "input_features": lambda: _spectrogram_shapes(config, rows, sequence_length),
    }
    if not isinstance(main, str) or main not in makers:
        return []
    dtype = torch.long if main == "input_ids" else torch.float32
    found: list[Inputs] = [{main: (shape, dtype)} for shape in makers[main]()]
    if main == "input_ids" and hasattr(config, "vision_config"):
        images = _image_shapes(config, rows, image_size)
        found = [{**own, "pixel_values": (shape, torch.float32)} for own in found for shape in images] + found
    taken = inspect.signature(kind.forward).parameters
    if config.is_encoder_decoder and "decoder_input_ids" in taken:
        tokens = ((rows, _text_length(config, sequence_length)), torch.long)
        found = [{**own, "decoder_input_ids": tokens} for own in found]
    if main == "input_ids" and "attention_mask" in taken:  # some look for padding in the tokens themselves, if without
        found += [{**own, "attention_mask": own["input_ids"]} for own in found]
    return found


def _model_class(name: str) -> type[PreTrainedModel]:
    ensure_torchvision_ops()  # transformers imports torchvision where there is one
    with quiet():
        import transformers

        transformers.logging.set_verbosity_error()
        try:
            kind = getattr(transformers, name, None)
        except Exception as error:  # the module of the class needs what is not there
            raise UserError(f"`model`: transformers cannot import {name!r}: {first_line(error)}") from error
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel) and kind.config_class):
        known = [other for other in dir(transformers) if other[:1].isupper() and not other.endswith(NOT_NETWORKS)]
        hint = did_you_mean(name, set(known) - {name}, "transformers/")
        raise UserError(f"`model` must be a model class after transformers/, got {name!r}{hint}")
    return kind


def _config(kind: type[PreTrainedModel], options: dict[str, Any], image_size: int | None) -> PreTrainedConfig:
    """The config with `options`, which must be among its own ones: by itself it takes anything."""
    make: Any = kind.config_class
    try:
        with quiet():
            _check_options(make(), options, "")
            config = make(**options)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{make.__name__} cannot be made with these options: {first_line(error)}") from error
    for part in _parts(config):
        given = options if part is config else {}
        for option in vars(part):
            # Layers skipped and frames masked at random: one forward would not be like the next.
            if "layerdrop" in option and option not in given:
                setattr(part, option, 0.0)
        for option in ("apply_spec_augment", "use_pretrained_backbone"):  # the latter, before version 5, downloads
            if hasattr(part, option) and option not in given:
                setattr(part, option, False)
        if image_size is not None and hasattr(part, "image_size") and "image_size" not in given:
            part.image_size = image_size
    return config


def _check_options(config: PreTrainedConfig, options: dict[str, Any], within: str) -> None:
    for option, value in options.items():
        if not hasattr(config, option):
            kind = type(config).__name__
            known = [own for own in vars(config) if not own.startswith("_")]
            raise UserError(f"`options`: {kind} has no `{within}{option}`{did_you_mean(option, known)}")
        own = getattr(config, option)
        if isinstance(value, dict) and any(part is own for part in _parts(config)):
            _check_options(own, value, f"{within}{option}.")


def _parts(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A config and those within."""
    yield config
    for value in vars(config).values():
        if hasattr(value, "is_encoder_decoder"):
            yield from _parts(value)


def _takes_images(main: Any, config: PreTrainedConfig) -> bool:
    return str(main).startswith("pixel_values") or hasattr(config, "vision_config")


def _text_length(config: PreTrainedConfig, sequence_length: int | None) -> int:
    text = config.get_text_config(decoder=True) if config.is_encoder_decoder else config.get_text_config()
    limits = [getattr(text, name, None) for name in ("max_position_embeddings", "max_target_positions", "n_positions")]
    return sequence_length or min([TOKENS, *(limit for limit in limits if isinstance(limit, int) and limit > 0)])


def _image_shapes(config: PreTrainedConfig, rows: int, image_size: int | None) -> list[tuple[int, ...]]:
    vision: Any = getattr(config, "vision_config", None) or config
    channels = getattr(vision, "num_channels", None) or getattr(vision, "in_channels", None) or 3
    size: Any = image_size or getattr(vision, "image_size", None) or 224
    sides = tuple(size)[:2] if isinstance(size, (list, tuple)) else (size, size)
    image = (rows, channels, *sides)
    frames = getattr(vision, "num_frames", None) or getattr(vision, "frames_per_clip", None)
    return [(rows, frames, channels, *sides), image] if frames else [image]


def _sound_shapes(config: PreTrainedConfig, rows: int, sequence_length: int | None) -> list[tuple[int, ...]]:
    bins: Any = getattr(config, "num_mel_bins", None)
    frames = sequence_length or getattr(config, "max_length", None) or FRAMES
    spectrogram = [(rows, frames, bins)] if bins else []
    return [*spectrogram, (rows, sequence_length or SAMPLES), (rows, 1, sequence_length or SAMPLES)]


def _spectrogram_shapes(config: PreTrainedConfig, rows: int, sequence_length: int | None) -> list[tuple[int, ...]]:
    names = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim")
    bins = [number for name in names if isinstance(number := getattr(config, name, None), int)]
    source: Any = getattr(config, "max_source_positions", None)
    found: list[tuple[int, ...]] = []
    for number in bins:
        if source and sequence_length is None:
            found.append((rows, number, 2 * source))
        length = sequence_length or FRAMES
        found += [(rows, length, number), (rows, number, length)]
    return found
