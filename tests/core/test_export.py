"""Exported programs are those of a model that has never seen the method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from residualdroppath import ResidualDropPath

from .stepping import assert_equal, forward_backward, sgd_step
from .tiny_models import BY_NAME, TinyModel, some_models

typical_models = some_models("two_adds", full=("timm_basic", "timm_vit"))


def trained(tiny: TinyModel, state: str) -> nn.Module:
    """A model trained by the method, which is on at that kind of iteration, or was removed while parts are frozen."""
    model = tiny.build().float()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze="stop_gradient", frozen_norm="running")
    for _ in range(2 if state == "drop_path" else 3):
        forward_backward(model, tiny.inputs().float())
        sgd_step(model)
        rdp.step()
    assert rdp.kind == ("drop_path" if state == "drop_path" else "dropped_part") and rdp.plan.dropped
    if state == "removed":
        rdp.remove()
    return model


def never_seen(tiny: TinyModel, model: nn.Module) -> nn.Module:
    plain = tiny.build().float()
    plain.load_state_dict(model.state_dict())
    return plain


@typical_models
@pytest.mark.parametrize(
    ("state", "strict"), [("removed", True), ("drop_path", False), ("dropped_part", False), ("dropped_part", True)]
)
def test_torch_export_for_evaluation(tiny: TinyModel, state: str, strict: bool) -> None:
    """Without `remove()` too: a model in evaluation mode runs its own forward."""
    model, inputs = trained(tiny, state).eval(), tiny.inputs(seed=1).float()
    plain = never_seen(tiny, model).eval()
    program, expected = (torch.export.export(m, (inputs,), strict=strict) for m in (model, plain))
    assert_same_program(program, expected)
    output = program.module()(inputs)
    assert_equal(output, model(inputs), "the program's output and the model's")
    assert_equal(output, expected.module()(inputs), "the program's output and the plain one's")


@pytest.mark.parametrize(
    ("name", "state", "strict"),
    [
        ("timm_basic", "removed", False),
        ("timm_vit", "removed", True),
        ("timm_basic", "drop_path", True),
        ("timm_vit", "drop_path", False),
        ("timm_basic", "dropped_part", False),
        ("timm_vit", "dropped_part", True),
    ],
)
def test_torch_export_in_training_mode_is_the_full_network(name: str, state: str, strict: bool) -> None:
    """As for quantisation-aware training: batch statistics, and buffers that are updated. No plan goes in."""
    tiny = BY_NAME[name]
    model, inputs = trained(tiny, state), tiny.inputs(seed=1).float()
    plain = never_seen(tiny, model)
    program, expected = (torch.export.export(m, (inputs,), strict=strict) for m in (model, plain))
    assert_same_program(program, expected)
    assert all(parameter.requires_grad for parameter in program.parameters())
    modules = [program.module(), expected.module()]
    outputs = [module(inputs) for module in modules]
    assert_equal(outputs[0], outputs[1], "the program's output and the plain one's")
    assert_equal(dict(modules[0].named_buffers()), dict(modules[1].named_buffers()), "buffers of the programs")
    if state == "removed":  # the program's buffers are the model's, which this updates once more
        assert_equal(outputs[0], model(inputs), "the program's output and the model's")


@pytest.mark.parametrize("state", ["drop_path", "dropped_part"])
@pytest.mark.filterwarnings("ignore:.torch.jit.trace", "ignore::torch.jit.TracerWarning")
def test_torch_jit_trace_in_training_mode_is_the_full_network(state: str) -> None:
    model, inputs = trained(BY_NAME["timm_vit"], state), BY_NAME["timm_vit"].inputs(seed=1).float()
    plain = never_seen(BY_NAME["timm_vit"], model)
    traced = torch.jit.trace(model, (inputs,))
    assert_equal(traced(inputs), plain(inputs), "output")  # pyright: ignore[reportCallIssue]


def assert_same_program(program: ExportedProgram, expected: ExportedProgram) -> None:
    assert program.graph_module.code == expected.graph_module.code
    assert program.graph_signature == expected.graph_signature
    assert_equal(program.state_dict, expected.state_dict, "state of the programs")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("two_adds", "dropped_part"),
        pytest.param("timm_basic", "removed", marks=pytest.mark.full),
        pytest.param("timm_basic", "drop_path", marks=pytest.mark.full),
        pytest.param("timm_vit", "dropped_part", marks=pytest.mark.full),
    ],
)
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")  # PyTorch's own
def test_onnx_export(name: str, state: str) -> None:
    pytest.importorskip("onnxscript")
    tiny = BY_NAME[name]
    model, inputs = trained(tiny, state).eval(), tiny.inputs(seed=1).float()
    plain = never_seen(tiny, model).eval()
    program, expected = (onnx_model(m, inputs) for m in (model, plain))
    assert [(n.op_type, n.input, n.output) for n in program.graph.node] == [
        (n.op_type, n.input, n.output) for n in expected.graph.node
    ]
    output = onnx_output(program, inputs)
    assert_equal(output, onnx_output(expected, inputs), "the program's output and the plain one's")
    torch.testing.assert_close(output, model(inputs).detach(), rtol=1e-4, atol=1e-5)


def onnx_model(model: nn.Module, inputs: Tensor) -> Any:
    program = torch.onnx.export(model, (inputs,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


def onnx_output(model: Any, inputs: Tensor) -> Tensor:
    """What the reference evaluator of ONNX itself computes."""
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator(model)
    (output,) = evaluator.run(None, {model.graph.input[0].name: inputs.numpy()})
    return torch.from_numpy(output)
