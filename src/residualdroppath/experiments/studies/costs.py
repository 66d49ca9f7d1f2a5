"""What an iteration of each recipe of a study costs in plain ones: from the cache, from a record, or timed now."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ...training.recipe import TrainConfig
from ..compare.cost import Cost, measure_against
from .cache import Cache, canonical
from .keys import Keys
from .plan import Cell
from .progress import StudyProgress

ROUNDS = 96  # of timing
OF_PLAIN = Cost(1.0, 1.0, 0)


@dataclass
class Costs:
    """`threads`: of a trial. With `may_time` False nothing is ever timed."""

    keys: Keys
    cache: Cache
    threads: int
    may_time: bool
    progress: StudyProgress
    _known: dict[str, Cost] = field(default_factory=dict)

    def of(self, cell: Cell, config: TrainConfig, *, time: bool = False) -> Cost | None:
        """The cost of an iteration; None where it is not known and is not to be timed."""
        key = self.keys.cost(config, cell.point, self.threads)
        if key is None:
            return OF_PLAIN
        if key not in self._known:
            found = self.cache.cost(key)
            if found is None and time and self.may_time:
                found = self._timed(cell, config)
                self.cache.keep_cost(key, found)
            if found is not None:
                self._known[key] = found
        return self._known.get(key)

    def keep(self, cell: Cell, config: TrainConfig, recorded: dict[str, float] | None) -> bool:
        """Put a cost of a record into the cache; False where another was measured here."""
        key = self.keys.cost(config, cell.point, self.threads)
        if key is None or recorded is None:
            return True
        found = self.cache.cost(key)
        if found is None:
            self.cache.keep_cost(key, Cost(recorded["per_iteration"], recorded["per_cycle"], 0))
        return found is None or found.per_iteration == recorded["per_iteration"]

    def _timed(self, cell: Cell, config: TrainConfig) -> Cost:
        self.progress.say(f"timing {cell.variant} against plain training")
        torch.set_num_threads(self.threads)
        plain = canonical(self.keys.study.plain(cell.point))
        contenders = {"ours": canonical(config)}
        return measure_against(plain, contenders, lambda own: self.keys.data(own).decoded(), rounds=ROUNDS)["ours"]
