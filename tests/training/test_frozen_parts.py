"""Parts that do not learn: which, what stays as it was, and that the method goes on working around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from residualdroppath.errors import UserError
from residualdroppath.training.preview import preview
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer

from .test_resume import equal
from .tiny_runs import final_state, interrupted, tiny

METHODS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "drop_path": {"method": "drop_path"},
    "parameters": {},
    "stop_gradient": {"freeze": "stop_gradient"},
    "norms": {"frozen_norm": "batch", "schedule": (2, 1), "trains": "union"},
    "drop_path_effective": {"method": "drop_path_effective"},
    "fp16": {"amp": "fp16"},
}


def trainer_of(*patterns: str, **options: Any) -> Trainer:
    config = tiny(
        **{"drop_path_rate": 0.5, "rate_over_depth": "uniform", "epochs": 4, "freeze_modules": patterns, **options}
    )
    return Trainer(config, load_config_data(config))


def changed(trainer: Trainer, epochs: int = 2) -> set[str]:
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for epoch in range(1, epochs + 1):
        trainer.train_epoch(epoch, lambda *progress: None)
    now: dict[str, Tensor] = trainer.model.state_dict()
    return {name for name in now if not torch.equal(now[name], before[name])}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_frozen_stays_and_all_else_learns(method: str) -> None:
    """Whole branches are frozen, running statistics with them, in each kind of iteration."""
    trainer = trainer_of("stem", "blocks.0", **METHODS[method])
    names = set(trainer.model.state_dict())
    assert changed(trainer, 4) == {name for name in names if not name.startswith(("stem.", "blocks.0."))}
    if trainer.rdp is not None:  # where dropped branches are to learn, one that cannot is not dropped
        rates = [branch.drop_rate for branch in trainer.rdp.branches]
        assert (rates[0] == 0) == (method != "drop_path")
        assert rates[1] > 0 and rates[2] > 0


def test_all_branches() -> None:
    """Nothing is dropped then, and all iterations are plain."""
    trainer = trainer_of("blocks")
    names = set(trainer.model.state_dict())
    assert changed(trainer, 1) == {name for name in names if not name.startswith("blocks.")}
    assert trainer.rdp is not None and not any(branch.drop_rate for branch in trainer.rdp.branches)


def test_a_part_of_a_branch() -> None:
    """The branch is dropped and trained as before, without that part."""
    trainer = trainer_of("*.conv1", "blocks.2.bn2.weight")
    assert trainer.rdp is not None and all(branch.drop_rate for branch in trainer.rdp.branches)
    names = set(trainer.model.state_dict())
    assert changed(trainer, 4) == {name for name in names if ".conv1." not in name and name != "blocks.2.bn2.weight"}


def test_parameters_of_a_transformer() -> None:
    trainer = trainer_of(
        "patch_embed", "pos_embed", "blocks.0*", method="plain", image_size=8, lr=0.01,
        model="vit_tiny_patch16_224", model_options={"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3},
    )  # fmt: skip
    moved = changed(trainer, 1)
    assert "cls_token" in moved and not {name for name in moved if name.startswith(("patch_embed", "pos_", "blocks.0"))}


def test_it_is_said() -> None:
    trainer = trainer_of("stem")
    assert "frozen: 22 of 1,384 parameters, 1 norms in evaluation mode" in preview(trainer)
    assert not any(line.startswith("frozen") for line in preview(trainer_of()))


@pytest.mark.parametrize("options", [{}, {"schedule": "random"}, {"schedule": (3, 2), "trains": "union"}], ids=str)
def test_without_a_branch_that_learns_all_iterations_are_plain_and_that_is_said(options: dict[str, Any]) -> None:
    trainer, plain = trainer_of("blocks.*", **options), trainer_of("blocks.*", method="plain")
    assert (
        "method: residual_drop_path, 3 residual branches, none with a drop rate above 0: all iterations are plain ones"
        in preview(trainer)
    )
    assert changed(trainer) == changed(plain) and trainer.trunk_updates == trainer.iteration
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, plain.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (("steem",), "'steem', which matches none; did you mean stem or "),
        (("stem", "layer9.*"), "'layer9.*', which matches none"),
        (("*",), "leaves nothing that learns"),
        (("stem", "head", "blocks.*.downsample"), "must leave something outside of residual branches that learns"),
    ],
)
def test_patterns_that_do_not_go(patterns: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError) as error:
        trainer_of(*patterns)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(drop_path_rate=0.5, freeze_modules=("stem", "blocks.0"), epochs=3)
    train(config, tmp_path / "whole")
    interrupted(config, tmp_path / "cut", monkeypatch, after=2)
    train(config, tmp_path / "cut", resume=True)
    assert equal(final_state(tmp_path / "whole"), final_state(tmp_path / "cut"))
