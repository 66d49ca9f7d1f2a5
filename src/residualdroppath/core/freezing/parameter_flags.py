"""`requires_grad` of what is frozen: off while a forward runs, the user's at every other moment.

Autograd reads the flag of a parameter when an operation runs, so nothing more is needed, and whoever looks
at a model between its forwards (DDP, an optimizer, a copy, a checkpoint) sees a plain one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from torch import nn

from ..torch_internals import own_parameters
from .ownership import Ownership

# Where a parameter is kept, its key there and its name in the network. It may be replaced there: by
# `load_state_dict(assign=True)`, by FSDP.
Place = tuple[Mapping[str, nn.Parameter | None], str, str]
SwitchedOff = tuple[Place, nn.Parameter]


class ParameterFlags:
    """Flags and gradients of parameters, by owner."""

    def __init__(self, model: nn.Module, ownership: Ownership):
        paths = {id(module): f"{path}." if path else "" for path, module in model.named_modules()}
        self._places: dict[int, list[Place]] = {
            owner: [(_kept_in(slot.module), slot.name, paths.get(id(slot.module), "") + slot.name) for slot in slots]
            for owner, slots in ownership.slots.items()
        }

    def learns(self, owner: int) -> bool:
        """Whether the user lets any parameter of the owner learn."""
        return any(parameter.requires_grad for _, parameter in self._parameters(owner))

    def named(self, owners: Iterable[int] | None = None) -> dict[str, nn.Parameter]:
        """Parameters by name: of these owners, or all."""
        owners = self._places if owners is None else owners
        return {name: parameter for owner in owners for (_, _, name), parameter in self._parameters(owner)}

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
            current = place[0].get(place[1])
            if current is not None and current is not parameter and current.is_leaf:  # FSDP copies flags
                current.requires_grad = True

    def clear_gradients(self, owners: Collection[int]) -> None:
        """Set gradients to None: a zero gradient would still move a weight by momentum and decay."""
        try:  # faster than to look whether each is there, and most of what a step takes
            for owner in owners:
                for own, key, _ in self._places[owner]:
                    own[key].grad = None  # pyright: ignore[reportOptionalMemberAccess]
        except (KeyError, AttributeError):  # some were taken away since
            for owner in owners:
                for _, parameter in self._parameters(owner):
                    parameter.grad = None

    def _parameters(self, owner: int) -> Iterator[tuple[Place, nn.Parameter]]:
        for place in self._places[owner]:
            if (parameter := place[0].get(place[1])) is not None:
                yield place, parameter


def _kept_in(module: nn.Module) -> Mapping[str, nn.Parameter | None]:
    own = own_parameters(module)
    return own if isinstance(own, dict) else dict(own.items())  # of a scripted module it is a view without `get`
