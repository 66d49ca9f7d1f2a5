"""Activation checkpointing: the non-reentrant kind changes nothing, the reentrant one is refused."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
import torch
from timm.layers.config import set_reentrant_ckpt, use_reentrant_ckpt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, set_checkpoint_early_stop

from residualdroppath import NoResidualBranchError, ResidualDropPath, register_block
from residualdroppath.core.discovery import registry

from .stepping import Trace, assert_close, assert_equal, buffers_of, forward_backward, loss_of, sgd_step
from .tiny_blocks import WIDTH, DropoutInside, LayerScale, OwnAdd, Projection, Stack, TwoAdds
from .tiny_models import BY_NAME, TinyModel

HIDDEN = 8
SURE = 1 - 1e-9  # a drop rate that drops every branch
REFUSAL = r"use_reentrant=False\)`; for Hugging Face models `model\.gradient_checkpointing_enable\("


class HfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scores = self.query(hidden_states) @ self.key(hidden_states).transpose(1, 2)
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = scores.softmax(-1)
        return weights @ self.value(hidden_states), weights


class HfBlock(nn.Module):
    """The layer itself; `_gradient_checkpointing_func` is set from outside."""

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self.input_norm, self.output_norm = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.attention = HfAttention()
        self.mlp = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.Dropout(0.3), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        attended, _ = self.attention(self.input_norm(hidden_states), attention_mask=attention_mask)
        hidden_states = hidden_states + attended
        return (hidden_states + self.mlp(self.output_norm(hidden_states)),)


class HfCallLayer(HfBlock):
    """Checkpointed in `__call__`, as in transformers 4."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(partial(super().__call__, **kwargs), *args)
        return super().__call__(*args, **kwargs)


def with_checkpointing(forward: Callable[..., Any]) -> Any:
    @functools.wraps(forward)
    def checkpointed(self: HfBlock, *args: Any, **kwargs: Any) -> Any:
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(partial(forward, self, **kwargs), *args)
        return forward(self, *args, **kwargs)

    return checkpointed


class HfForwardLayer(HfBlock):
    """Checkpointed in a `forward` that the base class has wrapped, as in transformers 5."""

    forward = with_checkpointing(HfBlock.forward)


class HfModel(nn.Module):
    """Embedding, three layers that are given a mask, head."""

    def __init__(self, layer: type[HfBlock], *, model_checkpoints: bool = False):
        super().__init__()
        self.embed = nn.Linear(5, HIDDEN)
        self.layers = nn.ModuleList(layer() for _ in range(3))
        self.head = nn.Linear(HIDDEN, 3)
        self.model_checkpoints = model_checkpoints  # itself, layer by layer, as the oldest models do
        self.checkpoint: Callable[..., Any] = lambda layer, *args: layer(*args)

    def forward(self, x: Tensor) -> Tensor:
        mask = x.sum(-1).cos()[:, None, :]
        hidden_states = self.embed(x)
        for layer in self.layers:
            (hidden_states,) = self.checkpoint(layer.__call__, hidden_states, mask)
        return self.head(hidden_states)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any]) -> None:
        function = partial(checkpoint, **gradient_checkpointing_kwargs)
        if self.model_checkpoints:
            self.checkpoint = function
        else:
            for layer in self.layers:
                layer = cast(HfBlock, layer)
                layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, function


class SequentialStack(Stack):
    """Runs its blocks by `checkpoint_sequential` when told so; the last segment runs as it is."""

    use_reentrant: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.use_reentrant is None:
            return self.head(self.blocks(x))
        return self.head(checkpoint_sequential(self.blocks, 2, x, use_reentrant=self.use_reentrant))


class Checkpointed(nn.Module):
    """A child that checkpoints what it holds."""

    use_reentrant: bool | None = None

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if self.use_reentrant is None:
            return self.inner(x)
        return checkpoint(self.inner, x, use_reentrant=self.use_reentrant)


