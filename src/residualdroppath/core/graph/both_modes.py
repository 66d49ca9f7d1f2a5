"""One graph for training and evaluation mode, from a trace in each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from ..torch_internals import assert_in_graph
from .graph_modules import after_placeholders, held, wrapped


def merged(in_training: fx.Graph, in_evaluation: fx.Graph, title: str) -> fx.Graph:
    """One graph for both modes: constants that differ are chosen by the mode of the module. Consumes the graphs.

    Where more differs, it is the one of evaluation, with an assertion that the module is in that mode.
    """
    counterparts: dict[fx.Node, fx.Node] = {}
    pairs = list(zip(in_training.nodes, in_evaluation.nodes, strict=False))
    chosen: list[tuple[fx.Node, Any]] = []
    same = len(in_training.nodes) == len(in_evaluation.nodes)
    for ours, other in pairs if same else ():
        counterparts[ours] = other
        try:
            both = ((ours.args, ours.kwargs), (other.args, other.kwargs))
            chosen.append((other, _both(*both, counterparts)))
        except _Differ:
            same = False
        same &= (ours.op, ours.target) == (other.op, other.target)
    if not same:
        with after_placeholders(in_evaluation):
            evaluates = wrapped(in_evaluation, operator.not_, held(in_evaluation, "training"))
            message = (
                f"The pruned {title} runs in evaluation mode alone: its forward does other operations in training "
                "mode. Call `eval()`."
            )
            in_evaluation.call_function(assert_in_graph, (evaluates, message))
        return in_evaluation
    mode: list[fx.Node] = []

    def select(value: Any) -> Any:
        if not isinstance(value, _Choice):
            return value
        if not mode:
            with after_placeholders(in_evaluation):
                mode.append(held(in_evaluation, "training"))
        if value.of_modes == (False, True):
            return mode[0]
        values = wrapped(in_evaluation, tuple, (*value.of_modes, mode[0]))
        return in_evaluation.call_function(operator.getitem, (values, mode[0]))

    for node, arguments in chosen:
        with in_evaluation.inserting_before(node):
            node.args, node.kwargs = _mapped(arguments, select)
    return in_evaluation


class _Differ(Exception):
    """Two graphs differ in more than constants."""


class _Choice:
    def __init__(self, in_evaluation: Any, in_training: Any):
        self.of_modes = in_evaluation, in_training


def _both(in_training: Any, in_evaluation: Any, counterparts: Mapping[fx.Node, fx.Node]) -> Any:
    """The arguments of evaluation with a `_Choice` in the place of constants that differ."""
    if isinstance(in_training, fx.Node):
        if counterparts.get(in_training) is not in_evaluation:
            raise _Differ
        return in_evaluation
    if isinstance(in_evaluation, fx.Node):
        raise _Differ
    if isinstance(in_training, (tuple, list)) and isinstance(in_evaluation, (tuple, list)):
        if len(in_training) != len(in_evaluation):
            raise _Differ
        items = (_both(t, e, counterparts) for t, e in zip(in_training, in_evaluation, strict=True))
        return tuple(items) if isinstance(in_evaluation, tuple) else list(items)
    if isinstance(in_training, dict) and isinstance(in_evaluation, dict):
        if list(in_training) != list(in_evaluation):
            raise _Differ
        return {key: _both(in_training[key], in_evaluation[key], counterparts) for key in in_training}
    if isinstance(in_training, slice) and isinstance(in_evaluation, slice):
        training, evaluation = ((s.start, s.stop, s.step) for s in (in_training, in_evaluation))
        return slice(*_both(training, evaluation, counterparts))
    if type(in_training) is type(in_evaluation) and in_training == in_evaluation:
        return in_evaluation
    return _Choice(in_evaluation, in_training)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(item, function) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, function) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_mapped(item, function) for item in (value.start, value.stop, value.step)))
    return function(value)
