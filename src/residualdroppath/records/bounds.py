"""Settings whose numbers can be computed with: none that a tensor, a size or a count could not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, model_validator

LARGEST_COUNT = 2**31 - 1
LARGEST_SEED = 2**63 - 1
LARGEST_FLOAT = 3.4e38  # of float32, in which networks compute


class Bounded(BaseModel):
    """Refuses numbers that no training could use, which would fail somewhere inside of it."""

    @model_validator(mode="after")
    def _require_bounds(self) -> Self:
        for name in type(self).model_fields:
            for value in _numbers(getattr(self, name)):
                largest = _largest(name, value)
                if not abs(value) <= largest:
                    raise ValueError(f"`{name}` must be at most {largest:,}, got {_shortened(value)}")
        return self


def _largest(name: str, value: int | float) -> int | float:
    if isinstance(value, float):
        return LARGEST_FLOAT
    return LARGEST_SEED if "seed" in name else LARGEST_COUNT


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _shortened(value: int | float) -> str:
    """Python refuses to write whole numbers of more than 4,300 digits."""
    if isinstance(value, float) or abs(value) < 10**30:
        return f"{value}"
    return f"one of about {value.bit_length() * 3 // 10} digits"