class InsideTheBranch(Projection):
    """A child of the branch is checkpointed, and the projection on the shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = Checkpointed(self.fc1)
        self.shortcut = Checkpointed(self.shortcut)


class WholeBranch(OwnAdd):
    def __init__(self) -> None:
        super().__init__()
        self.branch = Checkpointed(self.branch)


class InItsOwnForward(TwoAdds):
    """The block itself checkpoints a child."""

    use_reentrant: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        if self.use_reentrant is None:
            return x + self.mlp(self.norm2(x))
        return x + checkpoint(self.mlp, self.norm2(x), use_reentrant=self.use_reentrant)


@dataclass(frozen=True)
class Case:
    """A model and its own way to switch checkpointing on."""

    tiny: TinyModel
    enable: Callable[[nn.Module, bool], None]  # of the model and `use_reentrant`


def enable_timm(model: Any, use_reentrant: bool) -> None:
    set_reentrant_ckpt(use_reentrant)  # put back after each test
    model.set_grad_checkpointing(True)


def enable_huggingface(model: Any, use_reentrant: bool) -> None:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})


def enable_own(model: nn.Module, use_reentrant: bool) -> None:
    for module in model.modules():
        if hasattr(module, "use_reentrant"):
            module.use_reentrant = use_reentrant  # pyright: ignore


def case(name: str, make: Callable[[], nn.Module], enable: Callable[[Any, bool], None], *shape: int) -> Case:
    return Case(TinyModel(name, make, {}, input_shape=shape or (5,)), enable)


AROUND_BLOCKS = [
    Case(BY_NAME["timm_basic"], enable_timm),
    Case(BY_NAME["timm_bottleneck_d"], enable_timm),
    Case(BY_NAME["timm_vit"], enable_timm),
    Case(BY_NAME["timm_vit_dropout"], enable_timm),
    case("hf_call", partial(HfModel, HfCallLayer), enable_huggingface, 4, 5),
    case("hf_model", partial(HfModel, HfBlock, model_checkpoints=True), enable_huggingface, 4, 5),
    case("sequential", partial(SequentialStack, OwnAdd), enable_own),
    case("sequential_dropout", partial(SequentialStack, DropoutInside), enable_own),
]
HF_FORWARD = case("hf_forward", partial(HfModel, HfForwardLayer), enable_huggingface, 4, 5)
LOST_IN_TRACING = [HF_FORWARD, case("in_its_own_forward", partial(Stack, InItsOwnForward), enable_own)]
INSIDE_BLOCKS = [
    *LOST_IN_TRACING,
    case("inside_the_branch", partial(Stack, InsideTheBranch), enable_own),
    case("whole_branch", partial(Stack, WholeBranch), enable_own),
]
CASES = AROUND_BLOCKS + INSIDE_BLOCKS
OPTIONS: dict[str, dict[str, Any]] = {
    "parameters": {"freeze": "parameters"},
    "stop_gradient": {"freeze": "stop_gradient"},
    "norm_running": {"freeze": "parameters", "frozen_norm": "running"},
    "norm_batch": {"freeze": "stop_gradient", "frozen_norm": "batch"},
    "sample": {"freeze": "stop_gradient", "granularity": "sample"},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
both_freezes = pytest.mark.parametrize("freeze", ["parameters", "stop_gradient"])


def of_cases(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.tiny.name)


@pytest.fixture(autouse=True)
def timm_setting_restored() -> Iterator[None]:
    before = use_reentrant_ckpt()
    yield
    set_reentrant_ckpt(before)


@contextmanager
def calls_counted(model: nn.Module) -> Iterator[Counter[str]]:
    """How often each layer without children runs."""
    calls: Counter[str] = Counter()
    handles = [
        module.register_forward_pre_hook(lambda module, args, name=name: calls.update([name]))
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
    ]
    yield calls
    for handle in handles:
        handle.remove()


def counted_iteration(model: nn.Module, inputs: Tensor, seed: int) -> tuple[Trace, Counter[str]]:
    with calls_counted(model) as calls:
        return forward_backward(model, inputs, seed=seed), calls


@of_cases(CASES)
@every_option
@pytest.mark.pairs
def test_everything_equals_what_it_is_without_checkpointing(case: Case, options: dict[str, Any]) -> None:
    model, other = case.tiny.build(), case.tiny.build()
    rdps = [ResidualDropPath(m, 0.5, rate_over_depth="uniform", seed=2, **options) for m in (model, other)]
    case.enable(model, False)
    kinds, num_run_again = set(), 0
    for iteration in range(4):
        kinds.add(rdps[0].kind)
        other.load_state_dict(model.state_dict())  # running statistics count what is run again, in PyTorch too
        inputs = case.tiny.inputs(seed=iteration)
        actual, calls = counted_iteration(model, inputs, seed=iteration)
        expected, expected_calls = counted_iteration(other, inputs, seed=iteration)
        num_run_again += (calls - expected_calls).total()
        assert_equal(actual.output, expected.output, "output")
        assert [name for name, g in actual.gradients.items() if (g is None) != (expected.gradients[name] is None)] == []
        for name, gradient in expected.gradients.items():
            assert_equal(actual.gradients[name], gradient, name)
        for m, rdp in zip((model, other), rdps, strict=True):
            sgd_step(m)
            rdp.step()
    assert kinds == {"drop_path", "dropped_part"}
    assert num_run_again > 0 or case in LOST_IN_TRACING  # else nothing was checkpointed


@of_cases(AROUND_BLOCKS)
@both_freezes
@pytest.mark.pairs
def test_what_is_checkpointed_runs_again_as_it_ran(case: Case, freeze: Any) -> None:
    """Under the plan of its forward: no branch is dropped anew, whatever the random generators say by then."""
    model = case.tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze=freeze, seed=2)
    case.enable(model, False)
    blocks = {branch.block for branch in rdp.branches}
    in_blocks = [f"{name}." for name, module in model.named_modules() if module in blocks]
    if isinstance(model, SequentialStack):
        in_blocks = in_blocks[:1]  # the first segment
    for iteration in range(4):
        plan = rdp.plan
        inputs = case.tiny.inputs(seed=iteration)
        with calls_counted(model) as calls, set_checkpoint_early_stop(False):
            loss = loss_of(model(inputs))
            first = Counter(dict(calls))
            torch.rand(7)
            loss.backward()
        again = calls - first
        assert rdp.plan is plan
        expected = Counter({name: count for name, count in first.items() if name.startswith(tuple(in_blocks))})
        dropped = {name for branch in rdp.branches if branch.name in plan.dropped for name in _layers_of(branch, model)}
        if plan.kind == "drop_path":
            assert again == expected
            assert dropped.isdisjoint(again)
        else:  # what lies below the first dropped branch keeps no graph, so it is not run again
            assert again.keys() <= expected.keys()
            assert all(again[name] == expected[name] for name in again)
            if not isinstance(model, SequentialStack):
                assert dropped <= again.keys()
        model.zero_grad()
        rdp.step()


def _layers_of(branch: Any, model: nn.Module) -> set[str]:
    names = {module: name for name, module in model.named_modules()}
    return {names[slot.module] for slot in branch.slots if not any(True for _ in slot.module.children())}


@pytest.mark.parametrize("frozen_norm", ["batch", "running"])
@both_freezes
def test_norms_that_are_frozen_stay_so_when_run_again(frozen_norm: Any, freeze: Any) -> None:
    case = AROUND_BLOCKS[0]
    model = case.tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze=freeze, frozen_norm=frozen_norm)
    case.enable(model, False)
    rdp.step()
    assert rdp.kind == "dropped_part"
    learning = tuple(f"{name}." for name in rdp.plan.dropped)
    before = buffers_of(model)
    _, calls = counted_iteration(model, case.tiny.inputs(), seed=0)
    changed = {name for name, buffer in buffers_of(model).items() if not torch.equal(buffer, before[name])}
    assert changed and all(name.startswith(learning) for name in changed)
    run_again = {
        name for name, count in calls.items() if count > 1 and isinstance(model.get_submodule(name), nn.BatchNorm2d)
    }
    assert any(not name.startswith(learning) for name in run_again) or freeze == "stop_gradient"


@of_cases(LOST_IN_TRACING)
def test_what_a_block_checkpoints_in_its_own_forward_is_checkpointed(case: Case) -> None:
    """Tracing goes through the checkpoint; without one memory would not be saved."""
    model = case.tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", schedule=(1, 0))
    case.enable(model, False)
    while len(rdp.plan.dropped) != 1:
        rdp.step()
    model(case.tiny.inputs())  # tracing anew, now that an attribute has changed, is not what is counted
    _, calls = counted_iteration(model, case.tiny.inputs(), seed=0)
    assert max(calls.values()) > 1


@both_freezes
@of_cases([case for case in CASES if case.tiny.name in ("timm_basic", "timm_vit", "hf_call")])
def test_checkpointing_under_autocast(case: Case, freeze: Any) -> None:
    model, other = case.tiny.build().float(), case.tiny.build().float()
    # With smaller images the last stage sees one pixel, for which oneDNN leaves garbage in a gradient.
    tiny = replace(case.tiny, input_shape=(3, 32, 32)) if case.tiny.name == "timm_basic" else case.tiny
    rdps = [ResidualDropPath(m, 0.5, rate_over_depth="uniform", freeze=freeze) for m in (model, other)]
    case.enable(model, False)
    for iteration in range(4):
        traces = []
        for m, rdp in zip((model, other), rdps, strict=True):
            torch.manual_seed(iteration)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = m(tiny.inputs(seed=iteration).float())
            loss_of(output.float()).backward()
            traces.append((output.detach(), [p.grad for p in m.parameters() if p.grad is not None]))
            m.zero_grad()
            rdp.step()
        assert traces[0][0].dtype == torch.bfloat16
        assert_equal(traces[0], traces[1], "output and gradients")


def run_reentrant(model: nn.Module, inputs: Tensor) -> Tensor:
    """PyTorch warns, once, where the gradients of a reentrant checkpoint are lost."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad=True")
        return model(inputs)


