"""What of the product of several parameters the default tier of the tests takes."""

from __future__ import annotations

from collections.abc import Sequence


def is_taken(number: int, lengths: Sequence[int]) -> bool:
    """Of a product of axes of these lengths, the first varying slowest, a part with every value of every axis.

    Of three or more axes it holds every pair of values: the sum of the indices is a multiple of the shortest length.
    """
    place = 0
    for length in reversed(lengths):
        number, index = divmod(number, length)
        place += index
    return place % min(lengths) == 0
