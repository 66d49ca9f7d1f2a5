"""Bytes kept for the backward, where they can be counted by hand."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from residualdroppath.analysis.saved_bytes import saved_bytes

FLOAT = 4


def test_a_linear_layer_keeps_its_input() -> None:
    layer = nn.Linear(5, 7)
    inputs = torch.randn(3, 5, requires_grad=True)
    with saved_bytes(layer) as saved:
        layer(inputs)
    assert saved.total == 3 * 5 * FLOAT  # the weight is there anyway


def test_shared_storage_counts_once() -> None:
    inputs = torch.randn(4, 6, requires_grad=True)
    with saved_bytes(nn.Module()) as saved:
        _ = inputs.view(6, 4).exp().view(24).sigmoid() * 2.0
    assert saved.total == 2 * 24 * FLOAT  # of exp and of sigmoid their outputs


def test_no_graph_keeps_nothing() -> None:
    layer = nn.Linear(5, 7)
    with saved_bytes(layer) as saved, torch.no_grad():
        layer(torch.randn(3, 5))
    assert saved.total == 0


def test_frozen_weights_need_no_input() -> None:
    layers = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)).requires_grad_(False)
    with saved_bytes(layers) as saved:
        layers(torch.randn(3, 5, requires_grad=True)).sum()
    assert saved.total == 0


def test_gradients_stay() -> None:
    layer = nn.Linear(5, 7)
    inputs = torch.randn(3, 5)
    (expected,) = torch.autograd.grad(layer(inputs).pow(2).sum(), [layer.weight])
    with saved_bytes(layer):
        loss = layer(inputs).pow(2).sum()
    assert torch.equal(torch.autograd.grad(loss, [layer.weight])[0], expected)


def test_a_forward_without_a_backward_is_freed() -> None:
    inputs = torch.randn(4, 6, requires_grad=True)
    gc.disable()
    try:
        with saved_bytes(nn.Module()):
            output = inputs.exp()
        gone = weakref.ref(output)
        del output
        assert gone() is None
    finally:
        gc.enable()