@of_cases(AROUND_BLOCKS)
@both_freezes
@pytest.mark.parametrize("kind", ["drop_path", "dropped_part"])
@pytest.mark.pairs
def test_the_reentrant_kind_is_refused(case: Case, freeze: Any, kind: str) -> None:
    """At the first forward, and before anything is learned."""
    model = case.tiny.build()
    case.enable(model, True)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze=freeze)
    if kind == "dropped_part":
        rdp.step()
    assert rdp.kind == kind
    with pytest.raises(RuntimeError, match=f"inside activation checkpointing of the reentrant kind.*{REFUSAL}"):
        run_reentrant(model, case.tiny.inputs())


@pytest.mark.parametrize("outer", [True, False])
def test_the_reentrant_kind_is_refused_in_or_around_the_other(outer: bool) -> None:
    model = BY_NAME["own_add"].build()
    ResidualDropPath(model, 0.5)

    def inner(x: Tensor) -> Any:
        return checkpoint(model, x, use_reentrant=not outer)

    inputs = BY_NAME["own_add"].inputs().requires_grad_()
    with pytest.raises(RuntimeError, match=REFUSAL):
        checkpoint(inner, inputs, use_reentrant=outer)


@pytest.mark.parametrize("how", ["step", "paused", "rates 0"])
def test_the_reentrant_kind_is_refused_whatever_the_plan(how: str) -> None:
    """Late is worse: a frozen part may come with the next iteration."""
    model = BY_NAME["own_add"].build()
    rdp = ResidualDropPath(model, 0.0 if how == "rates 0" else 0.5)
    inputs = BY_NAME["own_add"].inputs().requires_grad_()
    with pytest.raises(RuntimeError, match=REFUSAL):
        if how == "paused":
            with rdp.paused():
                checkpoint(model, inputs, use_reentrant=True)
        checkpoint(model, inputs, use_reentrant=True)


