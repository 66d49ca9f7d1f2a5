"""Contract 6: whoever looks at a model between its forwards, in any iteration, sees a plain one.

Libraries are the real ones where they are light.
"""

from __future__ import annotations

import copy
import inspect
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint

from residualdroppath import ResidualDropPath

from .stepping import assert_close, assert_equal, buffers_of, forward_backward, gradients_of, parameters_of
from .tiny_models import BY_NAME, TRUNK, TinyModel, some_models

KINDS = {"drop_path": 0, "dropped_part": 1}
in_each_kind = pytest.mark.parametrize("steps", KINDS.values(), ids=KINDS.keys())
typical_models = some_models("timm_basic", "two_adds", "timm_vit")


def under(tiny: TinyModel, steps: int, **options: Any) -> tuple[nn.Module, ResidualDropPath]:
    """A model in an iteration, after a forward and backward in each before it and in it."""
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    for iteration in range(steps):
        forward_backward(model, tiny.inputs(seed=iteration))
        model.zero_grad()
        rdp.step()
    forward_backward(model, tiny.inputs(seed=steps))
    return model, rdp


def all_learn(model: nn.Module) -> bool:
    return all(parameter.requires_grad for parameter in model.parameters())


def learning(model: nn.Module) -> set[str]:
    return {name for name, gradient in gradients_of(model).items() if gradient is not None}


def expected_to_learn(tiny: TinyModel, model: nn.Module, rdp: ResidualDropPath) -> set[str]:
    owners = tiny.owners(model)
    if rdp.kind == "drop_path":
        return {name for name, owner in owners.items() if owner not in rdp.plan.dropped}
    return {name for name, owner in owners.items() if owner in rdp.plan.dropped}


@typical_models
@in_each_kind
@pytest.mark.parametrize("freeze", ["parameters", "stop_gradient"])
def test_flags_are_the_users_before_and_after_a_forward(tiny: TinyModel, steps: int, freeze: str) -> None:
    model, rdp = under(tiny, steps, freeze=freeze)
    assert all_learn(model)
    assert learning(model) == expected_to_learn(tiny, model, rdp)


@typical_models
@in_each_kind
def test_flags_are_the_users_after_a_forward_that_raises(tiny: TinyModel, steps: int) -> None:
    model, rdp = under(tiny, steps)
    model.zero_grad()
    with pytest.raises(Exception):  # noqa: B017  (what a model raises for nonsense is its own)
        model("nonsense")
    assert all_learn(model)
    forward_backward(model, tiny.inputs())
    assert learning(model) == expected_to_learn(tiny, model, rdp)


@typical_models
@in_each_kind
def test_a_model_saved_or_copied_trains_all_of_itself(tiny: TinyModel, steps: int) -> None:
    model, _ = under(tiny, steps)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    averaged = AveragedModel(model).module
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False), averaged):
        twin.zero_grad()
        forward_backward(twin.train(), tiny.inputs())
        assert learning(twin) == {name for name, _ in twin.named_parameters()}


@typical_models
@in_each_kind
def test_copies_of_both_are_a_working_pair(tiny: TinyModel, steps: int) -> None:
    model, rdp = under(tiny, steps)
    twin, twin_rdp = copy.deepcopy((model, rdp))
    assert twin_rdp.model is twin and twin_rdp.plan == rdp.plan
    for _ in range(3):
        traces = []
        for m, r in ((model, rdp), (twin, twin_rdp)):
            m.zero_grad()
            traces.append(forward_backward(m, tiny.inputs()))
            r.step()
        assert_equal(traces[0].output, traces[1].output, "output")
        assert_equal(traces[0].gradients, traces[1].gradients, "gradients")


@in_each_kind
def test_an_optimizer_of_what_requires_a_gradient_holds_everything(steps: int) -> None:
    from timm.optim._optim_factory import create_optimizer_v2

    model, _ = under(BY_NAME["timm_basic"], steps)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=0.1)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters()}


@typical_models
@in_each_kind
def test_flags_toggled_as_gans_do_are_the_users(tiny: TinyModel, steps: int) -> None:
    model, rdp = under(tiny, steps)
    model.requires_grad_(False)
    model.zero_grad()
    inputs = tiny.inputs().requires_grad_()
    model(inputs).sum().backward()  # the generator's turn: a gradient of inputs alone
    assert learning(model) == set() and inputs.grad is not None
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.requires_grad_(True)
    forward_backward(model, tiny.inputs())
    assert all_learn(model)
    assert learning(model) == expected_to_learn(tiny, model, rdp) != set()


