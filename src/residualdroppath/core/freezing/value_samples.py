"""A few values of each parameter, and which parameters no longer have them, to the bit."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterator, Mapping
from itertools import chain, compress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

VALUES = 16  # per parameter, in runs of neighbours: `torch.cat` joins 16 neighbours 6 times as fast as 16 strided ones
RUNS = 4
SMALL = 4096  # values; below it one run is enough, and the vectors of norms make most of the parameters
MAX_UNREAD = 8  # comparisons under way on a device before the host waits for the oldest


class Cause(NamedTuple):
    """What went on before values were compared, and what to do if it moved them."""

    what: str
    remedy: str


class Moved(NamedTuple):
    """Parameters whose values differ from their sample."""

    names: list[str]
    cause: Cause


class ValueSample:
    """Sixteen values of each parameter compared as bytes: four runs of four spread over its memory, or one if small.

    So NaN equals itself, and -0.0 differs from 0.0, in every dtype. A parameter that got another storage
    (`p.data = ...`) is compared by the values there. What has become another object, shape, layout, dtype or
    device under its name (`load_state_dict(assign=True)`) has nothing to be compared with and is sampled anew.

    Of a `DTensor` the local shard is sampled, of another tensor subclass that wraps tensors what it wraps. Passed
    over, since there is no memory to look at in place: empty, meta, fake and lazy tensors, layouts without strides
    (sparse), quantised dtypes, lazily conjugated or negated ones, freed storages (FSDP), XLA.

    Only on the CPU does `moved` know the answer at once. On other devices it does not wait for it: bytes travel to
    the host behind the work in the queue, and a later call compares those that have arrived.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Runs] = {}
        self._expected: _Reading | None = None
        self._unread: list[tuple[_Reading, _Reading, Cause]] = []

    @property
    def is_taken(self) -> bool:
        """Whether there are values to compare with."""
        return self._expected is not None

    def take(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Sample the parameters as they are now, in place of any sample before."""
        self._runs = {name: runs for name, runs in self._runs.items() if runs.parameter() is not None}
        self._expected = self._read(parameters)

    def forget(self) -> None:
        """Compare nothing until the next `take`; comparisons under way on a device are still reported."""
        self._expected = None

    def moved(self, parameters: Mapping[str, nn.Parameter], cause: Cause) -> Moved | None:
        """The parameters that differ from their sample now, or did at an earlier call that could not wait to know."""
        expected = self._expected
        if expected is not None and not _is_capturing(expected.layout):
            unchanged = expected.layout.is_of(parameters)
            now = _Reading(expected.layout) if unchanged else self._read(parameters)
            self._unread.append((expected, now, cause))
            if not unchanged:  # names that came or were replaced are compared from now on
                self._expected = now
        return self._first_difference()

    def _read(self, parameters: Mapping[str, nn.Parameter]) -> _Reading:
        for name, parameter in parameters.items():
            known = self._runs.get(name)
            if known is None or not known.are_of(parameter):
                self._runs[name] = _Runs(parameter)
        return _Reading(_Layout({name: self._runs[name] for name in parameters}))

    def _first_difference(self) -> Moved | None:
        while self._unread:
            expected, now, cause = self._unread[0]
            newest = len(self._unread) == 1
            if len(self._unread) <= MAX_UNREAD and not (expected.has_arrived() and now.has_arrived(newest)):
                return None
            del self._unread[0]
            if names := _differing(expected, now):
                return Moved(names, cause)
        return None


def memory_of(parameter: Tensor) -> Iterator[Tensor]:
    """The tensors with memory that hold the values of a parameter: most often itself; none if it is passed over."""
    kind, plain = type(parameter), nn.Parameter
    if kind is plain or kind is Tensor:
        if _is_readable(parameter):
            yield parameter
    elif is_lazy(parameter):
        return
    elif (to_local := getattr(parameter, "to_local", None)) is not None:
        with torch.no_grad():
            local = to_local()
        yield from memory_of(local)
    elif (flatten := getattr(parameter, "__tensor_flatten__", None)) is not None:
        for name in flatten()[0]:
            yield from memory_of(getattr(parameter, name))
    elif _dispatch_of(kind) is _dispatch_of(plain) and _is_readable(parameter):  # a subclass that wraps nothing
        yield parameter


def byte_views(tensor: Tensor) -> list[Tensor]:
    """Up to 16 values of a tensor as views of its memory, each contiguous."""
    flat, count, start = tensor.detach().as_subclass(Tensor), tensor.numel(), tensor.storage_offset()
    if _is_dense(tensor):
        runs = RUNS if count >= SMALL else 1
        length = min(VALUES // runs, count)
        offsets = [(count - length) * (2 * run + 1) // (2 * runs) for run in range(runs)]
    else:
        length = 1
        values = min(count, VALUES)
        offsets = [_offset(tensor, (count - 1) * index // max(values - 1, 1)) for index in range(values)]
    return [flat.as_strided((length,), (1,), start + offset).view(torch.uint8) for offset in offsets]


class _Runs:
    """The views of one parameter, good for as long as it is the same object with the same memory."""

    def __init__(self, parameter: nn.Parameter) -> None:
        memory = list(memory_of(parameter))
        self.parameter = weakref.ref(parameter)
        self.is_plain = len(memory) == 1 and memory[0] is parameter
        self.pointers = list(map(Tensor.data_ptr, memory))
        self.form = [(tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in memory]
        self.views = [(tensor.device, view) for tensor in memory for view in byte_views(tensor)]

    def are_of(self, parameter: nn.Parameter) -> bool:
        memory = (parameter,) if self.is_plain else memory_of(parameter)
        return self.parameter() is parameter and self.pointers == list(map(Tensor.data_ptr, memory))

    def are_comparable(self, other: _Runs) -> bool:
        parameter = self.parameter()
        return parameter is not None and parameter is other.parameter() and self.form == other.form


class _Layout:
    """Views of many parameters, by device."""

    def __init__(self, runs: dict[str, _Runs]) -> None:
        self.runs = runs
        self.views: dict[torch.device, list[Tensor]] = {}
        for device, view in chain.from_iterable(entry.views for entry in runs.values()):
            self.views.setdefault(device, []).append(view)
        self._names = list(runs)
        self._parameters = [entry.parameter for entry in runs.values()]
        self._is_plain = [entry.is_plain for entry in runs.values()]
        self._pointers = [entry.pointers[0] for entry in runs.values() if entry.is_plain]
        self._wrapping = {index: entry for index, entry in enumerate(runs.values()) if not entry.is_plain}

    def is_of(self, parameters: Mapping[str, nn.Parameter]) -> bool:
        """Whether these are the parameters, with their memory where the views look."""
        objects = list(parameters.values())
        return (
            list(parameters) == self._names
            and all(map(operator.is_, objects, [parameter() for parameter in self._parameters]))
            and list(map(Tensor.data_ptr, compress(objects, self._is_plain))) == self._pointers
            and all(entry.are_of(objects[index]) for index, entry in self._wrapping.items())
        )


class _Reading:
    """The bytes behind a layout at one moment; off the CPU they are on their passage to the host for a while."""

    def __init__(self, layout: _Layout) -> None:
        self.layout = layout
        self._copies = {device: _copy_to_host(torch.cat(views)) for device, views in layout.views.items()}

    def has_arrived(self, newest: bool = False) -> bool:
        """Whether all bytes can be compared without waiting. Without an event: at the call after the `newest`."""
        return all(
            copied.is_cpu if event is None and newest else event is None or event.query()
            for copied, event in self._copies.values()
        )

    def bytes(self) -> dict[torch.device, Tensor]:
        for _, event in self._copies.values():
            if event is not None:
                event.synchronize()
        return {device: copied.cpu() for device, (copied, _) in self._copies.items()}

    def by_name(self) -> dict[str, list[Tensor]]:
        rest = {
            device: iter(joined.split([view.numel() for view in self.layout.views[device]]))
            for device, joined in self.bytes().items()
        }
        return {name: [next(rest[device]) for device, _ in runs.views] for name, runs in self.layout.runs.items()}


def _differing(expected: _Reading, now: _Reading) -> list[str]:
    if expected.layout is now.layout:
        before = expected.bytes()
        if all(torch.equal(before[device], after) for device, after in now.bytes().items()):
            return []
    runs, others = expected.layout.runs, now.layout.runs
    old, new = expected.by_name(), now.by_name()
    return [
        name
        for name in new
        if name in old
        and (expected.layout is now.layout or runs[name].are_comparable(others[name]))
        and not all(map(torch.equal, old[name], new[name]))
    ]


def _copy_to_host(joined: Tensor) -> tuple[Tensor, Any]:
    """The bytes and an event at which they have arrived; without one the copy is made when they are compared."""
    if joined.device.type not in ("cuda", "xpu"):
        return joined, None
    copied = joined.to("cpu", non_blocking=True)
    return copied, torch.accelerator.current_stream(joined.device).record_event()


def _is_capturing(layout: _Layout) -> bool:
    """Whether a CUDA graph is being captured, into which the reading would go instead of happening."""
    return any(device.type == "cuda" for device in layout.views) and torch.cuda.is_current_stream_capturing()


def _is_readable(tensor: Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and tensor.device.type not in ("meta", "xla")
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and tensor.untyped_storage().nbytes() > 0
    )


def _dispatch_of(kind: Any) -> Any:
    return kind.__torch_dispatch__


def _is_dense(tensor: Tensor) -> bool:
    """Whether the values fill a piece of memory without gaps or overlaps, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _offset(tensor: Tensor, index: int) -> int:
    """Where the value of a flat index is, in elements from the first."""
    offset = 0
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        index, position = divmod(index, size)
        offset += position * stride
    return offset
