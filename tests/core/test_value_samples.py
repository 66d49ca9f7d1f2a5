"""`ValueSample`: a change of any kind of parameter is seen, nothing else is, and two operations are enough."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from residualdroppath.core.freezing import value_samples
from residualdroppath.core.freezing.value_samples import SMALL, VALUES, Cause, ValueSample

from .guarded_training import group_of_one

CAUSE = Cause("A test", "Nothing.")


def parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def sampled(*parameters: Any) -> tuple[ValueSample, dict[str, nn.Parameter]]:
    sample, named = ValueSample(), {f"p{index}": parameter for index, parameter in enumerate(parameters)}
    sample.take(named)
    return sample, named


def moved(sample: ValueSample, named: dict[str, nn.Parameter]) -> list[str]:
    found = sample.moved(named, CAUSE)
    return [] if found is None else found.names


SOME = torch.linspace(-1, 1, 240).reshape(2, 3, 4, 10)
DTYPES = [torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SOME.clone(),
        lambda: SOME.clone(memory_format=torch.channels_last),
        lambda: SOME.clone().permute(3, 1, 0, 2),
        lambda: SOME.repeat(1, 1, 1, 2)[..., ::2],
        lambda: SOME.repeat(1, 2, 1, 1)[:, 2:5],
        lambda: SOME[:, :1].expand(2, 3, 4, 10),
        lambda: torch.tensor(1.5),
        lambda: torch.ones(3),
        lambda: torch.ones(1, 5, 1).mT,
        lambda: torch.full((5000,), torch.nan),
        lambda: SOME.to(torch.float8_e4m3fn),
        *(lambda dtype=dtype: torch.ones(64, dtype=dtype) for dtype in DTYPES),
    ],
    ids=["contiguous", "channels last", "permuted", "gaps", "part", "expanded", "no dimension", "few", "ones", "nan"]
    + ["float8", *map(str, DTYPES)],
)
def test_a_change_of_every_value_is_seen_and_no_change_is_none(make: Any) -> None:
    sample, named = sampled(parameter(torch.ones(2)), parameter(make()))
    assert moved(sample, named) == moved(sample, named) == []
    memory = torch.empty(0, dtype=torch.uint8).set_(named["p1"].untyped_storage())  # pyright: ignore
    memory ^= 1
    assert moved(sample, named) == ["p1"]


@pytest.mark.parametrize("quarter", range(4))
def test_large_parameters_are_sampled_all_over(quarter: int) -> None:
    large = parameter(torch.ones(2 * SMALL))
    sample, named = sampled(large)
    size = large.numel() // 4
    large.data[quarter * size : (quarter + 1) * size] *= 2
    assert moved(sample, named) == ["p0"]


def test_as_many_values_as_promised() -> None:
    for tensor in (torch.ones(2 * SMALL), torch.ones(100), SOME.clone().permute(3, 1, 0, 2), torch.ones(200)[::2]):
        views = value_samples.byte_views(tensor)
        assert sum(view.numel() for view in views) == VALUES * tensor.element_size()
        assert len({view.data_ptr() for view in views}) == len(views)
        storage = tensor.untyped_storage()
        assert all(0 <= view.data_ptr() - storage.data_ptr() < storage.nbytes() for view in views)
    assert [view.numel() for view in value_samples.byte_views(torch.ones(3))] == [12]
    assert [view.numel() for view in value_samples.byte_views(torch.ones(9).as_strided((1, 5), (7, 1)))] == [20]
    assert sum(view.numel() for view in value_samples.byte_views(torch.ones(6)[::2])) == 12


def test_memory_around_a_parameter_is_not_its_own() -> None:
    buffer = torch.zeros(3, 64)
    sample, named = sampled(*(parameter(row) for row in buffer[:2]), parameter(buffer[2, ::2]))
    buffer[2, 1::2] = 1
    assert moved(sample, named) == []
    buffer[1] = 1
    assert moved(sample, named) == ["p1"]


def test_comparison_is_of_bits() -> None:
    special = parameter(torch.tensor([torch.nan, 0.0, torch.inf]))
    sample, named = sampled(special)
    assert moved(sample, named) == []
    special.data[1] = -0.0
    assert moved(sample, named) == ["p0"]


def lazy() -> Any:
    return nn.LazyLinear(3).weight


def freed() -> nn.Parameter:
    gone = parameter(torch.ones(64))
    gone.untyped_storage().resize_(0)  # as FSDP does between forwards
    return gone


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, .* are deprecated")
@pytest.mark.parametrize(
    "make",
    [
        lambda: parameter(torch.empty(0, 3)),
        lambda: parameter(torch.ones(4)[:0]),
        lambda: parameter(torch.empty(5, device="meta")),
        lambda: parameter(torch.eye(3).to_sparse()),
        lambda: parameter(torch.eye(3).to_sparse_csr()),
        lambda: parameter(torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)),
        lambda: parameter(torch.ones(4, dtype=torch.complex64).conj()),
        lazy,
        freed,
    ],
    ids=["empty", "nothing of some", "meta", "sparse", "csr", "quantised", "conjugated", "lazy", "freed"],
)
def test_what_has_no_memory_to_look_at_is_passed_over(make: Any) -> None:
    ordinary = parameter(torch.ones(4))
    sample, named = sampled(make(), ordinary)
    assert moved(sample, named) == []
    ordinary.data += 1
    assert moved(sample, named) == ["p1"]
    alone, one = sampled(make())
    assert moved(alone, one) == []


def test_a_lazy_parameter_is_sampled_once_it_has_values() -> None:
    layer = nn.LazyLinear(3)
    sample, named = sampled(layer.weight, layer.bias)
    layer(torch.ones(2, 5))
    assert moved(sample, named) == []
    layer.weight.data += 1
    assert moved(sample, named) == ["p0"]


def test_storage_that_is_freed_after_sampling_is_not_read() -> None:
    unsharded = parameter(torch.ones(64))
    sample, named = sampled(unsharded)
    unsharded.untyped_storage().resize_(0)
    assert moved(sample, named) == []
    unsharded.untyped_storage().resize_(256)
    unsharded.data.fill_(2)
    assert moved(sample, named) == []  # nothing to compare with; sampled anew
    unsharded.data.fill_(3)
    assert moved(sample, named) == ["p0"]


def test_another_storage_is_compared_by_value() -> None:
    first, second = parameter(torch.ones(64)), parameter(torch.ones(64))
    sample, named = sampled(first, second)
    for tensor in named.values():
        tensor.data = tensor.data.clone()
    assert moved(sample, named) == []
    first.data = first.data.clone()
    second.data = second.data * 2
    assert moved(sample, named) == ["p1"]


@pytest.mark.parametrize(
    "replace",
    [
        lambda named: named.update(p0=parameter(torch.zeros(8, 8))),
        lambda named: named.update(p0=parameter(named["p0"].data)),
        lambda named: setattr(named["p0"], "data", named["p0"].data.double() + 1),
        lambda named: setattr(named["p0"], "data", torch.zeros(4, 4)),
        lambda named: setattr(named["p0"], "data", torch.zeros(8, 8).t()),
        lambda named: named.pop("p0"),
        lambda named: named.update(p2=parameter(torch.zeros(3))),
    ],
    ids=["object", "object alone", "dtype", "shape", "layout", "gone", "new"],
)
def test_what_became_something_else_is_sampled_anew(replace: Any) -> None:
    sample, named = sampled(parameter(torch.rand(8, 8)), parameter(torch.ones(4)))
    replace(named)
    assert moved(sample, named) == moved(sample, named) == []
    for tensor in named.values():
        tensor.data += 1
    assert moved(sample, named) == list(named)


def test_what_moved_is_seen_although_another_was_replaced() -> None:
    sample, named = sampled(parameter(torch.ones(4)), parameter(torch.ones(4)))
    named["p0"] = parameter(torch.zeros(4))
    named["p1"].data += 1
    assert moved(sample, named) == ["p1"]


def test_nothing_is_compared_without_a_sample() -> None:
    sample, named = sampled(parameter(torch.ones(4)))
    assert sample.is_taken
    sample.forget()
    assert not sample.is_taken
    named["p0"].data += 1
    assert moved(sample, named) == []
    sample.take(named)
    assert moved(sample, named) == []
    sample.take({})
    assert moved(sample, {}) == []


class Wrapper(Tensor):
    """A tensor that wraps two others, as quantised weights do."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Tensor) -> Wrapper:
        return Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype)  # pyright: ignore

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:  # all that making a parameter takes
            return return_and_correct_aliasing(func, args, kwargs or {}, cls(args[0].codes, args[0].scale))
        raise NotImplementedError(func)


