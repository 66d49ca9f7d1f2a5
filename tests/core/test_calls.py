"""What only a call shows: an example batch, or the first training forward, and calls that differ from these."""

from __future__ import annotations

import functools
import gc
import math
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residualdroppath import NoResidualBranchError, ResidualDropPath
from residualdroppath.core.discovery.network_walk import discover

WIDTH = 8


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


class Block(nn.Module):
    """`x + b(prepare(a(x)))`."""

    def __init__(self, prepare: Callable[[Tensor], Tensor]):
        super().__init__()
        self.a, self.b, self.prepare = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), prepare

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.prepare(self.a(x)).relu())


def length_decides(h: Tensor) -> Tensor:
    return h if len(h.shape) == 3 else h * 2


def starred_part(h: Tensor) -> Tensor:
    return h.reshape(*h.shape[:2], 2, -1).flatten(-2)


def heads(h: Tensor) -> Tensor:
    return h.view((*h.shape[:-1], -1, 2)).flatten(-2)


def starred_with_more(h: Tensor) -> Tensor:
    rows, tokens, _, number = *h.shape, 2
    return h.view(rows, tokens, number, -1).flatten(2)


def rest(h: Tensor) -> Tensor:
    *_, tokens, width = h.shape
    return h.view(-1, tokens, width)


def ones_for_dimensions(h: Tensor) -> Tensor:
    return h * torch.ones([h.shape[0]] + [1] * (h.dim() - 1))


def chunks(h: Tensor) -> Tensor:
    return torch.cat([part * 1.0 for part in h.chunk(2, -1)], -1)


def row_by_row(h: Tensor) -> Tensor:
    return torch.stack([h[i] for i in range(h.shape[0])])


def number_of_python(h: Tensor) -> Tensor:
    return h.reshape(h.shape[0], int(h.shape[1]), -1) / float(h.shape[-1])


def root(h: Tensor) -> Tensor:
    return h / math.sqrt(h.shape[1])


def smallest_number(h: Tensor) -> Tensor:
    return h.clamp(min=torch.finfo(h.dtype).min)


def finite_or_clamped(h: Tensor) -> Tensor:
    return h if torch.isfinite(h).all() else h.nan_to_num()


def made_in_forward(h: Tensor) -> Tensor:
    return nn.Softmax(dim=-1)(h) * nn.GELU()(h)


def type_of_shape(h: Tensor) -> Tensor:
    return h if isinstance(h.shape, tuple) and isinstance(h, Tensor) and torch.is_tensor(h) else h * 0


WITH_A_CALL = [length_decides, starred_part, heads, starred_with_more, rest, ones_for_dimensions, chunks, row_by_row]
WITH_A_CALL += [number_of_python, root, smallest_number, finite_or_clamped, made_in_forward, type_of_shape]


def network(prepare: Callable[[Tensor], Tensor]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(prepare), Block(prepare)).double()


