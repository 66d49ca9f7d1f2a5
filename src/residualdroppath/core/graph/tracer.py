"""The tracer of one forward: its stand-ins carry the values of the call that is followed, where there is one."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import fx, nn

from ..torch_internals import not_recomputed
from .call_form import is_plain
from .module_copies import ModuleCopies
from .module_kinds import ModuleKinds
from .nested_values import map_values
from .node_kinds import is_item, is_metadata, upstream
from .shape_guards import READINGS, GuardOutcomes, check_guard, check_passed_on, depends_on_metadata_only
from .traced_value import UNKNOWN, CannotFollow, Starred, TracedPlace, TracedValue, is_stand_in, joined
from .tracing_sandbox import grad_and_autocast
from .unknown_sizes import RANKS, is_size, length_of, number_of_dimensions

RunChild = Callable[..., Any]
ARGUMENTS = {int, float, bool, str, type(None), type(...), torch.dtype, torch.device}  # that a graph holds as they are
CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format)  # C code takes no stand-in for these
A_TENSOR = torch.empty(0)


class ForwardTracer(fx.Tracer):
    """Makes the graph of one trace: what stands for values, what Python reads of them, and the nodes."""

    def __init__(
        self,
        module: nn.Module,
        outcomes: GuardOutcomes,
        *,
        in_training: bool,
        is_inlined: Callable[[nn.Module, str], bool],
        kinds: ModuleKinds | None = None,
    ):
        super().__init__()
        self.root = module
        self.graph = fx.Graph()
        self.tensor_attrs = {}
        self.is_inlined = is_inlined  # of a child, and its path
        self.outcomes = outcomes
        self.taken: list[bool] = []
        self.modes = grad_and_autocast()
        self.kinds = kinds
        self.copies = ModuleCopies(
            module, self.tensor_at, self.call_child, self.number_at, in_training=in_training, kinds=kinds
        )
        self.run_child: RunChild | None = None  # in a call that is followed
        self.may_guess = True  # where none is: what children return
        self.guesses = False
        self.may_hold_objects = False  # in a graph that is read and not run
        self.not_to_run = ""
        self.rank = RANKS[0]  # that tensors are taken to have, where the forward asks for it
        self.uses_rank = False
        self.is_running = False
        self.checkpoints = False
        self._inside: dict[str, tuple[str, type]] = {}  # paths of children that are inlined
        self._tensors: dict[str, TracedValue] = {}
        self._numbers: dict[str, TracedValue] = {}
        self._guarded: set[tuple[fx.Node, str]] = set()
        self._given: dict[fx.Node, list[TracedValue]] = {}  # by call of a child

    # Values

    def tensor_at(self, path: str, tensor: torch.Tensor) -> TracedValue:
        if path not in self._tensors:
            value = tensor.detach().clone()  # the forward may write to it: norms count batches
            self._tensors[path] = TracedValue(self.create_node("get_attr", path, (), {}), self, value)
        return self._tensors[path]

    def number_at(self, path: str, number: int) -> TracedValue:
        if path not in self._numbers:
            self._numbers[path] = TracedPlace(self, path, number)
        return self._numbers[path]

    def note_checkpoint(self) -> Callable[[], AbstractContextManager[Any]] | None:
        if self.is_running:
            return None  # of a child that runs, not of this forward
        self.checkpoints = True
        return not_recomputed

    def place_node(self, path: str) -> fx.Node:
        assert self.kinds is not None
        self.kinds.place_was_used = True
        node = self.create_node("get_attr", path, (), {})
        node.meta["is_place"] = True
        return node

    def create_proxy(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, *_: Any
    ) -> Any:
        node = self.create_node(kind, target, self.create_arg(args), self.create_arg(kwargs), name)
        if target is operator.getitem and self.run_child is None and node.all_input_nodes[0].meta.get("returned"):
            if not isinstance(args[1], tuple):  # which indexes dimensions: then a child has returned a tensor
                node.meta["returned"] = self.guesses = True
        return self.standing_for(node, self._run(kind, target, args, kwargs))

    def standing_for(self, node: fx.Node, value: Any) -> Any:
        if value is None or isinstance(value, CONSTANTS):
            if value is not None or node.op == "call_module":
                self._check(node, *(("is_none", True) if value is None else ("value", value)))
            return value
        return TracedValue(node, self, value)

    def _run(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        (values, named), given = values_of((args, kwargs))
        if any(value is UNKNOWN for value in given) or (self.run_child is None and not given):
            return UNKNOWN
        with self._running():
            if kind == "call_method":
                return getattr(values[0], target)(*values[1:], **named)
            return target(*values, **named)

    @contextmanager
    def _running(self) -> Iterator[None]:
        before, self.is_running = self.is_running, True
        try:
            yield
        finally:
            self.is_running = before

    def call_child(self, child: nn.Module, copy: nn.Module, path: str, args: Any, kwargs: Any) -> Any:
        if self.is_inlined(child, path):
            self._inside[path] = path, type(child)
            try:
                return type(child).forward(copy, *args, **kwargs)
            finally:
                del self._inside[path]
        node = self.create_node("call_module", path, self.create_arg(args), self.create_arg(kwargs))
        self._given[node] = [value for value in _stand_ins((args, kwargs)) if value.node.op != "get_attr"]
        if self.run_child is None:
            node.meta["returned"] = True
            return TracedValue(node, self)
        (values, named), given = values_of((args, kwargs))
        if any(value is UNKNOWN for value in given):
            return TracedValue(node, self)
        with self._running():
            return self.standing_for(node, self.run_child(child, *values, **named))

    def passed_on(self, returned: TracedValue, key: Any) -> TracedValue | None:
        """The argument of a child that is item `key` of what it returned, such as a bias that later layers share."""
        given = self._given.get(returned.node, ())
        if not given or not isinstance(key, int) or not isinstance(returned.value, (tuple, list)):
            return None
        item = returned.value[key]
        several = isinstance(item, (tuple, list)) and len(item) > 1 and is_plain(tuple(item))
        for value in given:
            if (value.value is item and isinstance(item, torch.Tensor)) or (several and value.value == item):
                taken = self.create_node("call_function", operator.getitem, (returned.node, key), {})
                self.create_node("call_function", check_passed_on, (taken, value.node), {})
                return value
        return None

    # What Python reads

    def to_bool(self, obj: Any) -> bool:
        if obj.value is not UNKNOWN:
            return self.guard(obj, "bool")
        if not depends_on_metadata_only(obj.node):
            raise CannotFollow("it decides by values that only a call shows; pass `example=`")
        self.guesses = True
        place = len(self.taken)
        outcome = self.outcomes[place] if place < len(self.outcomes) else True
        self._check(obj.node, "bool", outcome)
        self.taken.append(outcome)
        return outcome

    def value_like(self, obj: TracedValue) -> Any:
        """A value of the type that an unknown one has, or is taken to have."""
        if depends_on_metadata_only(obj.node):
            if length_of(obj.node, self.rank) is not None:
                return torch.Size(())
            if number_of_dimensions(obj.node, self.rank) is not None or is_size(obj.node):
                return 0
            raise CannotFollow("it looks at the type of a value, which only a call shows; pass `example=`")
        if obj.node.op == "call_module" or is_item(obj.node):
            if not self.may_guess:
                raise CannotFollow("it looks at the type of what a child returned, which only a call shows")
            self.guesses = True
        return A_TENSOR

    def guess_length(self, obj: TracedValue) -> int | None:
        """The length of a shape, of a part of it, or of chunks, that no call has shown; None where nothing tells."""
        if not self.may_guess:
            return None
        if (length := length_of(obj.node, self.rank)) is not None:
            self._guess_rank(obj.node, "len", length)
        return length

    def guess_rank(self, obj: TracedValue) -> int | None:
        """The number of dimensions, if `obj` is that and no call has shown it; plus or minus numbers of the forward."""
        if not self.may_guess or (number := number_of_dimensions(obj.node, self.rank)) is None:
            return None
        self._guess_rank(obj.node, "index", number)
        return number

    def _guess_rank(self, node: fx.Node, reading: str, number: int) -> None:
        self.uses_rank = self.guesses = True
        self._check(node, reading, number)

    def guard(self, obj: Any, reading: str) -> Any:
        read = READINGS[reading](obj.value)
        self._check(obj.node, reading, read)
        return read

    def _check(self, node: fx.Node, reading: str, expected: Any) -> None:
        if (
            self.kinds is not None
            and self.kinds.place_was_used
            and all(source.all_input_nodes or source.meta.get("is_place") for source in upstream(node))
        ):
            self.kinds.place_was_read = True
        elif node.op == "get_attr":
            return
        if (node, reading) in self._guarded:
            return
        if is_metadata(node) and node.all_input_nodes[0].op == "get_attr":
            return  # of a parameter of the module: the graph is made anew where that changes
        self._guarded.add((node, reading))
        self.create_node("call_function", check_guard, (node, reading, expected), {})

    # Nodes

    def create_node(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, *_: Any
    ) -> fx.Node:
        if grad_and_autocast() != self.modes:
            raise CannotFollow("it switches gradients or autocast for a part of itself, which a graph would not do")
        if kwargs and (target is torch.add or (kind == "call_method" and target in ("add", "add_"))):
            given = {**dict(zip(("input", "other"), args, strict=False)), **kwargs}
            if (alpha := given.pop("alpha", None)) is not None:
                given["other"] = self.create_node("call_function", operator.mul, (given["other"], alpha), {})
            if set(given) == {"input", "other"}:
                args, kwargs = (given["input"], given["other"]), {}
        if not isinstance(args, tuple):
            raise CannotFollow("it unpacks a value of unknown length into the arguments of a call")
        node = self.graph.create_node(kind, target, name=name)
        node.args, node.kwargs = args, kwargs  # given to `create_node`, each is searched for symbolic numbers
        if self._inside:
            node.meta["nn_module_stack"] = dict(self._inside)
        return node

    def create_arg(self, a: Any) -> Any:
        kind = type(a)
        if kind in ARGUMENTS:
            return a
        if issubclass(kind, TracedValue):
            return a.node
        if kind is list:
            return [self.create_arg(item) for item in a]
        if kind is tuple:
            is_joined = any(type(item) is Starred for item in a)
            return self.create_arg(joined(a)) if is_joined else tuple([self.create_arg(item) for item in a])
        if isinstance(a, torch.Tensor):
            # fx would keep what was made while tracing, as an attribute of the module.
            raise CannotFollow("it makes a tensor of its own, which tracing would turn into a constant")
        if isinstance(a, nn.Module):
            raise CannotFollow("it hands a module on as a value")
        if dataclasses.is_dataclass(a) and isinstance(a, dict):  # Hugging Face's outputs; fx would return a bare dict
            fields = {field.name: self.create_arg(getattr(a, field.name)) for field in dataclasses.fields(a)}
            return self.create_node("call_function", type(a), (), fields)
        try:
            return super().create_arg(a)
        except NotImplementedError as error:
            reason = f"it works with a {type(a).__name__}, which a graph cannot hold"
            if not self.may_hold_objects:
                raise CannotFollow(reason) from error
            self.not_to_run = self.not_to_run or reason
            return self.create_node("call_function", type(a), (), {})


def values_of(nested: Any) -> tuple[Any, list[Any]]:
    """The same with values in the place of stand-ins, and a list of these values."""
    given: list[Any] = []

    def value_of(item: Any) -> Any:
        if is_stand_in(item):
            given.append(item.value)
            return item.value
        if type(item) is Starred:
            given.append(UNKNOWN)
        return item

    return map_values(nested, value_of), given


def _stand_ins(nested: Any) -> list[Any]:
    found: list[Any] = []
    map_values(nested, lambda item: found.append(item) if is_stand_in(item) else None)
    return found
