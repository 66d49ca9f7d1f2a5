"""Paths as a person writes them."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError


def expanded(path: Path | str) -> Path:
    """`path` with a folder of a user in place of `~` or `~user` at its start. Raises `UserError` if there is none."""
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise UserError(f"{found} begins with the name of no user; write ./{found} for a folder of that name.")
    return Path(found)
