"""`prune`: plain, smaller copies, against the full network with those branches dropped."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from residualdroppath import Branch, NoResidualBranchError, ResidualDropPath, prune, register_block
from residualdroppath.core.running.actions import drop

from . import tiny_blocks
from .tiny_blocks import WIDTH, ListStack, MaskedStack, OptionalMask, Stack


class InplaceSums(nn.Module):
    """Two branches, added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out = self.f(x)
        out += x
        last = self.g(out)
        last += out
        return last


BLOCKS: list[type[nn.Module]] = [
    InplaceSums,
    tiny_blocks.OwnAdd,
    tiny_blocks.InplaceAdd,
    tiny_blocks.TorchAdd,
    tiny_blocks.TwoAdds,
    tiny_blocks.LayerScale,
    tiny_blocks.ParallelAsOne,
    tiny_blocks.ParallelAsTwo,
    tiny_blocks.PreActivation,
    tiny_blocks.PostActivation,
    tiny_blocks.PostActivationIdentity,
    tiny_blocks.Projection,
    tiny_blocks.DropoutInside,
    tiny_blocks.OptionalMask,
]


def stack(block: Callable[[], nn.Module], kind: Callable[..., nn.Module] = Stack) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(block).eval()


def rows(seed: int = 1, width: int = 5) -> Tensor:
    return torch.randn(4, width, generator=torch.Generator().manual_seed(seed))


def branches_of(model: nn.Module, example: Any = None) -> tuple[Branch, ...]:
    rdp = ResidualDropPath(model, 0.0, example=example)
    rdp.remove()
    return rdp.branches


def names_of(model: nn.Module, example: Any = None) -> list[str]:
    return [branch.name for branch in branches_of(model, example)]


@torch.no_grad()
def with_dropped(model: nn.Module, names: Sequence[str], *inputs: Any, example: Any = None) -> Any:
    """What the full network returns with these branches dropped, in the mode that it is in."""
    rdp = ResidualDropPath(model, 0.0, example=example)
    actions = [drop if branch.name in names else None for branch in rdp.branches]
    with rdp.acting(actions, in_evaluation=True):
        output = model(*inputs)
    rdp.remove()
    return output


def reloaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def assert_same_state(model: nn.Module, other: nn.Module, *, subset: bool = False) -> None:
    state, full = model.state_dict(), other.state_dict()
    assert state.keys() < full.keys() if subset else state.keys() == full.keys()
    assert all(torch.equal(value, full[name]) for name, value in state.items())


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
@torch.no_grad()
def test_a_pruned_network_is_the_full_one_with_branches_dropped(block: type[nn.Module]) -> None:
    model, inputs = stack(block), rows()
    before, plain = copy.deepcopy(model.state_dict()), model(inputs)
    branches = branches_of(model)
    for chosen in (branches[:1], branches):
        names = [branch.name for branch in chosen]
        small = prune(model, names)
        output = small(inputs)
        assert torch.equal(output, with_dropped(model, names, inputs)) and not torch.equal(output, plain)
        assert num_parameters(model) - num_parameters(small) == sum(b.num_parameters for b in chosen)
        assert_same_state(small, model, subset=True)
        again = copy.deepcopy(reloaded(copy.deepcopy(small)))
        assert torch.equal(again(inputs), output)
        assert_same_state(again, small)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(inputs), plain) and not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    "block", [tiny_blocks.PreActivation, tiny_blocks.PostActivationIdentity, tiny_blocks.Projection]
)
def test_training_mode_is_that_of_the_full_network(block: type[nn.Module]) -> None:
    """Batch statistics, updated buffers, and gradients."""
    model, inputs = stack(block, ListStack).train(), rows()
    names, modules = names_of(model)[1:], dict(model.named_modules())
    modules["layers.1"].eval()  # as somebody who freezes a block
    small, full = prune(model, names, example=inputs), copy.deepcopy(model)
    for name, module in small.named_modules():
        assert name.endswith("standalone_values") or module.training == modules[name].training
    output = small(inputs)
    assert torch.equal(output, with_dropped(full, names, inputs))
    assert_same_state(small, full, subset=True)
    output.sum().backward()
    before = copy.deepcopy(small.state_dict())
    torch.optim.SGD(small.parameters(), lr=0.1).step()
    assert all(p.grad is not None for p in small.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in small.state_dict().items())
    small.eval()
    assert not any(module.training for module in small.modules())


