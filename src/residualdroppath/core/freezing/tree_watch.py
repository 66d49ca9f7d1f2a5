"""Whether modules or parameters were added to a network, taken away or replaced."""

from __future__ import annotations

import torch
from torch import nn

from ..torch_internals import modules_below, own_children, own_parameters


class TreeWatch:
    """Remembers which modules and names of parameters hang where; asked before every training forward."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.look()

    def look(self) -> None:
        """From now on compare with the network as it is."""
        members = [m for m in modules_below(self.model) if not isinstance(m, torch.jit.ScriptModule)]
        self._children = [(children, tuple(children.values())) for children in map(own_children, members)]
        self._parameters = [(own, tuple(own)) for own in map(own_parameters, members)]
        self._absent = [(own, name) for own, names in self._parameters for name in names if own[name] is None]
        norms = [module for module in members if getattr(module, "momentum", None) is not None]
        self._norms_with_momentum = [norm for norm in norms if hasattr(norm, "running_mean")]

    def changed(self) -> bool:
        """Whether any module or name of a parameter differs."""
        return (
            any(tuple(children.values()) != seen for children, seen in self._children)
            or any(tuple(own) != seen for own, seen in self._parameters)
            or any(own[name] is not None for own, name in self._absent)
        )

    def recalibrates(self) -> bool:
        """Whether norms gather statistics from zero: `update_bn` and averaging of weights take their momentum away."""
        return any(norm.momentum is None for norm in self._norms_with_momentum)
