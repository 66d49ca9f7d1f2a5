"""Options of the method as fields of recipes and commands, built from those of `core.options.Options`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import Field

from ..core.options import Options

OPTIONS = {field.name: field for field in fields(Options)}
OF_THE_RUN = ("total_iterations", "seed")  # these follow from the rest of a recipe
DEFAULTS: dict[str, Any] = {"rate_over_time": "constant"}  # by its name: in Python None means the same


def option(name: str, **other: Any) -> Any:
    """The pydantic field of one option: its default and description, and what else is given, such as bounds."""
    own = OPTIONS[name]
    field: dict[str, Any] = {"description": own.metadata["description"]}
    if own.default_factory is not MISSING:
        field["default_factory"] = own.default_factory
    else:
        field["default"] = DEFAULTS.get(name, own.default)
    return Field(**{**field, **other})


def option_fields() -> dict[str, Any]:
    """Types and fields of all options that a recipe holds, for `pydantic.create_model`."""
    hints = get_type_hints(Options)
    return {name: (_writable(name, hints[name]), option(name)) for name in OPTIONS if name not in OF_THE_RUN}


def _writable(name: str, hint: Any) -> Any:
    """The type without functions, which no file can hold, and without None where a name means the same."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kept = [part for part in get_args(hint) if get_origin(part) is not Callable]
    return Union[tuple(part for part in kept if part is not NoneType or name not in DEFAULTS)]  # noqa: UP007