def test_what_is_left_out_does_not_run() -> None:
    model, inputs = stack(tiny_blocks.TwoAdds), rows()
    counted = []
    for network in (model, prune(model, ["blocks.1.mlp", "blocks.2.attn"])):
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            network(inputs)
        counted.append(flops.get_total_flops())
    one_layer = 2 * len(inputs) * WIDTH * WIDTH
    assert counted[0] - counted[1] == 3 * one_layer  # two of the mlp, one of the attention


class SharedNorm(nn.Module):
    """Two branches behind one norm, which belongs to the trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attn = nn.Linear(WIDTH, WIDTH)
        self.mlp = tiny_blocks.mlp()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.attn(h) + self.mlp(h)


def test_a_norm_that_served_pruned_branches_alone_goes_with_the_last() -> None:
    model, inputs = stack(SharedNorm), rows()
    first, second = names_of(model)[:2]
    for names, has_norm in (([first], True), ([second], True), ([first, second], False)):
        small = prune(model, names)
        assert ("blocks.0.norm.weight" in small.state_dict()) is has_norm
        assert torch.equal(small(inputs), with_dropped(model, names, inputs))


class Bottleneck(nn.Module):
    """With stride and a projection; one activation in place for all its uses, as in torchvision."""

    def __init__(self, channels: int = 4, stride: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(channels, channels, 1, stride), nn.BatchNorm2d(channels))
        self.downsample = self.downsample if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


@pytest.mark.parametrize("chosen", [slice(0, 1), slice(1, 2), slice(0, 2)])
def test_a_small_resnet(chosen: slice) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Bottleneck(), Bottleneck(stride=1), nn.Flatten(), nn.LazyLinear(3))
    inputs = torch.randn(2, 3, 10, 10)
    model(inputs)  # gives batch norms statistics
    names = names_of(model.eval())[chosen]
    small = prune(model, names)
    assert torch.equal(small(inputs), with_dropped(model, names, inputs))
    assert_same_state(small, model, subset=True)
    assert ("1.downsample.1.running_mean" in small.state_dict()) and small.train()(inputs).requires_grad


def test_the_input_of_a_pruned_block_is_not_overwritten() -> None:
    block, inputs = tiny_blocks.PostActivationIdentity().eval(), rows(width=WIDTH)
    before = inputs.clone()
    small = prune(block, names_of(block))
    assert torch.equal(small(inputs), F.relu(before)) and torch.equal(inputs, before)
    assert isinstance(small, fx.GraphModule)


class ModeReader(nn.Module):
    """Reads its mode as a flag, and as a number that depends on it; holds all kinds of tensors and attributes."""

    kept: Tensor
    passing: Tensor

    def __init__(self, place: int = 0) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.rand(WIDTH))
        self.register_buffer("kept", torch.rand(WIDTH))
        self.register_buffer("passing", torch.rand(WIDTH), persistent=False)
        self.plain = torch.rand(WIDTH)
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fc1(x)
        h = F.dropout(self.fc2(x), 0.5, self.training) * self.kept.abs() + self.passing.view(-1) * self.plain.exp()
        h = F.dropout(h / round(x.shape[-1] / 4), 0.5 if self.training else 0.0)
        return x + h * self.scale


class ReadsAttributes(ListStack):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x) + layer.place
        return self.head(x)


def test_the_mode_is_read_when_the_pruned_block_runs() -> None:
    model, inputs = stack(ModeReader, ReadsAttributes), rows()
    names = [name for name in names_of(model) if name.endswith("fc1")]
    small = prune(model, names)
    expected = with_dropped(model, names, inputs)
    assert_same_state(small, model, subset=True)
    for again in (copy.deepcopy(small), reloaded(small), reloaded(reloaded(small))):
        assert torch.equal(again.eval()(inputs), expected)
        assert_same_state(again, small)
        again.train()
        torch.manual_seed(0)
        trained = again(inputs)
        torch.manual_seed(0)
        assert torch.equal(trained, with_dropped(copy.deepcopy(model).train(), names, inputs))
        assert not torch.equal(again(inputs), trained)
        again.layers.eval()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        assert torch.equal(again(inputs), again(inputs))


class OtherInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.f(x)
        x = x + self.g(x)
        return x * 2.0 if self.training else x


def test_a_block_that_does_something_else_in_training_is_for_evaluation() -> None:
    model, inputs = stack(OtherInTraining), rows()
    names = ["blocks.1.f"]
    small = prune(model, names)
    for again in (small, reloaded(small)):
        assert torch.equal(again(inputs), with_dropped(model, names, inputs))
        with pytest.raises(AssertionError, match="OtherInTraining runs in evaluation mode alone.*eval"):
            again.train()(inputs)


def test_a_call_in_another_form_is_loud() -> None:
    model, inputs = stack(OptionalMask, ListStack), rows(width=WIDTH)
    small: Any = prune(model, ["layers.0", "layers.2"])
    block = small.layers[0]
    assert torch.equal(block(inputs, mask=None, scale=1.0), inputs)
    for arguments in ({"mask": inputs}, {"scale": 0.5}, {"x": None}):
        with pytest.raises(AssertionError, match="pruned OptionalMask was called with .*`example=`"):
            block(**{"x": inputs, **arguments})
    with pytest.raises(TypeError, match="unknown"):
        block(inputs, unknown=1)


@pytest.mark.parametrize("has_example", [False, True])
def test_blocks_are_pruned_for_the_calls_of_their_callers(has_example: bool) -> None:
    model, inputs = stack(OptionalMask, MaskedStack), rows()
    example = inputs if has_example else None
    names = names_of(model, example)
    for chosen in (names[:1], names[1:], names):
        small = prune(model, chosen, example=example)
        assert torch.equal(small(inputs), with_dropped(model, chosen, inputs, example=example))
    assert torch.equal(prune(model, names[1:2], example=example)(rows(2)), with_dropped(model, names[1:2], rows(2)))


class Levels(nn.Module):
    """Loops over what it is given, so that only a call shows what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, factors: Sequence[float]) -> Tensor:
        x = x + self.dropout(self.f(x))
        out = self.g(x)
        for factor in factors:
            out = out * factor
        return x + out


