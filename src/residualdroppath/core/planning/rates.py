"""Nominal rates of branches: over depth or the model's own, then by patterns over their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..options import RateOverDepth, as_drop_rates, as_patterns, check_rate
from .plan import rates_over_depth


def branch_rates(
    names: Sequence[str],
    block_of_branch: Sequence[int],
    drop_path_rate: float,
    rate_over_depth: RateOverDepth,
    *,
    model_rates: Sequence[float] | None = None,
    drop_rates: Mapping[str, float] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> tuple[float, ...]:
    """The nominal rate of each branch.

    Patterns are those of `fnmatch` over whole names, case-sensitive; `*` also matches dots. Excluded branches
    count for the depth, so the rates of the others stay what they are without `include` and `exclude`.

    Args:
        names: of the branches, in order of execution.
        block_of_branch: the index of each branch's block, in order of execution.
        drop_path_rate, rate_over_depth: the rates before patterns, see `rates_over_depth`.
        model_rates: one rate for each branch in the place of those over depth.
        drop_rates: by pattern, the rate of the branches that match; the last one that matches counts.
        include: if given, branches that match none of these patterns, nor one of `drop_rates`, get 0.
        exclude: branches that match one of these patterns get 0, whatever the other arguments say.

    Raises:
        ValueError: a pattern that matches no branch, an invalid rate, or no branch left with a rate above 0.
    """
    by_pattern = as_drop_rates(drop_rates)
    included, excluded = as_patterns("include", include), as_patterns("exclude", exclude)
    for argument, patterns in (("drop_rates", by_pattern), ("include", included), ("exclude", excluded)):
        _check_matches(argument, patterns, names)
    if model_rates is None:
        base = rates_over_depth(block_of_branch, check_rate("drop_path_rate", drop_path_rate), rate_over_depth)
    elif len(model_rates) == len(names):
        base = tuple(check_rate(f"model_rates[{i}]", rate) for i, rate in enumerate(model_rates))
    else:
        raise ValueError(f"`model_rates` must hold one rate a branch, {len(names)}, got {len(model_rates)}.")

    rates = []
    for name, rate in zip(names, base, strict=True):
        if included and not _matches(name, included):
            rate = 0.0
        rate = next((own for pattern, own in reversed(by_pattern.items()) if fnmatchcase(name, pattern)), rate)
        rates.append(0.0 if _matches(name, excluded) else rate)
    if any(base) and not any(rates) and not by_pattern:
        raise ValueError(
            f"`include` and `exclude` leave no branch with a rate above 0 (got include={included!r}, "
            f"exclude={excluded!r}, rate_over_depth={rate_over_depth!r}); give other patterns, set rates by "
            "`drop_rates={pattern: rate}`, or use drop_path_rate=0 for plain training."
        )
    return tuple(rates)


def _check_matches(argument: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = get_close_matches(pattern, names, cutoff=0.5)
            few = f"close names: {', '.join(close)}" if close else f"names are {', '.join(names[:3])}, ..."
            raise ValueError(
                f"`{argument}` must hold patterns that match branches, got {pattern!r}, which matches none of "
                f"{len(names)} ({few}); `print(rdp)` lists all names."
            )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
