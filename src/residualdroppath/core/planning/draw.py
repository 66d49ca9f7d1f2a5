"""One draw: which branches are dropped, for the whole batch or for each of its rows."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..options import DrawForm
from .balanced import DECK, balanced_effective_rates, deck
from .draws import draw_dropped, draw_row, effective_rates


@dataclass(frozen=True)
class Draw:
    """What one draw depends on, and so what it is.

    `number` counts the draws before it: the place of a balanced draw in its deck. `nominal_rates`: by branch.
    `nonempty`: it drops something, by effective rates. `stream` tells draws of one iteration from each other.
    """

    seed: int
    iteration: int
    number: int
    nominal_rates: tuple[float, ...]
    nonempty: bool
    form: DrawForm = "independent"
    stream: str = "drop"

    @property
    def rates(self) -> tuple[float, ...]:
        """The probabilities of being dropped: effective ones, if the draw is never empty."""
        return rates_of(self.form, self.nominal_rates, self.nonempty)

    def batch(self) -> tuple[bool, ...]:
        """By branch, whether it is dropped for the whole batch."""
        return _for_the_batch(self)

    def rows(self, rows: int) -> Tensor:
        """Which rows drop which branches, bool[rows, branches]; balanced: the rows are the draws of decks."""
        if self.form == "balanced":
            decks = (
                deck(self.rates, self.seed, self.iteration, f"{self.stream}/rows/{number}")
                for number in range(-(-rows // DECK))
            )
            drawn = [row for each in decks for row in each][:rows]
            return torch.tensor(drawn, dtype=torch.bool).view(rows, len(self.nominal_rates))
        return draw_dropped(
            self.nominal_rates,
            seed=self.seed,
            iteration=self.iteration,
            rows=rows,
            nonempty=self.nonempty,
            stream=self.stream,
        )


@functools.lru_cache(maxsize=64)  # the iterations of a cycle share draws
def _for_the_batch(draw: Draw) -> tuple[bool, ...]:
    if draw.form == "balanced":
        number, place = divmod(draw.number, DECK)
        return deck(draw.rates, draw.seed, number, f"{draw.stream}/deck")[place]
    return tuple(
        draw_row(
            draw.nominal_rates, seed=draw.seed, iteration=draw.iteration, nonempty=draw.nonempty, stream=draw.stream
        )
    )


def rates_of(form: DrawForm, nominal_rates: tuple[float, ...], nonempty: bool) -> tuple[float, ...]:
    """The probabilities of being dropped in a draw of this form, that may be empty or not."""
    if not nonempty:
        return nominal_rates
    return (balanced_effective_rates if form == "balanced" else effective_rates)(nominal_rates)