class LevelStack(ListStack):
    def forward(self, x: Tensor, factors: Sequence[float] = (0.5, 2.5)) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x, factors=list(factors))
        return self.head(x)


def test_an_example_shows_what_no_code_shows() -> None:
    model, inputs = stack(Levels, LevelStack), rows()
    names = names_of(model, inputs)[:3]
    state = torch.get_rng_state()
    small = prune(model, names, example=inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(small(inputs), with_dropped(model, names, inputs, example=inputs))
    assert small.train()(inputs).requires_grad
    with pytest.raises(AssertionError, match="len is not 2"):
        small(inputs, (0.5, 2.5, 3.5))


def test_a_block_called_in_several_forms_is_refused() -> None:
    class Twice(ListStack):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(self.layers[0](self.layers[0](x), mask=x))

    model = stack(OptionalMask, Twice)
    for example in (None, rows()):
        with pytest.raises(ValueError, match=r"layers\.0 \(OptionalMask\) cannot: it is called in forms that no one"):
            prune(model, ["layers.0"], example=example)


class NotTraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = len(x)  # a graph would not do this
        x = x + self.f(x)
        return x + self.g(x)


def not_traceable(block: NotTraceable, add: Any, x: Tensor) -> Tensor:
    x = add("f", x, block.f, x)
    return add("g", x, block.g, x)


register_block(NotTraceable, not_traceable, {"f": ["f"], "g": ["g"]})


def test_registered_blocks_are_pruned_in_their_registered_forward() -> None:
    model, inputs = stack(NotTraceable), rows()
    for names in (["blocks.0.f"], ["blocks.1.f", "blocks.1.g"]):
        small = prune(model, names)
        assert torch.equal(small(inputs), with_dropped(model, names, inputs))
        assert_same_state(small, model, subset=True)


@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_encoder_layers_of_torch(norm_first: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first) for _ in range(2))
    ).eval()
    inputs = torch.randn(2, 3, 8)
    for names in (["0.self_attn"], ["0.linear1", "1.self_attn"], ["1.self_attn", "1.linear1"]):
        small = prune(model, names)
        assert torch.equal(small(inputs), with_dropped(model, names, inputs))
        small.train()
        assert not torch.equal(small(inputs), small(inputs))  # dropout


