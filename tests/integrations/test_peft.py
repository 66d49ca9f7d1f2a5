"""LoRA first, then ResidualDroppath: adapters follow the plan, what peft froze stays frozen, adapters resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from residualdroppath.integrations.transformers import ResidualDropPathCallback

from .trainers import NUM_UPDATES, assert_same, bert, trainer_of, weights


def adapted() -> Any:
    config = LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["classifier"])
    return get_peft_model(bert(), config)


class Watch(TrainerCallback):
    """Which parameters have a gradient in each update, against the plan."""

    def __init__(self, callback: ResidualDropPathCallback):
        self.callback = callback
        self.num_seen = 0

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        rdp: Any = self.callback.rdp
        with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert with_gradient and all("lora_" in name or "modules_to_save" in name for name in with_gradient)
        learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert with_gradient == learns - set(rdp.frozen_parameters()) < learns
        self.num_seen += 1


def test_adapters_train_by_the_plan_and_resume_with_the_same_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    callback = ResidualDropPathCallback(0.5, rate_over_depth="uniform")
    watch = Watch(callback)
    model = adapted()
    before = weights(model)
    trainer_of(tmp_path, callback, watch, model=model, **settings).train()
    assert watch.num_seen == NUM_UPDATES and callback.rdp is not None and len(callback.rdp.branches) == 6
    moved = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)
    resumed = adapted()
    again = trainer_of(tmp_path, ResidualDropPathCallback(0.5, rate_over_depth="uniform"), model=resumed, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_same(weights(model), weights(resumed))
