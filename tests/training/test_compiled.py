"""A compiled network trains as it does otherwise, and takes a number of graphs that has an end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from residualdroppath.training import controls
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer

from .tiny_runs import final_state, interrupted, tiny

# Dynamo itself looks at `.grad` of tensors that are no leaves.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Of graphs, which run as they are: no compiler is needed."""
    torch._dynamo.reset()
    counters.clear()
    counted = CompileCounterWithBackend("eager")
    monkeypatch.setattr(controls, "COMPILE_OPTIONS", {"backend": counted})
    return counted


@pytest.mark.parametrize("method", [pytest.param("plain", marks=pytest.mark.full), "residual_drop_path"])
def test_same_weights_in_a_number_of_graphs_that_ends(method: str, counter: CompileCounterWithBackend) -> None:
    options = {"method": method, "drop_path_rate": 0.5, "epochs": 6}
    compiled, usual = (
        Trainer(config, load_config_data(config)) for config in (tiny(**options, compile=True), tiny(**options))
    )
    for epoch in range(1, 7):
        for of in (compiled, usual):
            of.train_epoch(epoch, lambda *progress: None)
            of.evaluate(of.data.validation)
    # Each of three branches trained or frozen, with and without a gradient to its input, without a graph; the trunk.
    assert 0 < counter.frame_count <= 6 * 3 + 8 and not counters["recompile_limit"]
    expected = usual.model.state_dict()
    assert compiled.model.state_dict().keys() == expected.keys()
    for name, value in compiled.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.full
def test_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counter: CompileCounterWithBackend) -> None:
    config = tiny(drop_path_rate=0.5, compile=True, ema=0.9)
    train(config, tmp_path / "whole", on_epoch=lambda *epochs: None)
    interrupted(config, tmp_path / "cut", monkeypatch)
    train(config, tmp_path / "cut", resume=True, on_epoch=lambda *epochs: None)
    ours, theirs = (final_state(tmp_path / name)[0] for name in ("cut", "whole"))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5, msg=name)
