"""`DropPath`: stochastic depth alone, without computing what is dropped."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from .options import OF_DROPPED_PART, Options
from .residual_drop_path import ResidualDropPath
from .signature import signature_with

ALONE = (1, 0)
NOT_HERE = ("schedule", *OF_DROPPED_PART)


class DropPath(ResidualDropPath):
    """Drop path (stochastic depth, arXiv 1603.09382) for any residual network; dropped branches do not run.

    `ResidualDropPath` with `schedule=(1, 0)`: every iteration drops random residual branches and trains the rest.
    Layers such as timm's `DropPath` compute each branch and multiply rows by 0, so they save nothing. This one decides
    for the whole batch and skips the branch, forward and backward.

        >>> drop_path = DropPath(model, 0.2)
        >>> for images, labels in loader:
        ...     criterion(model(images), labels).backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     drop_path.step()

    Args:
        model: any network with residual branches. Drop path of its own is switched off; `drop_path_rate="model"`
            keeps its rates.
        drop_path_rate: the largest drop rate, in [0, 1).
        options: all options at once; their schedule must be `(1, 0)`.
        example: a batch as the model is called with; see `ResidualDropPath`.
        keywords: the options of `ResidualDropPath` but for those of `dropped_part` iterations. Rates of single
            branches are `drop_rates={"layer4.*": 0.3}`. `granularity="sample"` drops row by row, as timm's layer
            does: only rows kept are computed, and where a branch has batch norm, nothing is saved.

    Raises:
        NoResidualBranchError: no residual branch was found.
        TypeError: an option of `dropped_part` iterations, or an unknown one.
        ValueError: an option outside its allowed values.
    """

    def __init__(
        self,
        model: nn.Module,
        drop_path_rate: Any = None,
        *,
        options: Options | None = None,
        example: Any = None,
        **keywords: Any,
    ):
        if given := [name for name in NOT_HERE if name in keywords]:
            raise TypeError(
                f"DropPath has no option `{given[0]}`: it has no `dropped_part` iterations. Leave it out, or use "
                "ResidualDropPath."
            )
        if isinstance(options, Options) and options.schedule != ALONE:
            raise ValueError(
                f"`options.schedule` must be {ALONE} for DropPath, got {options.schedule!r}; use ResidualDropPath."
            )
        if drop_path_rate is not None:
            keywords["drop_path_rate"] = drop_path_rate
        if options is None:
            keywords["schedule"] = ALONE
            if keywords.get("granularity") == "sample":
                keywords["freeze"] = "stop_gradient"  # what row by row goes with; without effect here
        super().__init__(model, options=options, example=example, **keywords)


DropPath.__signature__ = signature_with(  # pyright: ignore[reportAttributeAccessIssue]
    field for field in dataclasses.fields(Options) if field.name not in NOT_HERE
)
