"""Rates over depth or of the model, changed by patterns over names: values by hand, then every combination."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest

from residualdroppath.core.planning.rates import as_drop_rates, as_patterns, branch_rates, check_rate

NAMES = ("stem.0", "blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp")
BLOCKS = (0, 1, 1, 2, 2)


def rates(drop_path_rate: Any = 0.4, rate_over_depth: Any = "linear", **options: Any) -> tuple[float, ...]:
    return branch_rates(NAMES, BLOCKS, drop_path_rate, rate_over_depth, **options)


def test_without_patterns_rates_are_those_over_depth() -> None:
    assert rates() == (0.0, 0.2, 0.2, 0.4, 0.4)
    assert rates(rate_over_depth="uniform") == (0.4,) * 5
    assert rates(0) == (0.0,) * 5


def test_rates_of_the_model_take_the_place_of_those_over_depth() -> None:
    own = (0.0, 0.1, 0.0, 0.3, 0.7)
    assert rates(model_rates=own) == own
    assert rates(0, model_rates=list(own), exclude="*.mlp") == (0.0, 0.1, 0.0, 0.3, 0.0)
    assert rates(model_rates=own, drop_rates={"blocks.1.*": 0.5}) == (0.0, 0.1, 0.0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": "*.attn"}, (0, 0.2, 0, 0.4, 0)),
        ({"include": ("*.attn",)}, (0, 0.2, 0, 0.4, 0)),
        ({"include": ["stem.*", "blocks.1.mlp"]}, (0, 0, 0, 0, 0.4)),
        ({"include": ()}, (0, 0.2, 0.2, 0.4, 0.4)),
        ({"exclude": "blocks.1.*"}, (0, 0.2, 0.2, 0, 0)),  # the last block still counts for the depth
        ({"exclude": ["*.0", "*.attn"]}, (0, 0, 0.2, 0, 0.4)),
        ({"include": "blocks.*", "exclude": "*.mlp"}, (0, 0.2, 0, 0.4, 0)),
        ({"drop_rates": {"stem.0": 0.9}}, (0.9, 0.2, 0.2, 0.4, 0.4)),
        ({"drop_rates": {"*": 0.1}}, (0.1,) * 5),
        ({"drop_rates": {"*": 0.1, "*.mlp": 0.5}}, (0.1, 0.1, 0.5, 0.1, 0.5)),
        ({"drop_rates": {"*.mlp": 0.5, "*": 0.1}}, (0.1,) * 5),  # the last pattern that matches
        ({"drop_rates": {"*.mlp": 0}}, (0, 0.2, 0, 0.4, 0)),
        ({"drop_rates": {"*": 0}}, (0,) * 5),  # plain training, as asked for
        ({"drop_rates": {"*.mlp": 0.5}, "include": "*.attn"}, (0, 0.2, 0.5, 0.4, 0.5)),  # wins over `include`
        ({"drop_rates": {"*": 0.5}, "exclude": "*.mlp"}, (0.5, 0.5, 0, 0.5, 0)),  # `exclude` wins over it
        ({"drop_rates": {"blocks.?.[am]*": 0.5}}, (0, 0.5, 0.5, 0.5, 0.5)),
        ({"drop_rates": {"blocks.[!0].*": 0.5}}, (0, 0.2, 0.2, 0.5, 0.5)),
    ],
    ids=str,
)
def test_patterns(options: dict[str, Any], expected: tuple[float, ...]) -> None:
    assert rates(**options) == expected
    assert all(type(rate) is float for rate in rates(**options))


def test_every_combination_of_patterns_follows_the_order_of_precedence() -> None:
    """Excluded, else set, else not included, else over depth."""
    patterns = ("stem.0", "blocks.0.*", "*.mlp")
    subsets = [s for size in range(4) for s in itertools.combinations(patterns, size)]
    values = [
        OrderedDict(zip(order, (0.1, 0.6, 0.9), strict=False)) for s in subsets for order in itertools.permutations(s)
    ]
    base = rates(rate_over_depth="uniform")
    for include, exclude, drop_rates in itertools.product(subsets, subsets, values):
        expected = []
        for name, rate in zip(NAMES, base, strict=True):
            matches = [own for pattern, own in drop_rates.items() if fnmatchcase(name, pattern)]
            if any(fnmatchcase(name, pattern) for pattern in exclude):
                expected.append(0.0)
            elif matches:
                expected.append(matches[-1])
            elif include and not any(fnmatchcase(name, pattern) for pattern in include):
                expected.append(0.0)
            else:
                expected.append(rate)
        given = {"include": include, "exclude": exclude, "drop_rates": drop_rates}
        if any(expected) or drop_rates:
            assert rates(rate_over_depth="uniform", **given) == tuple(expected), given
        else:
            with pytest.raises(ValueError, match="leave no branch with a rate above 0"):
                rates(rate_over_depth="uniform", **given)


@pytest.mark.parametrize("argument", ["include", "exclude", "drop_rates"])
def test_a_pattern_that_matches_no_branch_is_an_error_with_close_names(argument: str) -> None:
    give = lambda pattern: {argument: {pattern: 0.1} if argument == "drop_rates" else ["stem.0", pattern]}  # noqa: E731
    with pytest.raises(ValueError) as raised:
        rates(**give("block.1.attn"))
    message = str(raised.value)
    for part in (f"`{argument}`", "got 'block.1.attn'", "none of 5", "close names: blocks.1.attn, ", "`print(rdp)`"):
        assert part in message
    for pattern in ("BLOCKS.*", "blocks", ".attn"):  # case counts, and the whole name
        with pytest.raises(ValueError, match="matches none of 5"):
            rates(**give(pattern))
    with pytest.raises(ValueError, match=r"names are stem.0, blocks.0.attn, blocks.0.mlp, \.\.\."):
        rates(**give("zzz*"))


INVALID_RATES = [1, 1.0, 1.2, -0.1, float("nan"), float("inf"), True, False, "0.1", None, [0.1], 1j]


@pytest.mark.parametrize("rate", INVALID_RATES, ids=repr)
def test_invalid_rates(rate: Any) -> None:
    for name, give in {
        "drop_path_rate": lambda: rates(rate),
        "drop_rates['*.mlp']": lambda: rates(drop_rates={"*": 0.1, "*.mlp": rate}),
        "model_rates[1]": lambda: rates(model_rates=(0.1, rate, 0.1, 0.1, 0.1)),
    }.items():
        with pytest.raises(ValueError) as raised:
            give()
        message = str(raised.value)
        assert f"`{name}` must be in [0, 1), got {rate!r}; use 0 for never." == message


@pytest.mark.parametrize("rate", [0, 0.0, 0.999, np.float32(0.5), np.float64(0.5), np.int64(0)], ids=repr)
def test_valid_rates_become_plain_floats(rate: Any) -> None:
    assert check_rate("rate", rate) == float(rate)
    assert type(check_rate("rate", rate)) is float
    assert type(as_drop_rates({"*": rate})["*"]) is float


@pytest.mark.parametrize("value", ["*", 0.1, [("*", 0.1)], {"*"}, True], ids=repr)
def test_drop_rates_must_be_a_mapping(value: Any) -> None:
    with pytest.raises(ValueError) as raised:
        as_drop_rates(value)
    assert "`drop_rates` must map patterns" in str(raised.value) and f"got {value!r}" in str(raised.value)


@pytest.mark.parametrize("pattern", [0, "", None, ("*",), b"*"], ids=repr)
def test_patterns_must_be_strings(pattern: Any) -> None:
    for argument, give in {
        "drop_rates": lambda: as_drop_rates({"*": 0.1, pattern: 0.1}),
        "include": lambda: as_patterns("include", ["*", pattern]),
        "exclude": lambda: as_patterns("exclude", ("*", pattern)),
    }.items():
        with pytest.raises(ValueError) as raised:
            give()
        assert f"`{argument}` must hold patterns" in str(raised.value) and f"got {pattern!r}" in str(raised.value)


@pytest.mark.parametrize("value", [None, 0, True, {"*": 0.1}, {"*"}], ids=repr)
def test_include_and_exclude_must_be_sequences(value: Any) -> None:
    with pytest.raises(ValueError) as raised:
        as_patterns("include", value)
    assert "`include` must be a pattern" in str(raised.value) and f"got {value!r}" in str(raised.value)


def test_a_frozen_dataclass_can_check_and_normalise_before_the_model_is_known() -> None:
    @dataclass(frozen=True)
    class Options:
        drop_rates: Any = None
        include: Any = ()

        def __post_init__(self) -> None:
            object.__setattr__(self, "drop_rates", as_drop_rates(self.drop_rates))
            object.__setattr__(self, "include", as_patterns("include", self.include))

    assert Options() == Options({}, []) == Options(None, ())
    given = {"*.mlp": 0, "*": 0.5}
    options = Options(given, "*.attn")
    assert options == Options({"*.mlp": 0.0, "*": 0.5}, ["*.attn"])
    assert list(options.drop_rates) == ["*.mlp", "*"] and options.include == ("*.attn",)
    given["*"] = 0.9
    assert options.drop_rates["*"] == 0.5
    with pytest.raises(ValueError):
        Options({"*": 1.0})


def test_model_rates_are_one_a_branch() -> None:
    with pytest.raises(ValueError, match=r"`model_rates` must hold one rate a branch, 5, got 4"):
        rates(model_rates=(0.1,) * 4)


def test_patterns_that_leave_nothing_to_drop_are_an_error_unless_rates_are_set() -> None:
    with pytest.raises(ValueError) as raised:
        rates(include="stem.*")  # the first block, of rate 0
    for part in ("include=('stem.*',)", "exclude=()", "rate_over_depth='linear'", "drop_path_rate=0"):
        assert part in str(raised.value)
    with pytest.raises(ValueError, match="no branch with a rate above 0"):
        rates(exclude="*")
    assert rates(0, exclude="*", include="stem.0") == (0.0,) * 5
    assert rates(include="stem.*", drop_rates={"stem.*": 0.3}) == (0.3, 0, 0, 0, 0)
