"""Averaged weights, the best ones, and norms measured anew: what a run ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from residualdroppath.errors import UserError
from residualdroppath.models.classifier import Classifier
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training import making
from residualdroppath.training.checkpoints import Checkpoints
from residualdroppath.training.final import final_network
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.run_folder import RunFolder
from residualdroppath.training.trainer import Trainer

from .tiny_runs import metrics, tiny


def trainer_of(**options: Any) -> Trainer:
    config = tiny(**options)
    return Trainer(config, load_config_data(config))


@pytest.mark.parametrize("method", ["plain", "residual_drop_path"])
def test_average_over_every_update(method: str) -> None:
    """Of frozen parameters too, which stay while others move."""
    of = trainer_of(method=method, drop_path_rate=0.5, ema=0.75)
    expected: dict[str, Tensor] = {}
    for epoch in (1, 2):
        for images, labels in of.batches(epoch):
            of.train_iteration(images, labels)
            now = {name: value.double() for name, value in of.model.state_dict().items()}
            expected = {name: 0.75 * expected[name] + 0.25 * now[name] for name in now} if expected else now
    found = of.ema.module.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if found[name].is_floating_point():
            torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)
    assert of.iteration == 6 and not torch.equal(found["head.weight"], of.model.state_dict()["head.weight"])


def test_decay_rises_in_warmup() -> None:
    decays = [trainer_of(ema=0.9, ema_warmup=True).ema.get_decay(step) for step in (1, 2, 5, 1000)]
    assert decays == sorted(decays) and decays[0] == 0 and 0 < decays[1] < 0.9 and decays[-1] == 0.9


def test_average_is_validated_kept_and_used(tmp_path: Path) -> None:
    config = tiny(ema=0.5, drop_path_rate=0.5)
    last = train(config, tmp_path / "last")
    used = train(config.model_copy(update={"use": "ema"}), tmp_path / "used")
    rows = metrics(tmp_path / "last")
    assert rows == metrics(tmp_path / "used") and "ema_validation_loss" in rows[0]
    assert used["validation_accuracy"] == rows[-1]["ema_validation_accuracy"] and used["weights"] == "ema"
    assert last["validation_accuracy"] == rows[-1]["validation_accuracy"] and last["weights"] == "last"
    assert last["test_loss"] != used["test_loss"]
    average, others = (load_file(tmp_path / "last" / name) for name in ("ema.safetensors", "model.safetensors"))
    found = load_file(tmp_path / "used/model.safetensors")
    assert all(map(torch.equal, average.values(), found.values()))
    assert not all(map(torch.equal, average.values(), others.values()))
    assert not (tmp_path / "used/ema.safetensors").exists()


def test_best_weights_are_those_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, accuracies = Trainer.evaluate, iter([0.3, 0.9, 0.2, 0.9])

    def scored(self: Trainer, split: Any, *model: nn.Module) -> Any:
        scores = evaluate(self, split, *model)
        return scores._replace(accuracy=next(accuracies)) if split is self.data.validation and not model else scores

    saved: dict[int, dict[str, Tensor]] = {}
    save = Checkpoints.save

    def noted(self: Checkpoints, weights: dict[str, Tensor], state: Any, **rest: Any) -> None:
        saved[state["epoch"]] = {name: value.clone() for name, value in weights.items()}
        save(self, weights, state, **rest)

    monkeypatch.setattr(Trainer, "evaluate", scored)
    monkeypatch.setattr(Checkpoints, "save", noted)
    result = train(tiny(epochs=4, use="best", keep_checkpoints=1, drop_path_rate=0.5), tmp_path)
    assert (result["best_epoch"], result["best_validation_accuracy"], result["weights"]) == (2, 0.9, "best")
    found = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in saved[2].items())
    assert not torch.equal(found["head.weight"], saved[4]["head.weight"])
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_best_checkpoint_that_is_damaged(tmp_path: Path) -> None:
    of, folder = trainer_of(use="best"), RunFolder(tmp_path)
    tmp_path.joinpath("checkpoints").mkdir()
    with pytest.raises(UserError, match="holds no checkpoint with a validation accuracy"):
        final_network(of, folder)
    folder.checkpoints.save(of.model.state_dict(), of.state_dict(), accuracy=0.5)
    next((tmp_path / "checkpoints").glob("*.safetensors")).write_bytes(b"nothing")
    with pytest.raises(UserError, match="The best checkpoint, .* is damaged"):
        final_network(of, folder)


def with_cumulative_norms(*args: Any, **kwargs: Any) -> Classifier:
    """By whose momentum nobody sees that they are measured anew."""
    model = SmallResNet(8, 4, in_channels=1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    return Classifier(model, 1)


@pytest.mark.parametrize(("use", "cumulative"), [("last", False), ("ema", False), ("last", True)])
def test_norms_are_those_of_the_full_network(
    tmp_path: Path, use: str, cumulative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means over the batches of what a network without the method sees in training mode."""
    if cumulative:
        monkeypatch.setattr(making, "make_classifier", with_cumulative_norms)
    of = trainer_of(use=use, ema=0.9, recalibrate_norms=2, drop_path_rate=0.9, width=4)
    of.train_epoch(1, lambda *progress: None)
    of.train_iteration(*next(of.batches(2)))
    assert of.rdp is not None and of.kind == "drop_path" and of.rdp.plan.dropped  # in training it would act
    plan = of.rdp.plan
    source = of.ema.module if use == "ema" else of.model
    by_hand = SmallResNet(8, 4, in_channels=1)
    by_hand.load_state_dict(source.state_dict())
    weights = {name: parameter.clone() for name, parameter in source.named_parameters()}
    model = final_network(of, RunFolder(tmp_path))
    images = [batch for batch, _ in of.batches(of.epochs + 1)][:2]
    norms = [module for module in by_hand.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    by_hand.train()
    with torch.no_grad():
        for batch in images:
            by_hand(batch)
    assert len(images) == 2 and norms
    for name, buffer in by_hand.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer, msg=name)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())
    assert of.rdp.plan == plan and not model.training


def test_more_batches_than_an_epoch_has() -> None:
    of = trainer_of(recalibrate_norms=7)
    final_network(of, RunFolder(Path("nowhere")))
    counted = of.model.state_dict()
    assert {int(value) for name, value in counted.items() if name.endswith("num_batches_tracked")} == {7}


def test_networks_without_batch_norms_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "make_classifier", lambda *_, **__: Classifier(nn.Sequential(nn.Linear(8, 10)), 1))
    with pytest.raises(UserError, match="`recalibrate_norms` must be 0: small_resnet has no batch norms"):
        trainer_of(recalibrate_norms=1, method="plain")


@pytest.mark.parametrize("options", [{"use": "ema"}, {"ema_warmup": True}])
def test_average_that_is_not_made(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs an average: give its decay, `ema`"):
        tiny(**options)