@typical_models
@in_each_kind
def test_what_the_user_freezes_in_mid_cycle_counts_from_the_next_forward(tiny: TinyModel, steps: int) -> None:
    model, rdp = under(tiny, steps)
    frozen = next(iter(tiny.branches))  # one branch as a whole, and the first parameter of the trunk
    owners = tiny.owners(model)
    trunk = next(name for name, owner in owners.items() if owner == TRUNK)
    names = {name for name, owner in owners.items() if owner == frozen} | {trunk}
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    for _ in range(4):
        model.zero_grad()
        forward_backward(model, tiny.inputs())
        assert frozen not in rdp.plan.dropped  # nothing in it could learn what it missed
        assert learning(model) == expected_to_learn(tiny, model, rdp) - names
        assert {name for name, p in model.named_parameters() if not p.requires_grad} == names
        rdp.step()
    for name in names:
        model.get_parameter(name).requires_grad_(True)
    model.zero_grad()
    forward_backward(model, tiny.inputs())
    assert learning(model) == expected_to_learn(tiny, model, rdp)


@in_each_kind
def test_adapters_that_are_added_later_follow_the_plan(steps: int) -> None:
    from peft import LoraConfig, get_peft_model

    tiny = BY_NAME["timm_vit"]
    model, rdp = under(tiny, steps)
    model.zero_grad()
    adapted = get_peft_model(model, LoraConfig(target_modules=["qkv", "fc1"], init_lora_weights=False))  # pyright: ignore
    adapted.double()
    flags = {name: parameter.requires_grad for name, parameter in adapted.named_parameters()}
    for _ in range(4):
        adapted.zero_grad()
        adapted.train()(tiny.inputs()).square().sum().backward()
        names = {n.removeprefix("base_model.model.") for n, p in adapted.named_parameters() if p.grad is not None}
        adapters = {branch for branch in tiny.branches if any(name.startswith(f"{branch}.") for name in names)}
        learns = rdp.plan.kept if rdp.kind == "drop_path" else rdp.plan.dropped
        assert adapters == set(learns) and all("lora_" in name for name in names)
        assert {name: parameter.requires_grad for name, parameter in adapted.named_parameters()} == flags
        rdp.step()


@some_models("timm_basic", "timm_bottleneck_d")
@pytest.mark.parametrize("frozen_norm", ["update", "batch", "running"])
def test_norms_are_recalibrated_on_the_full_network(tiny: TinyModel, frozen_norm: str) -> None:
    """`update_bn` runs the model in training mode: that is no training iteration."""
    for steps in KINDS.values():
        model, rdp = under(tiny, steps, frozen_norm=frozen_norm)
        plain = copy.deepcopy(model)
        batches = [tiny.inputs(seed=seed) for seed in range(3)]
        for network in (model, plain):
            update_bn(batches, network)
        assert_equal(buffers_of(model), buffers_of(plain), "buffers")
        model.zero_grad()
        forward_backward(model, tiny.inputs())  # back under the plan
        assert learning(model) == expected_to_learn(tiny, model, rdp)


class ReadsFromAfar(nn.Module):
    """A stem whose weight the head reads too, and a function under a checkpoint that reads a parameter itself."""

    def __init__(self, *, checkpoints: bool = False):
        super().__init__()
        self.checkpoints = checkpoints
        self.stem = nn.Linear(6, 6, bias=False)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)) for _ in range(3)])
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.blocks[0](x)
        x = x + self.blocks[1](x)
        x = x + self.blocks[2](x)
        scaled = lambda x: torch.tanh(x * self.scale) * self.scale  # noqa: E731
        x = checkpoint(scaled, x, use_reentrant=False) if self.checkpoints else scaled(x)  # pyright: ignore
        return nn.functional.linear(x, self.stem.weight)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_parameters_that_are_read_outside_of_their_module_are_frozen(checkpoints: bool) -> None:
    torch.manual_seed(0)
    models = [ReadsFromAfar(checkpoints=c).double() for c in (checkpoints, False)]
    models[1].load_state_dict(models[0].state_dict())
    rdps = [ResidualDropPath(model, 0.5, rate_over_depth="uniform") for model in models]
    inputs = torch.randn(4, 6, dtype=torch.float64)
    for iteration in range(4):
        for model, rdp in zip(models, rdps, strict=True):
            model.zero_grad()
            model(inputs).square().sum().backward()
            assert all_learn(model)
            found = {name for name in learning(model) if not name.startswith("blocks")}
            assert found == ({"stem.weight", "scale"} if iteration % 2 == 0 else set())
            rdp.step()
        assert_close_gradients(*models)