class Opaque(Wrapper):
    __tensor_flatten__ = None  # pyright: ignore[reportAssignmentType]


class Named(nn.Parameter):
    """A subclass that wraps nothing."""


def test_tensors_that_wrap_tensors_are_sampled_by_what_they_wrap() -> None:
    wrapped = parameter(Wrapper(torch.ones(4, 4, dtype=torch.int8), torch.ones(4)))
    assert type(wrapped) is Wrapper
    sample, named = sampled(parameter(torch.ones(3)), wrapped, Named(torch.ones(3)))
    assert moved(sample, named) == []
    wrapped.scale += 1  # pyright: ignore[reportAttributeAccessIssue]
    named["p2"].data += 1
    assert moved(sample, named) == ["p1", "p2"]
    sample.take(named)
    for replacement in (torch.ones(4), Wrapper(torch.ones(4), torch.ones(4)), torch.ones(4)):
        named["p1"] = parameter(replacement)  # as FSDP swaps sharded and whole ones
        assert moved(sample, named) == []
    opaque, one = sampled(parameter(Opaque(torch.ones(4, 4), torch.ones(4))))
    assert moved(opaque, one) == []


@pytest.fixture
def one_rank() -> Iterator[None]:
    with group_of_one():
        yield


@pytest.mark.usefixtures("one_rank")
def test_of_a_distributed_tensor_the_local_shard_is_sampled() -> None:
    mesh = init_device_mesh("cpu", (1,))
    sharded = parameter(distribute_tensor(torch.ones(8, 8), mesh, [Shard(0)]))
    assert isinstance(sharded, DTensor)
    sample, named = sampled(parameter(torch.ones(3)), sharded)
    assert moved(sample, named) == []
    with torch.no_grad():
        sharded.mul_(2)
    assert moved(sample, named) == ["p1"]


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


