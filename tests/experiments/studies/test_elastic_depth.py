"""Elastic depth: accuracies without branches, by whom they are chosen, and that the test images are not asked first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath import prune
from residualdroppath.experiments.studies.elastic_depth import elastic_depth
from residualdroppath.experiments.studies.figures import pictures
from residualdroppath.experiments.studies.table import elastic_head, elastic_rows
from residualdroppath.records.files import read_json
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data
from residualdroppath.training.trainer import Trainer

from .tiny_studies import BASE, Inline, answer, study

RECIPE = {**BASE, "depth": 14, "width": 4}  # six branches


def trained() -> Trainer:
    config = TrainConfig.model_validate({**RECIPE, "epochs": 8, "method": "drop_path", "drop_path_rate": 0.3})
    trainer = Trainer(config, load_config_data(config))
    for epoch in range(1, 9):
        trainer.train_epoch(epoch, lambda *_: None)
    return trainer


def test_accuracies_are_those_of_pruned_networks() -> None:
    trainer = trained()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    found = elastic_depth(trainer)
    assert found["branches"] == 6 and len(found["random"]) == len(found["chosen"]) == len(found["worst"]) == 3
    assert found["whole"] == pytest.approx(trainer.evaluate(trainer.data.test)[1])
    for how in ("chosen", "worst"):
        names = found[f"{how}_branches"]
        assert len(set(names)) == 3
        for size in (1, 3):
            trainer_of_pruned = Trainer(trainer.config, trainer.data)
            trainer_of_pruned.model = prune(trainer.model, names[:size])
            assert found[how][size - 1] == pytest.approx(trainer_of_pruned.evaluate(trainer.data.test)[1])
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


def test_branches_are_picked_on_validation_images_alone() -> None:
    trainer = trained()
    found = elastic_depth(trainer)
    validation = []
    for name in [branch.name for branch in trainer.rdp.branches] if trainer.rdp else []:
        alone = Trainer(trainer.config, trainer.data)
        alone.model = prune(trainer.model, [name])
        validation.append((alone.evaluate(trainer.data.validation)[1], name))
    accuracy = dict((name, value) for value, name in validation)
    assert accuracy[found["chosen_branches"][0]] == max(accuracy.values())
    assert accuracy[found["worst_branches"][0]] == min(accuracy.values())


def test_a_study_measures_each_tested_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{elastic_depth.__module__}.TEST_IMAGES", 100)
    base: dict[str, Any] = {"base": RECIPE}
    answer(study(**base), tmp_path, Inline())
    engine = Inline()
    record = answer(study(**base, measures=["elastic_depth"]), tmp_path, engine)
    assert len(engine.trials) == 4  # networks that were there are measured, not trained again
    plain, ours = record["rows"]
    assert plain["elastic_depth"]["half_minus_plain"] == {}
    difference = ours["elastic_depth"]["half_minus_plain"]["random"]
    own = [read_json(tmp_path / run["key"] / "elastic_depth.json")["random"][-1] for run in ours["runs"]]
    files = [read_json(tmp_path / run["key"] / "elastic_depth.json") for run in plain["runs"]]
    its = [each["random"][-1] for each in files]
    assert difference["n"] == 2 and difference["mean"] == pytest.approx((sum(own) - sum(its)) / 2)
    whole = plain["elastic_depth"]["whole"]["mean"]  # over the images of the rest of the curve
    assert whole == pytest.approx(sum(each["whole"] for each in files) / 2) != plain["test_accuracy"]["mean"]
    assert elastic_head(record)[1] == "whole (%), 100 test images"
    assert elastic_rows(record)[0][1].startswith(f"{100 * whole:.2f} ")
    titles = [picture.title for picture in pictures({**record, "file": "tiny.yaml"})]
    assert len([title for title in titles if title.startswith("Without branches")]) == 3
    again = Inline()
    answer(study(**base, measures=["elastic_depth"]), tmp_path, again)
    assert again.trials == []