def batch(rows: int = 2, tokens: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, tokens, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prepare", WITH_A_CALL)
def test_a_call_shows_what_python_decides_by(prepare: Callable[[Tensor], Tensor]) -> None:
    model, plain = network(prepare), network(prepare)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", example=batch())
    assert [branch.name for branch in rdp.branches] == ["0", "1"] and not rdp.discovery.untraceable
    for number, (rows, tokens) in enumerate(((2, 5), (3, 5), (3, 7), (2, 5))):  # sizes that the example had not
        x = batch(rows, tokens, number)
        expected = x
        for index, block in enumerate(plain):
            branch = block(expected) - expected
            factor = 0.0 if rdp.plan.is_dropped[index] else 1 / (1 - rdp.plan.drop_rates[index])
            expected = expected + branch * (factor if rdp.kind == "drop_path" else 1.0)
        torch.testing.assert_close(model(x), expected)
        rdp.step()


def integers(h: Tensor) -> Tensor:
    is_limit = isinstance(torch.finfo(torch.float32), torch.finfo)  # of a value, as at every other moment
    return h.clamp(max=torch.iinfo(h.long().dtype).max) if is_limit else h * 0


@pytest.mark.parametrize("prepare", [smallest_number, integers])
def test_limits_of_a_dtype_need_no_call(prepare: Callable[[Tensor], Tensor]) -> None:
    model, plain = network(prepare), network(prepare)
    rdp = ResidualDropPath(model, 0.0)
    assert [branch.name for branch in rdp.branches] == ["0", "1"] and not rdp.discovery.needs_call
    assert torch.equal(model(batch()), plain(batch()))
    rdp.remove()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    torch.testing.assert_close(model(batch()), plain(batch()))
    assert type(torch.finfo) is type and type(torch.iinfo) is type


@pytest.mark.parametrize("prepare", [row_by_row, number_of_python, finite_or_clamped])
def test_without_a_call_the_error_says_what_to_pass(prepare: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(NoResidualBranchError, match="`example=`"):
        ResidualDropPath(network(prepare), 0.5)


@pytest.mark.parametrize("prepare", [row_by_row, finite_or_clamped])
def test_the_first_training_forward_is_the_call(prepare: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(Block(torch.tanh), Block(prepare)).double()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert [branch.name for branch in rdp.branches] == ["0"] and "1: Block: " in repr(rdp)
    model.eval()(batch())
    assert len(rdp.branches) == 1
    model.train()
    for _ in range(4):
        model(batch()).sum().backward()
        learning = {id(p) for name in rdp.plan.dropped for b in rdp.branches if b.name == name for p in b.parameters()}
        if rdp.kind == "dropped_part":
            assert {id(p) for p in model.parameters() if p.grad is not None} == learning
        optimizer.step()
        optimizer.zero_grad()
        rdp.step()
    assert [branch.name for branch in rdp.branches] == ["0", "1"] and not rdp.discovery.untraceable
    state = rdp.state_dict()
    rdp.remove()
    resumed = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    resumed.load_state_dict(state)  # of branches that a call has to show first
    model(batch())
    assert resumed.state_dict() == state


@functools.lru_cache
def cached_mask(width: int) -> Tensor:
    return torch.ones(width, dtype=torch.float64)


class CachedMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = mlp()

    @staticmethod
    @functools.lru_cache
    def mask(width: int) -> Tensor:
        return torch.eye(width, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x) @ self.mask(WIDTH) * cached_mask(WIDTH)


def test_nothing_of_a_trace_is_kept_in_a_cache() -> None:
    model = nn.Sequential(Block(torch.tanh), CachedMask()).double()
    ResidualDropPath(model, 0.5, example=batch())
    assert type(cached_mask(WIDTH)) is type(CachedMask.mask(WIDTH)) is Tensor
    model(batch()).sum().backward()


def test_it_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5), Block(row_by_row).float(), Block(torch.tanh).float())
    seen: list[nn.Module] = []
    model[3].register_forward_hook(lambda module, *_: seen.append(module))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, generator = batch().float(), torch.get_rng_state()
    given = x.clone()
    rdp = ResidualDropPath(model, 0.5, example=x)
    assert len(rdp.branches) == 2 and seen == [] and torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class SeveralValues(nn.Module):
    def __init__(self, gives: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.f, self.gives = mlp(), gives

    def forward(self, x: Tensor) -> Any:
        return self.gives(self.f(x), x.mean())


class Takes(nn.Module):
    """A block that asks what kind of value its child has returned."""

    def __init__(self, gives: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.child = SeveralValues(gives)

    def forward(self, x: Tensor) -> Any:
        out = self.child(x)
        if isinstance(out, tuple):
            first, *others = out
            return (x + first, *others)
        if isinstance(out, dict):
            return x + out["hidden"]
        return x + out


class First(nn.Module):
    def __init__(self, gives: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.blocks = nn.ModuleList([Takes(gives), Takes(gives)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            out = block(x)
            x = out[0] if isinstance(out, tuple) else out
        return x


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("with_example", [True, False])
@pytest.mark.parametrize(
    "gives",
    [lambda h, w: h, lambda h, w: (h, w), lambda h, w: (h, None, w), lambda h, w: {"hidden": h, "weights": w}],
    ids=["tensor", "pair", "with_none", "dict"],
)
def test_what_a_child_returns(gives: Callable[[Tensor, Tensor], Any], with_example: bool, rows: int) -> None:
    model = First(gives)
    x = torch.randn(rows, 4, WIDTH)
    example: dict[str, Any] = {"example": x} if with_example else {}
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **example)
    for _ in range(4):
        output = model(x)
        assert output.shape == x.shape
        output.sum().backward()
        rdp.step()
    assert [branch.name for branch in rdp.branches] == ["blocks.0", "blocks.1"]


class ByIndex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([mlp() for _ in range(3)])

    def forward(self, x: Tensor, index: int = 0, scale: float = 1.0) -> Tensor:
        return x + self.branches[index](x) * scale


class CallsByIndex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Linear(WIDTH, WIDTH), ByIndex()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for index in range(3):
            x = self.block(x, index, 1.0 + index)
        return x


def test_a_number_that_chooses_a_layer() -> None:
    model, x = CallsByIndex(), torch.randn(4, WIDTH)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", example=x)
    assert sorted(branch.name for branch in rdp.branches) == [f"block.branches.{i}" for i in range(3)]
    for _ in range(8):
        model(x).sum().backward()
        rdp.step()


def test_a_flag_that_decides() -> None:
    class Negates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = mlp()

        def forward(self, x: Tensor, negate: bool = False) -> Tensor:
            return (-x if negate else x) + self.f(x)

    warnings.simplefilter("ignore")
    model, x = Negates(), torch.randn(2, WIDTH)
    ResidualDropPath(model, 0.5, rate_over_depth="uniform", example=x)
    for negate in (False, True, True, False):
        torch.testing.assert_close(model(x, negate), -x if negate else x)


def test_numbers_that_nothing_reads_need_no_graph_of_their_own() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = mlp()

        def forward(self, x: Tensor, scale: float) -> Tensor:
            return x + self.f(x) * scale

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rdp = _acting(Scaled())
        x = torch.randn(2, WIDTH)
        for number in range(40):
            torch.testing.assert_close(rdp.model(x, number / 7), x)


def _acting(block: nn.Module) -> ResidualDropPath:
    warnings.simplefilter("ignore")
    rdp = ResidualDropPath(block, 0.5, rate_over_depth="uniform", example=(torch.randn(2, WIDTH), 1.0))
    warnings.simplefilter("error")
    assert rdp.kind == "drop_path" and len(rdp.plan.dropped) == 1
    return rdp


def test_many_kinds_of_calls_are_followed_and_told_once() -> None:
    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = mlp()

        def forward(self, x: Tensor, times: int) -> Tensor:
            for _ in range(times):
                x = x * 1.5
            return x + self.f(x)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = Repeats()
        ResidualDropPath(model, 0.5, example=(torch.randn(2, WIDTH), 1))
        x = torch.randn(2, WIDTH)
        for times in [*range(20), *range(20)]:
            torch.testing.assert_close(model(x, times), functools.reduce(lambda y, _: y * 1.5, range(times), x))
    assert sum("was traced for 10 kinds of calls" in str(warning.message) for warning in caught) == 1


def test_a_call_that_cannot_be_followed_runs_as_it_is_and_is_told_once() -> None:
    class Numpy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = mlp()

        def forward(self, x: Tensor, through_numpy: bool = False) -> Tensor:
            h = self.f(x)
            return x + (torch.from_numpy(h.detach().numpy()) if through_numpy else h)

    model, x = nn.ModuleList([Numpy(), Numpy()]), torch.randn(2, WIDTH)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for block in model:
            ResidualDropPath(block, 0.5, example=x)
        for block in model:
            torch.testing.assert_close(block(x), x)
            for _ in range(3):
                torch.testing.assert_close(block(x, through_numpy=True), x + block.f(x))  # pyright: ignore
    assert sum("Such calls run the block as it is" in str(warning.message) for warning in caught) == 2


def test_a_forward_set_on_a_block_is_not_passed_by() -> None:
    class Doubles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.f(x)

    model = nn.Sequential(Doubles(), Doubles(), Doubles())
    inner = model[1].forward
    vars(model[1])["forward"] = lambda x: inner(x) * 2
    x = torch.randn(2, WIDTH)
    for example in (None, x):
        rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", example=example)
        assert [branch.name for branch in rdp.branches] == ["0", "2"]
        assert "somebody has set a forward on it" in repr(rdp)
        for _ in range(2):
            before = model[0](x)
            torch.testing.assert_close(model[1](before), inner(before) * 2)
            rdp.step()
        rdp.remove()


@pytest.mark.parametrize("example", ["text", torch.randn(3), {"y": torch.randn(2, 5, WIDTH)}, (1, 2, 3)])
def test_an_example_that_does_not_fit(example: Any) -> None:
    with pytest.raises(ValueError, match="`example` must be a batch"):
        ResidualDropPath(network(root), 0.5, example=example)


@pytest.mark.parametrize("example", [batch(), (batch(),), [batch()], {"input": batch()}])
def test_forms_of_an_example(example: Any) -> None:
    assert len(discover(network(root), example).branches) == 2


def test_threads_find_and_train_as_one_after_the_other() -> None:
    def make(prepare: Callable[[Tensor], Tensor]) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(WIDTH, WIDTH).double(), network(prepare))

    def work(prepare: Callable[[Tensor], Tensor], model: nn.Module, found: list[Any]) -> None:
        rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", seed=3, example=batch())
        losses = []
        for number in range(6):
            loss = model(batch(seed=number)).square().sum()
            loss.backward()
            losses.append(loss.item())
            rdp.step()
        found.append((prepare.__name__, [branch.name for branch in rdp.branches], losses))

    def innocent(errors: list[BaseException], stop: threading.Event) -> None:
        layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        try:
            while not stop.is_set():
                layer(torch.randn(4, 3))
        except BaseException as error:
            errors.append(error)

    one_by_one: list[Any] = []
    for prepare in WITH_A_CALL[:6]:
        work(prepare, make(prepare), one_by_one)
    at_once: list[Any] = []
    errors: list[BaseException] = []
    stop = threading.Event()
    bystander = threading.Thread(target=innocent, args=(errors, stop))
    threads = [threading.Thread(target=work, args=(prepare, make(prepare), at_once)) for prepare in WITH_A_CALL[:6]]
    for thread in (bystander, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    bystander.join()
    assert errors == [] and sorted(at_once) == sorted(one_by_one)


# --- what a forward writes to


class CountsItself(nn.Module):
    """A norm that counts its batches, and a scale that is clamped in place, in the forward."""

    def __init__(self, in_place: bool):
        super().__init__()
        self.linear, self.in_place = nn.Linear(WIDTH, WIDTH), in_place
        self.scale = nn.Parameter(torch.full((WIDTH,), 3.0))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)  # pyright: ignore[reportCallIssue]
        if self.in_place:
            with torch.no_grad():
                self.scale.data.clamp_(max=2.0)
        return x + self.linear(x) * self.scale


@pytest.mark.parametrize(
    ("in_place", "example"),
    [(False, None), (True, None), (False, torch.ones(2, WIDTH))],  # an example runs on the parameters themselves
    ids=["buffer", "parameter", "buffer_with_an_example"],
)
def test_discovery_writes_to_nothing(in_place: bool, example: Tensor | None) -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), CountsItself(in_place), CountsItself(in_place), Block(heads))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ResidualDropPath(model, example=example)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_tracing_as_before(collects: bool) -> None:
    (gc.enable if collects else gc.disable)()
    try:
        ResidualDropPath(nn.Sequential(Block(heads), Block(heads)), example=torch.randn(2, 3, WIDTH))
        with pytest.raises(NoResidualBranchError):
            ResidualDropPath(nn.Sequential(nn.Linear(WIDTH, WIDTH)))
        assert gc.isenabled() == collects
    finally:
        gc.enable()
