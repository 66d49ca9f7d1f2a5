"""What is measured on one network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Result:
    """`measures` and `skipped` by name; `unit_maps`: |r| between the units of each layer, ordered by likeness."""

    layers: list[str]
    branches: list[str]
    measures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unit_maps: list[np.ndarray] = field(default_factory=list)
