"""The signature of the classes that take options by name, which their `__init__` has as `**keywords`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from .options import Options


def signature_with(options: Iterable[dataclasses.Field[Any]]) -> inspect.Signature:
    """What `help()` and editors show: options, declared in `Options` alone; the first may be given by position."""
    by_name, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter("model", by_name, annotation=nn.Module),
            *(
                inspect.Parameter(
                    each.name,
                    by_name if place == 0 else keyword,
                    default=getattr(Options(), each.name),
                    annotation=each.type,
                )
                for place, each in enumerate(options)
            ),
            inspect.Parameter("example", keyword, default=None, annotation=Any),
            inspect.Parameter("options", keyword, default=None, annotation=Options | None),
        ]
    )
