"""Copies of modules that can run without a trace in the originals: hooks see nothing, buffers and attributes stay."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..forward_override import forward_beneath
from ..torch_internals import BUFFERS, CHILDREN, HOOKS_OF_MODULE, PARAMETERS, call_instead
from .module_copies import attributes_of


class PlainCopies:
    """Shallow copies, each made once: parameters are those of the original, buffers copies.

    Hooks of PyTorch's own stay (spectral norm computes a weight in one, FSDP2 gathers parameters), others would see
    a call that the user has not made. `forward_of(module, copy)`, if it returns one, is the forward of a copy.
    `in_training`: copies are in training mode whatever the originals are in.
    """

    def __init__(
        self,
        forward_of: Callable[[nn.Module, nn.Module], Callable[..., Any] | None] = lambda *_: None,
        *,
        in_training: bool = False,
    ):
        self.forward_of = forward_of
        self.in_training = in_training
        self._copies: dict[int, tuple[nn.Module, nn.Module]] = {}
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, module: nn.Module) -> nn.Module:
        """The copy of a module, and of all below it."""
        if id(module) in self._copies:
            return self._copies[id(module)][1]
        if isinstance(module, torch.jit.ScriptModule):  # has no attributes that could be shared
            self._copies[id(module)] = module, deepcopy(module)
            return self._copies[id(module)][1]
        copy = object.__new__(type(module))
        self._copies[id(module)] = module, copy
        own = attributes_of(module)
        for name in HOOKS_OF_MODULE:
            own[name] = OrderedDict((k, hook) for k, hook in own[name].items() if _is_of_torch(hook))
        own[PARAMETERS] = own[PARAMETERS].copy()
        own[BUFFERS] = type(own[BUFFERS])((name, self.buffer(value)) for name, value in own[BUFFERS].items())
        own[CHILDREN] = type(own[CHILDREN])(
            (name, child if child is None else self.of(child)) for name, child in own[CHILDREN].items()
        )
        own.pop("forward", None)
        if (foreign := forward_beneath(module)) is not None:
            own["forward"] = foreign
        if self.in_training:
            own["training"] = True
        vars(copy).update(own)
        if (forward := self.forward_of(module, copy)) is not None:
            vars(copy)["forward"] = forward
        hooks = any(own[name] for name in HOOKS_OF_MODULE)
        call_instead(copy, None if hooks else lambda *args, **kwargs: copy.forward(*args, **kwargs))
        return copy

    def buffer(self, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in self._buffers:
            self._buffers[id(tensor)] = tensor, tensor.clone()
        return self._buffers[id(tensor)][1]

    def run(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What the module returns, without gradients."""
        with torch.no_grad():
            return self.of(module)(*args, **kwargs)


def _is_of_torch(hook: Any) -> bool:
    return str(getattr(hook, "__module__", None) or type(hook).__module__).split(".")[0] == "torch"
