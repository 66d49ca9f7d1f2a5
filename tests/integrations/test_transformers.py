"""The callback in the real `Trainer`: the same training as by the two lines in a loop of one's own, and its edges."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.training_args import ParallelMode

from residualdroppath import FrozenParameterMovedError, Options, ResidualDropPath
from residualdroppath.integrations.transformers import (
    STATE_KEY,
    ResidualDropPathCallback,
    finds_unused_parameters,
    require_followable,
)

from .trainers import NUM_UPDATES, assert_same, bert, is_plain, trainer_of, weights

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
    "bf16": {"bf16": True},
    "checkpointed": {"activation_checkpointing": True, "bf16": True, "gradient_accumulation_steps": 2},
}


def uniform(**options: Any) -> ResidualDropPathCallback:
    return ResidualDropPathCallback(0.5, rate_over_depth="uniform", **options)


def rdp_of(callback: ResidualDropPathCallback) -> ResidualDropPath:
    assert callback.rdp is not None
    return callback.rdp


class Watch(TrainerCallback):
    """Around each update: what learned, what was frozen, and that no flag shows it."""

    def __init__(self, callback: ResidualDropPathCallback):
        self.callback = callback
        self.kinds: list[str] = []

    def look(self, model: Any) -> None:
        assert all(parameter.requires_grad for parameter in model.parameters())

    def on_step_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        self.look(model)

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        self.before = weights(model)
        self.learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}

    def on_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        rdp = rdp_of(self.callback)
        frozen = set(rdp.frozen_parameters())
        moved = {name for name, value in weights(model).items() if not torch.equal(value, self.before[name])}
        assert frozen and moved and moved <= self.learning == self.before.keys() - frozen
        self.kinds.append(rdp.kind)
        self.look(model)

    def on_evaluate(self, *_: Any, model: Any = None, **__: Any) -> None:
        self.look(model)
        plain = copy.deepcopy(model)
        assert is_plain(plain) or "_original_forward" in vars(model)  # accelerate's, for mixed precision
        inputs = torch.arange(8)[None]
        with torch.no_grad():
            assert torch.equal(model.eval()(inputs).logits, plain.eval()(inputs).logits)
            plain.classifier.bias += 1  # a copy is a network of its own
            assert not torch.equal(model(inputs).logits, plain(inputs).logits)

    on_save = on_evaluate


def by_hand(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """Weights after the same training by the README's two lines, with batches and optimizer as `Trainer` makes them."""
    trainer = trainer_of(folder, model=bert(dropout=0.0), **changes)
    model: Any = trainer.model
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    trainer.create_optimizer_and_scheduler(NUM_UPDATES)
    optimizer: Any = trainer.optimizer
    scheduler: Any = trainer.lr_scheduler
    accumulated = trainer.args.gradient_accumulation_steps
    batches = [batch for _ in range(2) for batch in trainer.get_train_dataloader()]
    for update in range(NUM_UPDATES):
        model.train()
        for batch in batches[update * accumulated : (update + 1) * accumulated]:
            model(**batch).loss.backward()  # not divided: the model is given the number of items, and takes no notice
        torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        rdp.step()
    return weights(model)


