"""`--record` and `--overwrite`, which several commands have."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class RecordOption(BaseModel):
    record: Path | None = Field(default=None, description="JSON file to keep the record in as well")
    overwrite: bool = Field(default=False, description="replace a record that is there")