def test_a_checkpoint_recomputes_what_its_forward_saw_whatever_the_plan_is_then() -> None:
    """`step()` between a forward and its backward, or a pause, changes nothing that runs again."""
    torch.manual_seed(0)
    model = ReadsFromAfar(checkpoints=True).double()
    inputs = torch.randn(4, 6, dtype=torch.float64)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    for change in (rdp.step, lambda: rdp.load_state_dict({**rdp.state_dict(), "iteration": 3})):
        expected = copy.deepcopy(rdp)
        expected.model.zero_grad()
        expected.model(inputs).square().sum().backward()
        model.zero_grad()
        loss = model(inputs).square().sum()
        change()
        loss.backward()
        assert_close_gradients(model, expected.model)
    with rdp.paused():
        loss = model(inputs).square().sum()
    model.zero_grad()
    loss.backward()
    assert learning(model) == {name for name, _ in model.named_parameters()}


def assert_close_gradients(model: nn.Module, other: nn.Module) -> None:
    others = gradients_of(other)
    for name, gradient in gradients_of(model).items():
        expected = others[name]
        assert (gradient is None) == (expected is None), name
        if gradient is not None and expected is not None:
            assert_close(gradient, expected, name)


@some_models("two_adds")
def test_submodules_called_alone_follow_the_plan(tiny: TinyModel) -> None:
    model, rdp = under(tiny, 1)
    model.zero_grad()
    whole = forward_backward(model, tiny.inputs()).gradients
    model.zero_grad()
    x = model.get_submodule("stem")(tiny.inputs())
    assert not x.requires_grad  # frozen, as in the whole
    for index in range(3):
        x = model.get_submodule(f"blocks.{index}")(x)
        assert all_learn(model)
    output = model.get_submodule("head")(x)
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view_as(output)
    ((weights * output).sum() + output.square().mean()).backward()
    assert_equal(gradients_of(model), whole, "gradients")
    assert rdp.kind == "dropped_part"


@some_models("two_adds")
def test_two_forwards_before_one_backward(tiny: TinyModel) -> None:
    model, rdp = under(tiny, 1)
    model.zero_grad()
    loss = model(tiny.inputs(seed=1)).square().sum() + model(tiny.inputs(seed=2)).square().sum()
    assert all_learn(model)
    loss.backward()
    together = gradients_of(model)
    model.zero_grad()
    for seed in (1, 2):
        model(tiny.inputs(seed=seed)).square().sum().backward()
    for name, gradient in gradients_of(model).items():
        assert (gradient is None) == (together[name] is None)
        if gradient is not None:
            assert_close(gradient, together[name], name)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        model(tiny.inputs())
    assert all_learn(model)
    assert learning(model) == expected_to_learn(tiny, model, rdp)


