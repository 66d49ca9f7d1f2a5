"""`requires_grad` of what is frozen: off while a forward runs, the user's at every other moment.

Autograd reads the flag of a parameter when an operation runs, so nothing more is needed, and whoever looks
at a model between its forwards (DDP, an optimizer, a copy, a checkpoint) sees a plain one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from ..torch_internals import own_parameters
from .ownership import Ownership


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a parameter is kept. It may be replaced there: by `load_state_dict(assign=True)`, by FSDP."""

    own: dict[str, nn.Parameter | None]
    key: str
    name: str

    @property
    def parameter(self) -> nn.Parameter | None:
        return self.own[self.key] if self.key in self.own else None


SwitchedOff = tuple[_Place, nn.Parameter]


class ParameterFlags:
    """Flags and gradients of parameters, by owner."""

    def __init__(self, model: nn.Module, ownership: Ownership):
        paths = {id(module): f"{path}." if path else "" for path, module in model.named_modules()}
        self._places: dict[int, list[_Place]] = {
            owner: [
                _Place(own_parameters(slot.module), slot.name, paths.get(id(slot.module), "") + slot.name)
                for slot in slots
            ]
            for owner, slots in ownership.slots.items()
        }

    def learns(self, owner: int) -> bool:
        """Whether the user lets any parameter of the owner learn."""
        return any(parameter.requires_grad for _, parameter in self._parameters(owner))

    def named(self, owners: Iterable[int] | None = None) -> dict[str, nn.Parameter]:
        """Parameters by name: of these owners, or all."""
        owners = self._places if owners is None else owners
        return {place.name: parameter for owner in owners for place, parameter in self._parameters(owner)}

    def switch_off(self, owners: Iterable[int]) -> list[SwitchedOff]:
        """No gradient for parameters of the owners, until `restore` is given what this returns."""
        switched = []
        for owner in owners:
            for place, parameter in self._parameters(owner):
                if parameter.requires_grad and parameter.is_leaf:  # others are given by `torch.func.functional_call`
                    parameter.requires_grad = False  # `requires_grad_()` is refused inside of `torch.func`
                    switched.append((place, parameter))
        return switched

    def restore(self, switched: list[SwitchedOff]) -> None:
        """Flags as they were before `switch_off`."""
        for place, parameter in switched:
            parameter.requires_grad = True
            current = place.parameter
            if current is not None and current is not parameter and current.is_leaf:  # FSDP copies flags
                current.requires_grad = True

    def clear_gradients(self, owners: Collection[int]) -> None:
        """Set gradients to None: a zero gradient would still move a weight by momentum and decay."""
        for owner in owners:
            for place in self._places[owner]:
                if (parameter := place.parameter) is not None:
                    parameter.grad = None

    def _parameters(self, owner: int) -> Iterator[tuple[_Place, nn.Parameter]]:
        for place in self._places[owner]:
            if (parameter := place.parameter) is not None:
                yield place, parameter
