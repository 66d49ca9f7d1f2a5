"""What an add does with its branch: leave it out, scale it, run it without a graph, or act row by row."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .add_point import Action, AddPoint
from .fold_scale import run_scaled


def drop(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """The branch does not run."""
    return add_point.without_branch(shortcut)


@functools.cache
def scale_by(factor: float) -> Action:
    """The branch times a factor: 1 / keep_prob in `drop_path` iterations."""

    def scaled(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        layer = add_point.last and add_point.last.layer_to_scale(shortcut)
        if layer:
            return add_point.merge(shortcut, run_scaled(layer, factor, add_point.run, inputs))
        return add_point.merge(shortcut, add_point.run(*inputs), factor)

    return scaled


def run_without_graph(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """The branch runs and is added, and no gradient passes through it."""
    with torch.no_grad():
        branch = add_point.run(*inputs)
    return add_point.merge(shortcut, branch.detach())  # a view made without a graph may not be written to with one


@functools.cache
def drop_rows(factor: float) -> Action:
    """The rows that drop the branch keep the shortcut; the others add the branch times a factor."""

    def dropped(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        kept = ~add_point.state.dropped_rows(len(shortcut))
        if not kept.any():
            return add_point.without_branch(shortcut)
        if kept.all():
            branch = add_point.run(*inputs) * factor
        elif _needs_all_rows(add_point, shortcut, inputs):
            branch = add_point.run(*inputs)
            branch = branch * _per_row(kept.to(branch.dtype) * factor, branch)
        else:
            rows = _row_indices(kept, shortcut.device)
            part = add_point.run(inputs[0][rows]) * factor
            branch = part.new_zeros(len(shortcut), *part.shape[1:]).index_copy(0, rows, part)
        return add_point.merge(shortcut, branch)

    return dropped


def learn_rows(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """Everything runs and is added; gradient passes through the rows that dropped the branch only."""
    learning = add_point.state.dropped_rows(len(shortcut))
    if not learning.any():
        return run_without_graph(add_point, shortcut, inputs)
    if learning.all():
        branch = add_point.run(*inputs)
    elif _needs_all_rows(add_point, shortcut, inputs):
        branch = add_point.run(*inputs)
        branch = torch.where(_per_row(learning, branch), branch, branch.detach())
    else:
        rows, other_rows = (_row_indices(mask, shortcut.device) for mask in (learning, ~learning))
        # With a graph first: autocast would hand the casts made without one to the second run.
        part = add_point.run(inputs[0][rows])
        with torch.no_grad():
            rest = add_point.run(inputs[0][other_rows])
        empty = part.new_zeros(len(shortcut), *part.shape[1:])
        branch = empty.index_copy(0, rows, part).index_copy(0, other_rows, rest)
    return add_point.merge(shortcut, branch)


@functools.cache
def with_gradient_of_inputs(action: Action | None) -> Action:
    """The same, but gradients are taken of the branch's inputs too, and thrown away.

    Where a branch begins with a group norm and is the first that learns; on the CPU PyTorch (2.13 and before) may
    end the process otherwise.
    """

    def learned(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        if torch.is_grad_enabled() and shortcut.device.type == "cpu":
            inputs = tuple(begin_gradient(value) for value in inputs)
        if action is not None:
            return action(add_point, shortcut, inputs)
        return add_point.merge(shortcut, add_point.run(*inputs))

    return learned


def begin_gradient(value: Any) -> Any:
    """The same value, with a gradient from here on if it had none."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.requires_grad or not len(value):
        return value
    # Not a leaf, so that what follows may begin with an operation in place; costs nothing.
    return value.detach().requires_grad_().unsafe_split(len(value))[0]


def _needs_all_rows(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> bool:
    # A second input, a mask for instance, may or may not be per row: then only the whole is sure to be right.
    return add_point.state.has_batch_statistics or len(inputs) != 1 or len(inputs[0]) != len(shortcut)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, non_blocking=True).view(-1, *[1] * (like.dim() - 1))


def _row_indices(mask: Tensor, device: torch.device) -> Tensor:
    return mask.nonzero()[:, 0].to(device, non_blocking=True)
