"""`--record` and `--overwrite`, which several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from ..records.files import write_record
from ..records.outputs import may_replace, require_record


class RecordOption(BaseModel):
    record: Path | None = Field(default=None, description="JSON file to keep the record in as well")
    overwrite: bool = Field(default=False, description="replace a record that is there")

    def keeper(
        self, *folders: Path, own: Callable[[Any], bool] = lambda record: False
    ) -> Callable[[dict[str, Any]], None]:
        """What keeps the record at the end, if that is wanted.

        Raises `UserError` if it could not be kept, or would be in one of the command's own `folders`. A record that is
        `own` may be replaced, at the end as now.
        """
        path, overwrite = self.record, self.overwrite
        if path is None:
            return lambda record: None
        require_record(path, overwrite=overwrite, own=own, outside=folders)
        return lambda record: write_record(path, record, new=not may_replace(path, overwrite=overwrite, own=own))
