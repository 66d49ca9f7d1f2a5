"""The data of a study's recipes, and the keys of their runs and costs in the cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...data.images import ImageData
from ...training.recipe import TrainConfig
from ...training.run import request_of
from .cache import canonical, cost_key, fingerprint, run_key
from .definition import Study, Values
from .trial import load, source


@dataclass
class Keys:
    """Data are read from the base's `data_dir`; what several recipes use is read once."""

    study: Study
    _fingerprints: dict[Any, str] = field(default_factory=dict)

    def data(self, config: TrainConfig) -> ImageData:
        base = self.study.plain({})
        return load(config, base.data_dir, base.download)

    def run(self, config: TrainConfig) -> str:
        """Of a canonical recipe."""
        return run_key(config, self._fingerprint(config))

    def cost(self, config: TrainConfig, point: Values, threads: int) -> str | None:
        """Of the cost of `config` in plain training's at `point`; None where the two are the same."""
        plain = canonical(self.study.plain(point))
        key, unit = (cost_key(each, plain, threads, self._fingerprint(each)) for each in (canonical(config), plain))
        return None if key == unit else key

    def _fingerprint(self, config: TrainConfig) -> str:
        base = self.study.plain({})
        request = request_of(config.model_copy(update={"data_dir": base.data_dir, "download": base.download}))
        if request not in self._fingerprints:
            self._fingerprints[request] = fingerprint(source(request))
        return self._fingerprints[request]
