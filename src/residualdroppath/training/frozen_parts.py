"""Parts of a network that do not learn, by the recipe's `freeze_modules`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from ..core.freezing.frozen_norms import has_running_statistics
from ..errors import UserError, did_you_mean


class FrozenParts:
    """Modules and parameters that match one of some patterns get no gradient; their norms stay in evaluation mode."""

    def __init__(self, model: nn.Module, patterns: Sequence[str]):
        self.names = _matching(model, patterns)
        frozen = [name for name, _ in model.named_parameters(remove_duplicate=False) if self._holds(name)]
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)
        self.num_parameters = sum(p.numel() for p in model.parameters() if not p.requires_grad) if frozen else 0
        self.norms = [
            module
            for name, module in model.named_modules()
            if patterns and self._holds(name) and has_running_statistics(module)
        ]
        if patterns and not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(f"`freeze_modules` {' '.join(patterns)} leaves nothing that learns; give fewer.")

    def hold(self) -> None:
        """After `model.train()`."""
        for norm in self.norms:
            norm.eval()

    def _holds(self, name: str) -> bool:
        """Whether a module or parameter is one of those that match, or within one."""
        parts = name.split(".")
        return any(".".join(parts[:length]) in self.names for length in range(1, len(parts) + 1))


def _matching(model: nn.Module, patterns: Sequence[str]) -> frozenset[str]:
    known = [name for name, _ in (*model.named_modules(), *model.named_parameters(remove_duplicate=False)) if name]
    matching: set[str] = set()
    for pattern in patterns:
        found = [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            first = ", ".join(name for name, _ in model.named_children())
            hint = did_you_mean(pattern, known)
            raise UserError(
                f"`freeze_modules` must be names or globs of modules, got {pattern!r}, which matches none{hint} "
                f"The network is made of {first}."
            )
        matching.update(found)
    return frozenset(matching)
