"""What networks by name are told about the size of images."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from residualdroppath.models.find import with_image_size


def knows(*known: str) -> Any:
    """A function that makes a module with the options it was told, of these names."""

    def make(**options: Any) -> nn.Module:
        if unknown := options.keys() - set(known):
            raise TypeError(f"unexpected keyword argument {unknown}")
        if options.get("input_size") == "wrong":
            raise TypeError("a pair of numbers is wanted")
        module = nn.Module()
        vars(module)["told"] = options
        return module

    return make


SIZES = [("image_size", 32), ("input_size", (32, 32))]


@pytest.mark.parametrize(
    ("known", "options", "told"),
    [
        (("image_size", "input_size"), {}, {"image_size": 32}),
        (("input_size", "depth"), {"depth": 2}, {"depth": 2, "input_size": (32, 32)}),
        (("depth",), {"depth": 2}, {"depth": 2}),
        (("image_size",), {"image_size": 8}, {"image_size": 8}),
    ],
)
def test_first_option_that_is_known(known: tuple[str, ...], options: dict[str, Any], told: dict[str, Any]) -> None:
    assert with_image_size(knows(*known), options, SIZES).told == told


def test_other_mistakes_are_told() -> None:
    with pytest.raises(TypeError, match="a pair of numbers"):
        with_image_size(knows("input_size"), {}, [("input_size", "wrong")])
