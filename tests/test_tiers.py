"""Of products of parameters, the default tier takes pairs."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tiers import is_taken


@pytest.mark.parametrize("lengths", [(2, 3, 5), (4, 3, 5), (3, 3, 3), (2, 2, 2, 3)], ids=str)
def test_every_pair_of_values_is_taken(lengths: tuple[int, ...]) -> None:
    places = list(product(*map(range, lengths)))
    taken = [place for number, place in enumerate(places) if is_taken(number, lengths)]
    assert len(taken) < len(places)
    for first, second in combinations(range(len(lengths)), 2):
        assert len({(place[first], place[second]) for place in taken}) == lengths[first] * lengths[second]


def test_every_value_of_two_axes_is_taken() -> None:
    taken = [(number // 3, number % 3) for number in range(12) if is_taken(number, (4, 3))]
    assert taken == [(0, 0), (1, 2), (2, 1), (3, 0)]


@pytest.mark.pairs
@pytest.mark.parametrize("slow", [0, 1])
@pytest.mark.parametrize("fast", [0, 1])
def test_the_marker_takes_them(fast: int, slow: int, request: pytest.FixtureRequest) -> None:
    assert (request.node.get_closest_marker("full") is None) == (fast == slow)