@of_cases([case for case in INSIDE_BLOCKS if case.tiny.name == "hf_forward"])
def test_the_reentrant_kind_of_whole_layers_is_refused_at_once(case: Case) -> None:
    model = case.tiny.build()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad=True")
        case.enable(model, True)
        with pytest.raises(NoResidualBranchError, match="use_reentrant=False"):
            ResidualDropPath(model, 0.5)


@of_cases([case for case in INSIDE_BLOCKS if case.tiny.name == "whole_branch"])
def test_the_reentrant_kind_inside_a_block_is_refused_before_it_loses_gradients(case: Case) -> None:
    """Silently it would be the lower of two dropped branches that learns nothing."""
    model, other = case.tiny.build(), case.tiny.build()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad=True")
        case.enable(model, True)
        rdp, other_rdp = (ResidualDropPath(m, SURE, rate_over_depth="uniform") for m in (model, other))
    with torch.no_grad():
        run_reentrant(model, case.tiny.inputs())
    assert loss_of(run_reentrant(model, case.tiny.inputs())).requires_grad  # everything dropped: the shortcuts alone
    for r in (rdp, other_rdp):
        r.step()
    forward_backward(other, case.tiny.inputs())
    assert all(p.grad is not None for branch in other_rdp.branches for p in branch.parameters())
    with pytest.raises(RuntimeError, match=f"returned a tensor without a gradient.*{REFUSAL}"):
        run_reentrant(model, case.tiny.inputs())