class Waits(nn.Module):
    """A stack whose forwards wait for each other in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.barrier: threading.Barrier | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        if self.barrier is not None:
            self.barrier.wait(30)
        return self.head(x + self.second(x))


@pytest.mark.parametrize("leaves_first", [0, 1])
def test_flags_in_threads_that_overlap(leaves_first: int) -> None:
    """The forward of one thread ends while that of another is in its middle."""
    torch.manual_seed(0)
    model = Waits()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    learn = {f"{branch.block and name}.{kind}" for branch in rdp.branches for kind in ("weight", "bias")
             for name in [branch.name] if branch.name in rdp.plan.dropped}  # fmt: skip
    inside, may_end = threading.Event(), threading.Event()
    outputs: dict[str, Tensor] = {}

    class Middle:
        def wait(self, timeout: float) -> None:
            if threading.current_thread().name == "slow":
                inside.set()
                assert may_end.wait(timeout)

    model.barrier = Middle()  # pyright: ignore[reportAttributeAccessIssue]

    def run(name: str) -> None:
        outputs[name] = model(torch.ones(2, 5))

    slow = threading.Thread(target=run, args=("slow",), name="slow")
    slow.start()
    assert inside.wait(30)
    run("fast")  # begins and ends while the other is in its middle
    may_end.set()
    slow.join()
    assert all_learn(model)
    for name in ("slow", "fast") if leaves_first else ("fast", "slow"):
        model.zero_grad()
        outputs[name].sum().backward()
        assert learning(model) == learn


@contextmanager
def counting(module: nn.Module) -> Iterator[list[int]]:
    calls: list[int] = []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


@in_each_kind
def test_checkpoints_of_torch_restore_the_state_of_every_parameter(steps: int, tmp_path: Any) -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    tiny = BY_NAME["two_adds"]
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    for iteration in range(4 + steps):
        forward_backward(model, tiny.inputs(seed=iteration))
        optimizer.step()
        optimizer.zero_grad()
        rdp.step()
    saved = get_optimizer_state_dict(model, optimizer)
    second = tiny.build()
    second_rdp = ResidualDropPath(second, 0.5, rate_over_depth="uniform")
    second_rdp.load_state_dict(rdp.state_dict())
    loaded = SGD(second.parameters(), lr=0.01, momentum=0.9)
    set_optimizer_state_dict(second, loaded, saved)
    names = [name for name, _ in model.named_parameters()]
    assert len(loaded.state) == len(optimizer.state) == len(names)
    for own, other in zip(model.parameters(), second.parameters(), strict=True):
        assert_equal(optimizer.state[own], loaded.state[other], "state")


def test_accelerate_prepares_and_unwraps_in_any_iteration() -> None:
    from accelerate import Accelerator

    tiny = BY_NAME["timm_basic"]
    for steps in KINDS.values():
        model, rdp = under(tiny, steps)
        model.zero_grad()
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        sgd: Any = SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
        assert len(sgd.param_groups[0]["params"]) == len(list(model.parameters()))
        prepared, optimizer = accelerator.prepare(model, sgd)  # pyright: ignore[reportAssignmentType]
        accelerator.backward(prepared(tiny.inputs()).square().sum())
        assert learning(model) == expected_to_learn(tiny, model, rdp)
        optimizer.step()
        assert accelerator.unwrap_model(prepared, keep_fp32_wrapper=False) is model
        model.zero_grad()
        rdp.step()
        forward_backward(model, tiny.inputs())
        assert learning(model) == expected_to_learn(tiny, model, rdp)


class Residual(nn.Module):
    def __init__(self, *, found_by_call: bool):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.found_by_call = found_by_call

    def forward(self, x: Tensor) -> Tensor:
        out = x + self.layer(x)
        return out.nan_to_num() if self.found_by_call and not torch.isfinite(out).all() else out


def test_a_copy_of_a_model_that_accelerate_prepared_is_a_model_of_its_own() -> None:
    from accelerate import Accelerator

    model = nn.Sequential(Residual(found_by_call=False), Residual(found_by_call=False))
    signature = inspect.signature(model.forward)
    ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    prepared: Any = Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
    assert inspect.signature(prepared.forward) == signature
    copied = copy.deepcopy(prepared)
    for network in (model, copied):
        network.eval()
    inputs = torch.ones(1, 4)
    with torch.no_grad():
        assert torch.equal(copied(inputs), model(inputs))
        copied[0].layer.bias += 1
        assert not torch.equal(copied(inputs), model(inputs))


def test_a_forward_under_autocast_is_entered_once() -> None:
    """A function that autocast decorates has one context: entered again from within, it would leave it switched on."""
    model = nn.Sequential(Residual(found_by_call=False), Residual(found_by_call=True))
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
    for _ in range(2):
        model(torch.ones(1, 4))
        assert not torch.is_autocast_enabled("cpu")
        rdp.step()
    assert len(rdp.branches) == 2


def test_a_trainer_of_transformers_that_trains_twice(tmp_path: Any) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
        )
    )
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            rdp.step()

    data = [{"pixel_values": torch.randn(3, 8, 8), "labels": index % 2} for index in range(20)]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=5, per_device_train_batch_size=4, use_cpu=True, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    counts = []
    for _ in range(2):  # the second begins after five updates, in a dropped_part iteration
        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[Steps()])  # pyright: ignore
        before = parameters_of(model)
        trainer.train()
        optimizer: Any = trainer.optimizer
        counts.append(sum(len(group["params"]) for group in optimizer.param_groups))
        moved = [name for name, value in parameters_of(model).items() if not torch.equal(value, before[name])]
        assert len(moved) == len(before)
    assert counts == [len(list(model.parameters()))] * 2
    assert rdp.iteration == 10 and rdp.kind == "drop_path"
    assert all_learn(model)
