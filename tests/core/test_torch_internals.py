"""All private names of PyTorch stand in one file, and behave as it says."""

from __future__ import annotations

import ast
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from residualdroppath.core import torch_internals

CORE = Path(torch_internals.__file__).parent
OF_TORCH = re.compile(
    r"torch(\.\w+)*\._(?!_)|_forward_(pre_)?hooks|_backward_(pre_)?hooks|(?<!self)\._(parameters|modules|buffers)\b"
)


def private_names(source: str) -> list[str]:
    """Private attributes and imports of torch in a file, comments and strings left out."""
    code = ast.unparse(ast.parse(source))
    imported = re.findall(r"from torch[\w.]* import [^\n]*\b_\w+", code)
    return [match.group(0) for match in OF_TORCH.finditer(code)] + imported


def test_the_reader_finds_every_form() -> None:
    for source in (
        "import torch\ntorch._disable_dynamo",
        "import torch.nn\ntorch.nn.modules._x",
        "from torch.nn.modules.conv import _ConvNd",
        "m._parameters",
        "m._forward_hooks",
    ):
        assert private_names(source)
    assert not private_names("from torch import nn\nself._modules_of(x)\nnn.Linear")


def test_private_names_of_torch_stand_in_one_file() -> None:
    for path in CORE.rglob("*.py"):
        if path.name != "torch_internals.py":
            assert private_names(path.read_text()) == [], path.name


def test_they_behave_as_they_say() -> None:
    layer = nn.Conv2d(1, 1, 1)
    assert isinstance(layer, torch_internals.Convolution)
    assert isinstance(nn.SyncBatchNorm(1), torch_internals.BatchNorm)
    assert isinstance(nn.InstanceNorm1d(1), torch_internals.AnyNorm)
    assert torch_internals.own_parameters(layer).keys() == {"weight", "bias"}
    assert torch_internals.own_children(nn.Sequential(layer)) == {"0": layer}
    assert torch_internals.own_buffers(nn.BatchNorm1d(1)).keys() == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    assert not torch_internals.has_hooks(layer)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert torch_internals.has_hooks(layer)
    handle.remove()
    handle = layer.register_full_backward_hook(lambda *_: None)
    assert torch_internals.has_hooks(layer)
    handle.remove()
    given: list[bool] = []
    torch.func.vmap(lambda x: (given.append(torch_internals.is_in_functorch_transform(x)), x)[1])(torch.ones(2))
    assert given == [True] and not torch_internals.is_in_functorch_transform(torch.ones(2))
    assert torch_internals.backward_name(torch.ones(1, requires_grad=True).relu()) == "ReluBackward0"
    assert torch_internals.backward_name(torch.ones(1)) == ""
    x = torch.ones(1, requires_grad=True)
    assert torch_internals.is_returned_by_reentrant_checkpoint(checkpoint(torch.exp, x, use_reentrant=True))  # pyright: ignore
    assert not torch_internals.is_returned_by_reentrant_checkpoint(x.exp())
    assert not torch_internals.is_exporting()
    assert torch_internals.wraps_compiled(torch.compile(layer, backend="eager"))  # pyright: ignore[reportArgumentType]
    assert not torch_internals.wraps_compiled(layer)


def test_checkpoints_are_noticed_and_recomputed_in_the_context_given() -> None:
    events: list[str] = []

    @contextmanager
    def again():
        events.append("begin")
        yield
        events.append("end")

    def notice():
        events.append("notice")
        return again

    def function(x: torch.Tensor) -> torch.Tensor:
        events.append("run")
        return x.exp().sin()

    x = torch.ones(1, requires_grad=True)
    with torch_internals.noticing_checkpoints(notice):
        y = checkpoint(function, x, use_reentrant=False)
    assert events == ["notice", "run"]
    y.sum().backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert events[2:4] == ["begin", "run"]
    events.clear()
    checkpoint(function, x, use_reentrant=False)
    assert events == ["run"]


def test_a_checkpoint_may_be_left_out() -> None:
    events: list[str] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        events.append("run")
        return x.exp()

    x = torch.ones(1, requires_grad=True)
    with torch_internals.noticing_checkpoints(lambda: torch_internals.not_recomputed):
        y = checkpoint(function, x, use_reentrant=False)
    y.sum().backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert events == ["run"] and x.grad is not None


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_modules_below_are_those_of_modules() -> None:
    shared = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    network = nn.Sequential(shared, nn.ModuleDict({"a": shared, "b": nn.Linear(2, 2)}), nn.ReLU())
    network.register_module("absent", None)
    network.append(torch.jit.script(nn.Sequential(nn.Linear(2, 2))))
    assert torch_internals.modules_below(network) == list(network.modules())