@pytest.mark.parametrize("form", [pytest.param("plain", marks=pytest.mark.full), *list(FORMS)[1:]])
def test_what_is_frozen_stays_and_all_else_learns_in_every_update(form: str, tmp_path: Path) -> None:
    callback = uniform()
    watch = Watch(callback)
    trainer = trainer_of(tmp_path, callback, watch, eval_strategy="steps", eval_steps=1, **FORMS[form])
    trainer.train()
    assert watch.kinds == ["drop_path", "dropped_part"] * (NUM_UPDATES // 2)
    assert len(rdp_of(callback).branches) == 6 and rdp_of(callback).iteration == NUM_UPDATES


@pytest.mark.parametrize("form", [pytest.param("plain", marks=pytest.mark.full), "accumulated"])
def test_the_weights_are_those_of_the_two_lines_in_a_loop_of_ones_own(form: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, uniform(), model=bert(dropout=0.0), **FORMS[form])
    trainer.train()
    expected = by_hand(tmp_path, **FORMS[form])
    for name, value in weights(trainer.model).items():  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_activation_checkpointing_changes_nothing(tmp_path: Path) -> None:
    ends = []
    for on in (False, True):
        trainer = trainer_of(tmp_path, uniform(), activation_checkpointing=on)
        trainer.train()
        ends.append(weights(trainer.model))  # pyright: ignore[reportArgumentType]
    assert_same(*ends)


@pytest.mark.parametrize("form", ["accumulated", pytest.param("bf16", marks=pytest.mark.full)])
def test_rates_of_zero_are_plain_training_bit_for_bit(form: str, tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], [ResidualDropPathCallback(0)]):
        trainer = trainer_of(tmp_path, *callbacks, **FORMS[form])
        trainer.train()
        ends.append(weights(trainer.model))  # pyright: ignore[reportArgumentType]
    assert_same(*ends)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.full),
        pytest.param({"schedule": "random"}, marks=pytest.mark.full),
        {"empty_draw": "plain", "rate_over_time": "decay", "schedule": (2, 1)},
    ],
)
def test_a_resumed_training_ends_with_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    """Dropout, accumulation and AdamW included; the checkpoint is from the middle of a cycle."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2}
    callback = uniform(**options)
    trainer = trainer_of(tmp_path, callback, Watch(callback) if not options else TrainerCallback(), **settings)
    trainer.train()
    checkpoint = tmp_path / "checkpoint-3"
    saved = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"][STATE_KEY]
    assert saved["iteration"] == 3
    callback = uniform(**options)
    resumed = trainer_of(tmp_path, callback, **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert rdp_of(callback).iteration == NUM_UPDATES
    assert_same(weights(trainer.model), weights(resumed.model))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("form", [pytest.param("plain", marks=pytest.mark.full), "bf16"])
def test_a_second_training_begins_anew_and_leaves_the_model_as_it_was(form: str, tmp_path: Path) -> None:
    """The second with the same Trainer, a third with another one over the same model."""
    callback = uniform()
    watch = Watch(callback)
    trainer = trainer_of(tmp_path, callback, watch, **FORMS[form])
    model: Any = trainer.model
    trainer.train()
    forward = model.forward
    trainer.train()
    assert rdp_of(callback).iteration == NUM_UPDATES
    assert model.forward == forward and (form == "bf16" or is_plain(model))
    other = uniform()
    third = Watch(other)
    trainer_of(tmp_path, other, third, model=model, **FORMS[form]).train()
    assert watch.kinds == third.kinds * 2
    assert is_plain(copy.deepcopy(model)) or form == "bf16"


@pytest.mark.parametrize("form", [pytest.param("plain", marks=pytest.mark.full), "bf16"])
def test_a_model_made_by_model_init(form: str, tmp_path: Path) -> None:
    callback = uniform()
    trainer = trainer_of(tmp_path, callback, Watch(callback), model_init=lambda: bert(), **FORMS[form])
    ends = []
    for _ in range(2):
        trainer.train()
        assert rdp_of(callback).model is trainer.model and len(rdp_of(callback).branches) == 6
        ends.append(weights(trainer.model))  # pyright: ignore[reportArgumentType]
    assert_same(*ends)


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    scores = iter([1.0, 3.0, 2.0, 1.0])
    callback = uniform()
    trainer = trainer_of(
        tmp_path,
        callback,
        compute_metrics=lambda _: {"score": next(scores)},
        load_best_model_at_end=True,
        metric_for_best_model="score",
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        max_steps=4,
    )
    trainer.train()
    assert_same(load_file(tmp_path / "checkpoint-2" / "model.safetensors"), weights(trainer.model))  # pyright: ignore
    assert is_plain(trainer.model)  # pyright: ignore[reportArgumentType]


def test_callbacks_that_are_restored_from_a_checkpoint(tmp_path: Path) -> None:
    """`restore_callback_states_from_checkpoint` makes callbacks with a state anew; the options are those given here."""
    settings: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "load_best_model_at_end": True,
        "restore_callback_states_from_checkpoint": True,
    }
    trainer_of(tmp_path, uniform(), EarlyStoppingCallback(5), **settings).train()
    callback = uniform()
    resumed = trainer_of(tmp_path, callback, EarlyStoppingCallback(5), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert rdp_of(callback).iteration == NUM_UPDATES


def test_a_checkpoint_of_the_model_alone_has_the_plan(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3, "save_only_model": True}
    trainer_of(tmp_path, uniform(), **settings).train()
    callback = uniform()
    watch = Watch(callback)
    trainer_of(tmp_path, callback, watch, **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert watch.kinds == ["dropped_part", "drop_path", "dropped_part"]


def test_rates_over_time_follow_the_updates_of_the_training(tmp_path: Path) -> None:
    callback = uniform(rate_over_time="decay")
    trainer_of(tmp_path, callback).train()
    assert rdp_of(callback).options.total_iterations == NUM_UPDATES


def test_a_training_that_was_interrupted_can_begin_again(tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    callback = uniform()
    trainer = trainer_of(tmp_path, callback)
    trainer.add_callback(interrupt := Interrupt())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(interrupt)
    trainer.train()
    assert rdp_of(callback).iteration == NUM_UPDATES and is_plain(trainer.model)  # pyright: ignore


def test_an_optimizer_that_moves_frozen_parameters_is_caught(tmp_path: Path) -> None:
    class Decays(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.mul_(0.9)

    model = bert()
    trainer = trainer_of(tmp_path, uniform(), model=model, optimizers=(Decays(model.parameters(), lr=0.1), None))
    with pytest.raises(FrozenParameterMovedError):
        trainer.train()


def test_options_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match=r"`drop_path_rate` must be in \[0, 1\), got 1.2"):
        ResidualDropPathCallback(1.2)
    with pytest.raises(TypeError, match="no option `rate`"):
        ResidualDropPathCallback(rate=0.1)
    with pytest.raises(TypeError, match="either `options` or keywords"):
        ResidualDropPathCallback(0.1, options=Options())


def test_a_second_callback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Add one ResidualDropPathCallback"):
        trainer_of(tmp_path, uniform(), uniform()).train()
    with pytest.raises(ValueError, match="has a ResidualDropPathCallback already"):
        uniform().add_to(trainer_of(tmp_path, uniform()))


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    trainer_of(tmp_path / "plain", **settings).train()
    with pytest.raises(ValueError, match="step 3 has no plan of ResidualDropPath.*begin a new training"):
        resume_at_3(tmp_path / "plain", uniform())
    trainer_of(tmp_path / "ours", uniform(), save_only_model=True, **settings).train()
    with pytest.raises(ValueError, match="saved with drop_path_rate=0.5, this one has 0.1"):
        resume_at_3(tmp_path / "ours", ResidualDropPathCallback(0.1, rate_over_depth="uniform"))
    with pytest.raises(ValueError, match="saved for 6 branches .* this model has 4"):
        resume_at_3(tmp_path / "ours", uniform(), model=bert(layers=2))


def resume_at_3(folder: Path, callback: TrainerCallback, **changes: Any) -> None:
    trainer_of(folder, callback, **changes).train(resume_from_checkpoint=str(folder / "checkpoint-3"))


def test_a_callback_that_is_added_later_is_refused_in_the_middle_of_training(tmp_path: Path) -> None:
    class AddsLate(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.add_callback(uniform())

    trainer = trainer_of(tmp_path, AddsLate())
    with pytest.raises(RuntimeError, match="before `trainer.train\\(\\)`"):
        trainer.train()


def distributed(**changes: Any) -> Any:
    settings = {
        "parallel_mode": ParallelMode.DISTRIBUTED,
        "ddp_find_unused_parameters": None,
        "activation_checkpointing": False,
        "fsdp": "",
    }
    return SimpleNamespace(**(settings | changes))


def test_when_a_trainer_looks_for_unused_parameters() -> None:
    model = bert()
    assert finds_unused_parameters(distributed(), model)
    assert not finds_unused_parameters(distributed(activation_checkpointing=True), model)
    assert finds_unused_parameters(distributed(activation_checkpointing=True), torch.nn.Linear(1, 1))
    assert finds_unused_parameters(distributed(activation_checkpointing=True, ddp_find_unused_parameters=True), model)
    assert not finds_unused_parameters(distributed(ddp_find_unused_parameters=False), model)
    assert finds_unused_parameters(distributed(ddp_find_unused_parameters=False, fsdp="full_shard"), model)
    one = distributed(ddp_find_unused_parameters=False, parallel_mode=ParallelMode.NOT_PARALLEL)
    assert finds_unused_parameters(one, model)
    model.activation_checkpointing_enable()
    assert not finds_unused_parameters(distributed(), model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_gpu": 2}, "torchrun --nproc-per-node 2"),
        ({"deepspeed": "zero.json"}, "use DDP"),
        ({"ddp_static_graph": True}, "`ddp_static_graph=True`"),
    ],
)
def test_forms_of_training_that_cannot_follow_a_plan_are_refused(change: dict[str, Any], message: str) -> None:
    fitting = {"n_gpu": 1, "deepspeed": None, "ddp_static_graph": None}
    require_followable(SimpleNamespace(**fitting))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=message):
        require_followable(SimpleNamespace(**(fitting | change)))  # pyright: ignore[reportArgumentType]


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, while compiling
def test_torch_compile(tmp_path: Path) -> None:
    ends = []
    for changes in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        trainer = trainer_of(tmp_path, uniform(), model=bert(layers=2, dropout=0.0), max_steps=4, **changes)
        trainer.train()
        trainer.train()
        ends.append(weights(trainer.model))  # pyright: ignore[reportArgumentType]
    assert_same(*ends)