def test_a_block_that_is_one_reentrant_checkpoint_is_refused() -> None:
    """Where it loses nothing too, as its input requires a gradient."""
    model = HF_FORWARD.tiny.build()
    rdp = ResidualDropPath(model, 0.0)
    HF_FORWARD.enable(model, True)
    assert rdp.kind == "drop_path"
    with pytest.raises(RuntimeError, match=f"inside activation checkpointing of the reentrant kind.*{REFUSAL}"):
        run_reentrant(model, HF_FORWARD.tiny.inputs())


@both_freezes
@of_cases([case for case in CASES if case.tiny.name != "hf_forward"])
@pytest.mark.pairs
def test_a_training_mode_forward_without_gradients_is_let_through(case: Case, freeze: Any) -> None:
    """As in recalibrating norms; checkpointed by the other kind or not at all."""
    model, plain = case.tiny.build(), case.tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze=freeze)
    for enabled in (False, True):
        if enabled:
            case.enable(model, False)
        for _ in range(2):
            with torch.no_grad():
                model(case.tiny.inputs())
            with torch.inference_mode():
                model(case.tiny.inputs())
            rdp.step()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad(), rdp.paused():
        torch.manual_seed(0)
        output = model(case.tiny.inputs())
        torch.manual_seed(0)
        assert_equal(output, plain(case.tiny.inputs()), "output")
    assert_equal(buffers_of(model), buffers_of(plain), "buffers")


@of_cases(AROUND_BLOCKS)
@pytest.mark.parametrize("how", ["evaluation", "removed"])
@pytest.mark.pairs
def test_the_reentrant_kind_is_let_through_where_nothing_is_frozen(case: Case, how: str) -> None:
    model, plain = case.tiny.build(), case.tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    case.enable(model, True)
    if how == "evaluation":
        for m in (model, plain):
            m.eval()
    else:
        rdp.remove()
    torch.manual_seed(0)
    output = run_reentrant(model, case.tiny.inputs())
    torch.manual_seed(0)
    assert_equal(output, plain(case.tiny.inputs()), "output")


class SkipsItself(OwnAdd):
    """At times, while training, the whole block: nothing is lost then, there is nothing to learn."""

    skips = False

    def forward(self, x: Tensor) -> Tensor:
        return x if self.skips else x + self.branch(x)


def test_a_block_that_hands_on_its_input_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    register_block(SkipsItself, lambda block, add, x: add("f", x, block.branch, x), {"f": ["branch"]})
    model = Stack(SkipsItself).double().train()
    rdp = ResidualDropPath(model, SURE, rate_over_depth="uniform")
    rdp.step()
    block = cast(SkipsItself, model.blocks[0])
    block.skips = True
    assert not block(torch.zeros(2, WIDTH).double()).requires_grad


class TwoStreams(nn.Module):
    """Each with a branch, as timm's tnt."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH)) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.f(x), y + self.g(y)


def test_a_block_of_which_one_output_learns_is_let_through() -> None:
    block = TwoStreams().train()
    rdp = ResidualDropPath(block, 0.5, rate_over_depth="uniform")
    learning: set[tuple[bool, bool]] = set()
    for _ in range(40):
        if rdp.kind == "dropped_part":
            first, second = block(torch.ones(2, WIDTH), torch.ones(2, WIDTH))
            learning.add((first.requires_grad, second.requires_grad))
        rdp.step()
    assert learning == {(True, True), (True, False), (False, True)}


def test_per_sample_computations_are_let_through() -> None:
    """Inside `vmap` no tensor says that it requires a gradient."""
    model = Stack(LayerScale).double().train()
    rdp = ResidualDropPath(model, SURE, rate_over_depth="uniform")
    rdp.step()
    x = torch.randn(4, 5, dtype=torch.float64)
    per_sample = torch.func.vmap(lambda row: model(row[None])[0])(x)
    assert_close(per_sample.detach(), model(x).detach(), "output")
