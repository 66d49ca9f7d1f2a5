"""Balanced draws: every branch at exactly its rate, and nearly the same number of branches in every draw.

Draws come in decks. The branches, in order of execution, are cut into strata: neighbours of which about one is dropped,
or about one kept. In each stratum, drops are dealt to the draws of the deck by systematic sampling, wrapped around
(McNaughton 1959), so that over the deck branch i is dropped floor(rate_i * DECK) or ceil(rate_i * DECK) times; and in
each draw the number of branches dropped, of a stratum, and of all branches, is the sum of their rates rounded down
or up. One random offset makes each branch's rate exact; random orders of branches and draws do the rest. Where strata
are cut changes from deck to deck: else two neighbours of rate 0.5 would never run together.

Branches next to each other keep about equally much for backward, so no draw keeps much more than another.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

from .draws import uniform_row

DECK = 20  # a whole number of drops for rates of 0.05, 0.1, ...
Layout = tuple[tuple[bool, ...], ...]


@functools.lru_cache(maxsize=256)
def deck(rates: tuple[float, ...], seed: int, number: int, stream: str) -> Layout:
    """Which branches the draws of a deck drop, by draw: a pure function of its arguments.

    `rates` are those of one draw: where they change from draw to draw, each draw is looked up in the deck for its own.
    """
    in_play = [index for index, rate in enumerate(rates) if rate > 0.0]
    offset, shift, *keys = uniform_row(seed, number, stream, 2 + len(rates) + DECK * (1 + len(rates)))
    key_of_branch, keys_of_draws = keys[: len(rates)], iter(keys[len(rates) :])
    order = _shuffled(range(DECK), keys_of_draws)

    dropped = [[False] * len(rates) for _ in range(DECK)]
    dealt, turn, before = 0, 0, list[float]()
    for stratum in strata([rates[index] for index in in_play], 1.0 - shift):
        first, places = dealt, dict[int, range]()
        for index in sorted((in_play[place] for place in stratum), key=key_of_branch.__getitem__):
            before.append(rates[index])
            end = math.floor(offset + DECK * _near_whole(math.fsum(before)))
            places[index] = range(dealt - first, end - first)
            dealt = end
        # Places 0, 1, ... modulo DECK are draws; the first `num_extra` of these hold one drop more than the others,
        # and fall on the draws whose turn it is, so that the extra drops of all strata are spread evenly too.
        num_extra = (dealt - first) % DECK
        turns = [(turn + step) % DECK for step in range(DECK)]
        draw_of = [*_shuffled(turns[:num_extra], keys_of_draws), *_shuffled(turns[num_extra:], keys_of_draws)]
        turn = (turn + num_extra) % DECK
        for index, own in places.items():
            for place in own:
                dropped[order[draw_of[place % DECK]]][index] = True
    return tuple(map(tuple, dropped))


def strata(rates: Sequence[float], first: float = 1.0) -> list[range]:
    """Cuts branches into runs of neighbours.

    A run ends where the sum of min(rate, 1 - rate) up to it is nearest to `first`, `first + 1`, ..; `first` in (0, 1].
    """
    sums = [math.fsum(min(rate, 1.0 - rate) for rate in rates[:end]) for end in range(1, len(rates) + 1)]
    ends, target = [0], first
    for place, (here, following) in enumerate(itertools.pairwise(sums), start=1):
        if target - here <= following - target:
            ends.append(place)
            target += 1.0
    return [range(*pair) for pair in itertools.pairwise([*ends, len(rates)])] if rates else []


def balanced_effective_rates(drop_rates: tuple[float, ...]) -> tuple[float, ...]:
    """The rates of draws that must drop something: those given, or where they add up to less than 1, scaled up to 1."""
    total = math.fsum(drop_rates)
    return drop_rates if total >= 1.0 or total == 0.0 else tuple(min(1.0, rate / total) for rate in drop_rates)


def _near_whole(value: float) -> float:
    """Sums of rates that are whole but for rounding are whole: else a draw might be empty once in 10^15."""
    whole = round(value)
    return float(whole) if whole >= 1 and abs(value - whole) < 1e-12 else value


def _shuffled(values: Sequence[int], keys: Iterator[float]) -> list[int]:
    return [value for _, value in sorted(zip((next(keys) for _ in values), values, strict=True))]