def test_a_caller_that_reads_what_is_gone() -> None:
    """`nn.TransformerEncoder` looks at the attention of its first layer."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    model, inputs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), torch.randn(2, 3, 8)
    names = ["layers.0.linear1", "layers.1.self_attn"]
    small = prune(model, names, example=inputs)
    with torch.no_grad():
        assert torch.equal(small(inputs), with_dropped(model, names, inputs, example=inputs))
    with pytest.raises(ValueError, match="must leave a network that runs.*'self_attn'"):
        prune(model, ["layers.0.self_attn"], example=inputs)


LOAD = """
import sys
sys.modules["residualdroppath"] = None  # importing it raises
import torch
model, inputs, expected = torch.load(sys.argv[1], weights_only=False)
assert torch.equal(model.eval()(inputs), expected)
torch.save(model, sys.argv[1])
model.train()
assert not torch.equal(model(inputs), model(inputs))
again = torch.load(sys.argv[1], weights_only=False)
assert torch.equal(again.eval()(inputs), expected)
again.train()(inputs).sum().backward()
assert again.state_dict().keys() == model.state_dict().keys()
"""


def test_it_loads_and_runs_without_this_package(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(ModeReader(), OptionalMask(), tiny_blocks.TwoAdds(), NotTraceable()).eval()
    names, inputs = ["0.fc1", "1", "2.attn", "3.f"], rows(width=WIDTH)
    small = prune(model, names)
    torch.save((small, inputs, small(inputs)), tmp_path / "small.pt")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "small.pt")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_a_model_under_residual_drop_path() -> None:
    model, inputs = stack(tiny_blocks.TwoAdds).train(), rows()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    small = prune(model, [rdp.branches[1], rdp.branches[4].name])
    assert not any("forward" in vars(module) for module in small.modules())
    model.eval()
    actions = [drop if place in (1, 4) else None for place in range(6)]
    with rdp.acting(actions, in_evaluation=True):
        expected = model(inputs)
    assert torch.equal(small.eval()(inputs), expected)
    assert rdp.iteration == 1 and all(p.requires_grad for p in small.parameters())
    ResidualDropPath(small, 0.5, rate_over_depth="uniform")  # what is left may be trained by the method


def test_nothing_to_prune_is_a_copy() -> None:
    model, inputs = stack(tiny_blocks.OwnAdd), rows()
    small = prune(model, [])
    assert small is not model and type(small) is type(model) and torch.equal(small(inputs), model(inputs))
    assert_same_state(small, model)


def test_errors() -> None:
    model = stack(tiny_blocks.OwnAdd)
    with pytest.raises(ValueError, match=r"names of residual branches of the model, blocks\.0, .*got blocks\.7"):
        prune(model, ["blocks.0", "blocks.7"])
    unhashable: Any = ["blocks.0"]
    with pytest.raises(ValueError, match=r"names of residual branches.*got \['blocks.0'\]"):
        prune(model, [unhashable])
    with pytest.raises(ValueError, match="must be a list of names.*got 'blocks.0'"):
        prune(model, "blocks.0")
    with pytest.raises(NoResidualBranchError):
        prune(nn.Linear(3, 3), ["x"])
    model.blocks[1].register_forward_hook(lambda *_: None)  # pyright: ignore
    with pytest.raises(ValueError, match=r"blocks\.1 \(OwnAdd\) cannot: it has hooks"):
        prune(model, ["blocks.1"])
    prune(model, ["blocks.0"])


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("resnet26d", 32, {}),
        ("vit_tiny_patch16_224", 32, {"img_size": 32, "depth": 2, "drop_path_rate": 0.2}),
        ("convnext_atto", 64, {}),
        ("efficientnet_b0", 32, {}),
        (
            "swin_tiny_patch4_window7_224",
            32,
            {"img_size": 32, "window_size": 4, "depths": (2, 2), "embed_dim": 24, "num_heads": (3, 6)},
        ),
    ],
)
def test_models_of_timm(name: str, size: int, options: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=5, **options).eval()
    inputs = torch.randn(2, 3, size, size)
    names = names_of(model)
    for chosen in (names[1::2], names):
        small = prune(model, chosen)
        assert torch.equal(small(inputs), with_dropped(model, chosen, inputs))
        assert torch.equal(reloaded(small)(inputs), small(inputs))
        assert_same_state(small, model, subset=True)
        assert small.train()(inputs).requires_grad


@pytest.mark.full
@pytest.mark.parametrize("kind", ["Bert", "GPT2"])
def test_models_of_transformers(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"bos_token_id": 1, "eos_token_id": 2}
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    example = {"input_ids": torch.randint(0, 50, (2, 7))}
    names = names_of(model, example)
    small = prune(model, names[1:3], example=example)
    rdp = ResidualDropPath(model, 0.0, example=example)
    actions = [drop if name in names[1:3] else None for name in names]
    for ids in (example["input_ids"], torch.randint(0, 50, (3, 9))):
        with rdp.acting(actions, in_evaluation=True):
            expected = model(input_ids=ids)[0]
        assert torch.equal(small(input_ids=ids)[0], expected)
        assert torch.equal(reloaded(small)(input_ids=ids)[0], expected)
    assert small.train()(**example)[0].requires_grad
