"""The drop path that a model brings along: which rates are on, and setting them to 0 for a forward.

Three kinds, recognised by names, no library is imported:

- "module": timm's `DropPath`, torchvision's `StochasticDepth`, Hugging Face's `SwinDropPath` and its like,
  modules of such names in other libraries;
- "block": a rate that the forward of a block gives to a function (LeViT of Hugging Face, DINOv2, EfficientNets);
- "layerdrop": the rate of a stack, or of its config, at which whole layers are skipped (Bart, wav2vec 2.0).

Not covered: rates in lists, tuples and tensors (NeMo's `layer_drop_probs`, `efficientnet_pytorch`), keep
probabilities, modules compiled by torch.jit. Dropout of elements or regions is no drop path, whatever its
name: `DropBlock2d`, and the `nn.Dropout` in HGNet-V2 and EfficientNet of Hugging Face.
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from types import CodeType
from typing import Any, Literal

from torch import nn

from ..torch_internals import own_children, own_parameters

OwnKind = Literal["module", "block", "layerdrop"]
Place = tuple[Any, str, OwnKind]  # holder, attribute

MODULE_CLASS = re.compile(r"(drop_?path|stochastic_?depth|drop_?connect|drop_?sample)(\dd)?$", re.IGNORECASE)
MODULE_RATES = ("drop_prob", "p", "drop_path_prob", "drop_path_rate", "drop_rate", "prob", "rate")
BLOCK_RATE = re.compile(r"_?(drop_?path|drop_?connect|stochastic_?depth)(_rate|_prob|_ratio)?|sample_drop_ratio")
# Classes whose attribute has a name that is dropout's elsewhere: LeViT (Hugging Face's and the original), EfficientViT.
BLOCK_RATES = {"LevitResidualLayer": "drop_rate", "Residual": "drop", "ResidualDrop": "drop"}
STACK_RATE = re.compile(r"([a-z]+_)*layer_?drop")
STACK_RATES = {"LayerDropModuleList": "p"}  # fairseq


@dataclass(frozen=True)
class OwnDropPath:
    """A rate above 0 of the model's own: `attribute` of `holder`, which is a module or its config.

    `path` is the module's; of several modules that read one config, the first one's.
    """

    path: str
    holder: Any
    attribute: str
    rate: float
    kind: OwnKind


def find_own_drop_path(model: nn.Module) -> tuple[OwnDropPath, ...]:
    """All rates above 0, each once. Raises `ValueError` for a drop path module without a known attribute."""
    found: dict[tuple[int, str], OwnDropPath] = {}
    for path, module in model.named_modules():
        for holder, attribute, kind in _places(module, path):
            rate = vars(holder)[attribute]
            if _is_number(rate) and rate > 0:
                found.setdefault((id(holder), attribute), OwnDropPath(path, holder, attribute, float(rate), kind))
    return tuple(found.values())


def switch_off(own: Iterable[OwnDropPath]) -> list[Any]:
    """All rates set to 0; the values seen there, which `restore` takes. Both cost about 0.1 microseconds a rate."""
    seen = []
    for one in own:
        values = one.holder.__dict__  # `setattr` of a module or config takes ten times longer
        seen.append(values[one.attribute])
        values[one.attribute] = 0.0
    return seen


def restore(own: Iterable[OwnDropPath], seen: Iterable[Any]) -> None:
    """All rates as `switch_off` has seen them."""
    for one, value in zip(own, seen, strict=True):
        one.holder.__dict__[one.attribute] = value


@contextmanager
def switched_off(own: Sequence[OwnDropPath]) -> Iterator[None]:
    """The model without its own drop path."""
    seen = switch_off(own)
    try:
        yield
    finally:
        restore(own, seen)


def stacks_of(model: nn.Module, own: OwnDropPath) -> list[nn.Module]:
    """The modules that skip their layers at this rate, of the kind "layerdrop"."""
    place = (id(own.holder), own.attribute)
    return [m for m in model.modules() if any((id(holder), name) == place for holder, name, _ in _places(m))]


def _places(module: nn.Module, path: str = "") -> Iterator[Place]:
    """Where a module keeps rates of drop path that its forward reads, on or off."""
    name, own = type(module).__name__, vars(module)
    if MODULE_CLASS.search(name) and not own_children(module) and not own_parameters(module):
        yield module, _rate_of_drop_path(module, path), "module"
        return
    if (attribute := STACK_RATES.get(name)) in own:
        yield module, str(attribute), "layerdrop"
    config = own.get("config")
    for attribute, value in own.items():
        if type(value) not in NO_NUMBERS and _is_number(value):
            if BLOCK_RATE.fullmatch(attribute) or BLOCK_RATES.get(name) == attribute:
                if attribute in _names_in_forward(type(module)):
                    yield module, attribute, "block"
            elif STACK_RATE.fullmatch(attribute) and attribute in _names_in_forward(type(module)):
                yield module, attribute, "layerdrop"
    for attribute, value in getattr(config, "__dict__", {}).items():
        if _is_number(value) and STACK_RATE.fullmatch(attribute) and attribute not in own:
            if {"config", attribute} <= _names_in_forward(type(module)):
                yield config, attribute, "layerdrop"


def _rate_of_drop_path(module: nn.Module, path: str) -> str:
    """The attribute that holds the rate of a drop path module."""
    own = vars(module)
    attribute = next((name for name in MODULE_RATES if name in own), None)
    if attribute is None or not (own[attribute] is None or _is_number(own[attribute])):
        found = f"{attribute}={own[attribute]!r}" if attribute else "none of them"
        raise ValueError(
            f"The drop path of the model must keep its rate as a number in one of {', '.join(MODULE_RATES)}, so that "
            f"it can be switched off; {path or 'the model'} ({type(module).__name__}) has {found}. Rename the "
            "attribute, or put nn.Identity() in the place of the module."
        )
    return attribute


NO_NUMBERS = {bool, dict, OrderedDict, set, str, tuple, type(None)}  # what modules hold most; `Real` takes longer


def _is_number(value: Any) -> bool:
    return type(value) in (float, int) or (isinstance(value, Real) and not isinstance(value, bool))


def _names_in_forward(module_class: type[nn.Module]) -> set[str]:
    """Names in the code of a forward and of the methods that it calls."""
    names: set[str] = set()
    methods = ["forward"]
    while methods:
        name = methods.pop()
        for definition in (vars(base)[name] for base in module_class.__mro__ if name in vars(base)):
            found = _names_in(getattr(inspect.unwrap(definition), "__code__", None))
            methods += [new for new in found - names if inspect.isroutine(getattr(module_class, new, None))]
            names |= found
            if "super" not in found:
                break
    return names


def _names_in(code: CodeType | None) -> set[str]:
    """Names of attributes and globals in some code, nested functions included."""
    if code is None:
        return set()
    nested = (_names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*nested)
