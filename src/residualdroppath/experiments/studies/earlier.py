"""An earlier record of a study: what it holds need not be run again, also where the folder of runs is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from .cache import Cache
from .definition import Study, Values
from .plan import Cell
from .recorded import read_record

Row = dict[str, Any]


class Earlier:
    """Rows of a record by cell; `environments` that they were made in, the last first."""

    def __init__(self, record: Mapping[str, Any]):
        self.environments = [record["environment"], *record.get("earlier", [])]
        self._tuning_seeds = record["definition"]["tune"]["seeds"]
        self._rows = {(row["variant"], row["budget"], _text(row["point"])): row for row in record["rows"]}

    @classmethod
    def read(cls, path: Path, study: Study) -> Earlier:
        """Raises `UserError` for a file that is not a record of this study."""
        record = read_record(path)
        if record["study"] != study.name:
            raise UserError(
                f"`earlier` must be a record of the study {study.name}, got {path} of {record['study']!r}; name a "
                "file that `--record` of this study has written."
            )
        return cls(record)

    def row(self, cell: Cell, study: Study) -> Row | None:
        """What was found for `cell`, if it was tuned as it would be today; its runs may still be others."""
        row = self._rows.get((cell.variant, cell.budget.name, _text(cell.point)))
        if row is None or not row["runs"] or row["chosen"] not in study.tries_of(cell.variant):
            return None
        own = study.variants[cell.variant].tries
        if [each["values"] for each in row["tries"]] != list(own):
            return None
        if own and (list(study.tune.seeds) != self._tuning_seeds or None in map(_validation, row["tries"])):
            return None
        return row


def restore(row: Row, cache: Cache) -> None:
    """Put results of `row` that `cache` lacks into it; a measure that one of them lacks is still to be taken."""
    for run in row["runs"]:
        if cache.result(run["key"]) is None:
            cache.keep_result(run["key"], run)


def _validation(tried: Row) -> float | None:
    return tried["validation_accuracy"]


def _text(point: Values) -> str:
    return json.dumps(point, sort_keys=True)
