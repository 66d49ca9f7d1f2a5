"""Feature reuse as a measure of studies: each number by the analysis it comes from, and where it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from residualdroppath import prune
from residualdroppath.analysis.capture import capture
from residualdroppath.analysis.units import reuse
from residualdroppath.experiments.studies.elastic_depth import elastic_depth
from residualdroppath.experiments.studies.measured import branches_of
from residualdroppath.experiments.studies.page import write_study_page
from residualdroppath.experiments.studies.reuse import feature_reuse
from residualdroppath.experiments.studies.reuse_names import QUANTITIES
from residualdroppath.experiments.studies.statistics import summary
from residualdroppath.experiments.studies.table import reuse_head, reuse_rows
from residualdroppath.records.files import read_json
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data
from residualdroppath.training.trainer import Trainer

from .tiny_studies import BASE, Inline, answer, study


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    config = TrainConfig.model_validate({**BASE, "depth": 8, "width": 4, "epochs": 4, "method": "plain"})
    trainer = Trainer(config, load_config_data(config))
    for epoch in range(1, 5):
        trainer.train_epoch(epoch, lambda *_: None)
    return trainer


def test_numbers_are_those_of_the_analysis(trainer: Trainer) -> None:
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    elastic_depth(trainer)  # one measure leaves nothing behind for the next
    found = feature_reuse(trainer)
    assert found.keys() == QUANTITIES.keys() and all(np.isfinite(list(found.values())))
    split = trainer.data.test
    images, labels = next(split.batches([torch.arange(len(split))]))
    with branches_of(trainer) as rdp:
        features = capture(rdp, [(trainer.prepare(images), labels)])
        names = [branch.name for branch in rdp.branches]
    assert found["reuse"] == pytest.approx(reuse(features.streams).mean(), abs=1e-5)
    accuracies = []
    for name in names:
        alone = Trainer(trainer.config, trainer.data)
        alone.model = prune(trainer.model, [name])
        accuracies.append(alone.evaluate(split)[1])
    assert found["loss by deletion"] == pytest.approx(trainer.evaluate(split)[1] - np.mean(accuracies))
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


def test_a_network_whose_branches_add_nothing_keeps_all_features(trainer: Trainer) -> None:
    twin = Trainer(trainer.config, trainer.data)
    twin.model.load_state_dict(trainer.model.state_dict())
    with branches_of(twin) as rdp:
        for branch in rdp.branches:
            torch.nn.init.zeros_(branch.block.get_submodule("bn2").get_parameter("weight"))
            torch.nn.init.zeros_(branch.block.get_submodule("bn2").get_parameter("bias"))
    found = feature_reuse(twin)
    assert found["recreated"] == 0.0 and found["reuse"] > feature_reuse(trainer)["reuse"]
    assert found["loss by deletion"] == pytest.approx(0.0, abs=1e-6)


def test_a_study_compares_reuse_and_ranks_it_with_accuracy(tmp_path: Path) -> None:
    variants: dict[str, Any] = {"plain": {"method": "plain"}}
    variants |= {f"rate {rate}": {"method": "residual_drop_path", "drop_path_rate": rate} for rate in (0.2, 0.4, 0.6)}
    record = answer(study(measures=["feature_reuse"], variants=variants), tmp_path, Inline())
    plain, ours = record["rows"][:2]
    kept = [[read_json(tmp_path / run["key"] / "feature_reuse.json") for run in row["runs"]] for row in (plain, ours)]
    expected = summary([own["reuse"] - its["reuse"] for own, its in zip(kept[1], kept[0], strict=True)])
    found = ours["feature_reuse"]["reuse"]["minus_plain"]
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert "minus_plain" not in plain["feature_reuse"]["reuse"]
    assert record["reuse_and_accuracy"]["readable"]["n"] == 4
    rows = reuse_rows(record)
    assert len(rows) == 5 and all(len(row) == len(reuse_head(record)) for row in rows)
    page = write_study_page({**record, "file": "tiny.yaml"}, tmp_path / "index.html").read_text()
    assert "Feature reuse" in page and QUANTITIES["recreated"] in page
