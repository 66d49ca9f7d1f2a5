"""Whether a run may be made longer: only where nothing that is done depends on how long it was to be."""

from __future__ import annotations

from typing import TypeVar

from .recipe import MAY_CHANGE, Recipe, TrainConfig

R = TypeVar("R", bound=Recipe)


def depends_on_length(config: TrainConfig) -> list[str]:
    """What of a recipe goes by the length of the training, with the value at which it would not."""
    found = []
    if config.iterations is not None:
        found.append("`iterations` (in place of `epochs`)")
    if config.lr_over_time in ("cosine", "poly"):
        found.append(f"`lr_over_time` {config.lr_over_time} (not constant)")
    if config.warmup and config.warmup_iterations is None:
        found.append(f"`warmup` {config.warmup:g} (not 0)")
    rates = config.options(seed=0, total_iterations=1).rate_over_time
    if config.method != "plain" and rates not in (None, "constant"):
        found.append(f"`rate_over_time` {rates} (not constant)")
    return found


def changed(stored: R, config: R) -> dict[str, str]:
    """By option what differs between two recipes, in words, but for what may change when a run is resumed."""
    theirs, ours = stored.located().model_dump(), config.located().model_dump()
    return {
        name: f"{name} ({theirs[name]} there, {ours[name]} now)"
        for name in ours
        if name not in MAY_CHANGE and ours[name] != theirs[name]
    }


def differences(stored: TrainConfig, config: TrainConfig) -> list[str]:
    """Why `config` cannot go on with a run of `stored`; empty if it can, for more epochs too."""
    found = changed(stored, config)
    if config.epochs > stored.epochs and found.keys() == {"epochs"}:
        reasons = depends_on_length(config)
        return [f"{found['epochs']}, and the run cannot be made longer: it goes by {', '.join(reasons)}"] * bool(
            reasons
        )
    return list(found.values())