def test_comparing_takes_two_operations_however_many_parameters_there_are() -> None:
    sample, named = sampled(*(parameter(torch.ones(size, dtype=dtype)) for size in (3, 99) for dtype in DTYPES))
    with Operations() as operations:
        assert moved(sample, named) == []
    assert operations.names == ["cat", "equal"]
    with Operations() as operations:
        sample.take(named)  # views are kept from plan to plan
    assert operations.names == ["cat"]


def test_no_memory_is_kept_longer_than_the_next_sample() -> None:
    class Buffer(bytearray):
        pass

    buffer = Buffer(256)
    reference = weakref.ref(buffer)
    named = {"p0": parameter(torch.frombuffer(buffer, dtype=torch.float32)), "p1": parameter(torch.ones(3))}
    sample = ValueSample()
    sample.take(named)
    del buffer, named["p0"]
    sample.take(named)
    assert reference() is None


class Event:
    """Of a device that has not got that far yet, until a test lets it."""

    done = False
    waits = 0

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        Event.waits += not self.done


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Event]]:
    """The CPU in the part of a device whose copies arrive when their event is done."""
    events: list[Event] = []

    def copy_to_host(joined: Tensor) -> tuple[Tensor, Event]:
        events.append(Event())
        return joined, events[-1]

    monkeypatch.setattr(value_samples, "_copy_to_host", copy_to_host)
    Event.waits = 0
    yield events


def test_a_device_is_not_waited_for(device: list[Event]) -> None:
    sample, named = sampled(parameter(torch.ones(4)), parameter(torch.ones(4)))
    assert moved(sample, named) == []
    named["p1"].data += 1
    assert sample.moved(named, Cause("The second", "")) is None
    sample.forget()
    for event in device[:2]:
        event.done = True
    assert sample.moved(named, Cause("Later", "")) is None  # the first comparison has arrived: nothing moved
    device[2].done = True
    assert sample.moved(named, Cause("Later", "")) == (["p1"], Cause("The second", ""))
    assert Event.waits == 0


def test_a_device_may_lag_behind_by_some_comparisons_only(device: list[Event]) -> None:
    sample, named = sampled(parameter(torch.ones(4)))
    named["p0"].data += 1
    checks = 0
    while sample.moved(named, CAUSE) is None:
        checks += 1
    assert checks == value_samples.MAX_UNREAD
    assert Event.waits > 0


def test_a_device_without_events_is_asked_at_the_next_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(Tensor):
        is_cpu = False  # pyright: ignore[reportAssignmentType]

        def cpu(self, *args: Any, **kwargs: Any) -> Tensor:
            return self.as_subclass(Tensor)

    monkeypatch.setattr(value_samples, "_copy_to_host", lambda joined: (joined.as_subclass(Elsewhere), None))
    sample, named = sampled(parameter(torch.ones(4)))
    named["p0"].data += 1
    assert sample.moved(named, Cause("First", "")) is None
    named["p0"].data -= 1
    assert sample.moved(named, Cause("Second", "")) == (["p0"], Cause("First", ""))
    assert sample.moved(named, Cause("Third", "")) is None
