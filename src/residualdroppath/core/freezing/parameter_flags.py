"""Which parameters learn: flags and gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from .ownership import Ownership, Slot


class ParameterFlags:
    """Switches `requires_grad` off while an owner is frozen, and back to what the user had set."""

    def __init__(self, ownership: Ownership):
        self.ownership = ownership
        self._frozen: set[int] = set()
        self._users: dict[int, list[tuple[Slot, bool]]] = {}

    def freeze(self, frozen: Iterable[int]) -> None:
        """Freeze exactly the owners named; flags of those released become the user's again."""
        frozen = set(frozen)
        for owner in frozen - self._frozen:
            parameters = list(self._parameters(owner))
            self._users[owner] = [(slot, parameter.requires_grad) for slot, parameter in parameters]
            for _, parameter in parameters:
                parameter.requires_grad_(False)
        for owner in self._frozen - frozen:
            for slot, flag in self._users.pop(owner):
                if (parameter := slot.parameter) is not None and flag:
                    parameter.requires_grad_(True)
        self._frozen = frozen

    def clear_gradients(self, owners: Iterable[int]) -> None:
        """Set gradients to None: a zero gradient would still move a weight by momentum and decay."""
        for owner in owners:
            for _, parameter in self._parameters(owner):
                parameter.grad = None

    def _parameters(self, owner: int) -> Iterator[tuple[Slot, nn.Parameter]]:
        seen: set[int] = set()  # tied weights hang in several slots
        for slot in self.ownership.slots[owner]:
            parameter = slot.parameter
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield slot, parameter
