"""Tiny networks of Hugging Face transformers, made from configs without any download, and inputs for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

from .expected import ExpectedModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

TEXT_LENGTH = 7  # of decoder inputs and of states for cross-attention
PADDING = 2  # tokens at the end of the last row that are masked
SPECIAL_TOKENS = 3  # ids below are for padding, start and end


def make_transformers_model(model: ExpectedModel) -> nn.Module:
    """The network of the class `model.name`, whose config has `model.options`, with fresh weights."""
    return _model_class(model)(_config(model))


def transformers_inputs(model: ExpectedModel, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Keyword arguments for one forward: what the network reads, masks with padding in the last row, no labels."""
    config = _config(model)
    text = config.get_text_config()
    main = _model_class(model).main_input_name
    found: dict[str, Tensor] = {}
    if main == "input_ids" and len(model.input) == 1:
        found |= _tokens(text, rows, model.input[0], generator)
    elif main == "input_ids":  # images and text
        found |= _tokens(text, rows, text.max_position_embeddings, generator)
        found["pixel_values"] = _noise(rows, *model.input, generator=generator)
    else:
        found[main] = _noise(rows, *model.input, generator=generator)
    if main == "input_values":
        found["attention_mask"] = _mask(rows, model.input[0], padding=model.input[0] // 3)
    if config.is_encoder_decoder:
        tokens = _tokens(text, rows, TEXT_LENGTH, generator)
        found |= {f"decoder_{name}": value for name, value in tokens.items()}
    if getattr(config, "add_cross_attention", False):
        found["encoder_hidden_states"] = _noise(rows, TEXT_LENGTH, config.hidden_size, generator=generator)
        found["encoder_attention_mask"] = _mask(rows, TEXT_LENGTH)
    return found


def _model_class(model: ExpectedModel) -> type[PreTrainedModel]:
    ensure_torchvision_ops()  # transformers imports torchvision where there is one
    import transformers

    return getattr(transformers, model.name)


def _config(model: ExpectedModel) -> PreTrainedConfig:
    config_class = _model_class(model).config_class
    assert config_class is not None
    return config_class(**model.options)


def _tokens(config: PreTrainedConfig, rows: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
    mask = _mask(rows, length)
    ids = torch.randint(SPECIAL_TOKENS, config.vocab_size, (rows, length), generator=generator)
    return {"input_ids": ids.masked_fill(mask == 0, config.pad_token_id or 0), "attention_mask": mask}


def _mask(rows: int, length: int, padding: int = PADDING) -> Tensor:
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[-1, -padding:] = 0
    return mask


def _noise(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)
