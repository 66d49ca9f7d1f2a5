"""Which adds are residual, what the branches are called, and what belongs to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.byobnet import RepVggBlock
from torch import Tensor, nn

from residualdroppath import NoResidualBranchError, ResidualDropPath
from residualdroppath.core.graph import tracing

from .tiny_blocks import WIDTH, OwnAdd, Stack, mlp
from .tiny_models import TRUNK, TinyModel, every_model


@every_model
def test_branches_and_their_parameters_are_those_written_by_hand(tiny: TinyModel) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(branch.name, [name_of[id(p)] for p in branch.parameters()]) for branch in rdp.branches]
    owners = tiny.owners(model)
    assert TRUNK in owners.values()  # the table leaves something to the trunk
    assert [name for name, _ in found] == list(tiny.branches)
    for branch, names in found:
        assert sorted(names) == sorted(name for name, owner in owners.items() if owner == branch)
        assert len(names) > 0
    assert [branch.num_parameters for branch in rdp.branches] == [
        sum(p.numel() for name, p in model.named_parameters() if owners[name] == branch) for branch in tiny.branches
    ]


@every_model
def test_branches_are_numbered_in_order_of_execution(tiny: TinyModel) -> None:
    model = tiny.build()
    first_module = {}
    for branch in ResidualDropPath(model, drop_path_rate=0).branches:
        modules = [slot.module for slot in branch.slots if slot.module is not branch.block]
        first_module[modules[0]] = branch.name
    called: list[str] = []
    for module, name in first_module.items():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    model(tiny.inputs())
    assert called == list(tiny.branches)


def test_blocks_defined_last_but_run_first_come_first() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late = OwnAdd()
            self.early = OwnAdd()

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.early(x))

    assert [branch.name for branch in ResidualDropPath(Backwards()).branches] == ["early", "late"]


def test_layers_inside_a_branch_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing is what takes time, and nothing can come of it there."""

    class Layer(nn.Linear):
        pass

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(Layer(WIDTH, WIDTH, bias=False), nn.ReLU(), Layer(WIDTH, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.branch(x)

    block = Block()
    model = nn.Sequential(Layer(WIDTH, WIDTH), block, Layer(WIDTH, WIDTH))
    traced: list[nn.Module] = []

    def trace(tracer: Any, *further: Any) -> Any:
        traced.append(tracer.root)
        return whole(tracer, *further)

    whole = tracing._trace
    monkeypatch.setattr(tracing, "_trace", trace)
    assert [branch.name for branch in ResidualDropPath(model).branches] == ["1"]
    assert not any(layer in traced for layer in block.branch)
    assert traced.count(model[0]) == traced.count(block) == 1 and model[2] not in traced  # as the first layer is


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)
        self.gate = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.f(x)
        return x * torch.sigmoid(self.gate(x))


class PositionEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.rand(WIDTH))
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x) + self.position


class TwoProjections(nn.Module):
    """As RepVGG, without its identity: two sides of equal standing."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(WIDTH, WIDTH)
        self.b = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class TwoLongSides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = mlp()
        self.b = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class AddsTwoInputs(nn.Module):
    """As feature-pyramid fusion."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.f(x), x.detach())

    def fuse(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y + 1


class BranchUsedTwice(nn.Module):
    """What else reads the branch would miss it, so it cannot be skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.f(x)
        return (x + branch) * torch.sigmoid(branch)


class BranchOverwritesShortcut(nn.Module):
    """The shortcut reads what the in-place activation of the branch has written."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out = self.f(self.act(x))
        return x + out


class ShortcutOverwritesInputOfBranch(nn.Module):
    """The branch reads `y` before the shortcut overwrites it, so it cannot run at the place of the add."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        out = self.f(y)
        return self.act(y) + out


class DependsOnValues(nn.Module):
    """Cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x + self.f(x)
        return x - self.f(x)


@pytest.mark.parametrize(
    "block",
    [SqueezeExcite, PositionEmbedding, TwoProjections, TwoLongSides, AddsTwoInputs, BranchUsedTwice]
    + [BranchOverwritesShortcut, ShortcutOverwritesInputOfBranch, DependsOnValues],
)
def test_other_adds_are_not_residual(block: type[nn.Module]) -> None:
    # Beside a true branch, which alone is found.
    model = nn.Sequential(OwnAdd(), block())
    assert [branch.name for branch in ResidualDropPath(model).branches] == ["0"]
    with pytest.raises(NoResidualBranchError):
        ResidualDropPath(nn.Sequential(block(), nn.Linear(WIDTH, WIDTH)))


def test_repvgg_of_timm_is_not_residual() -> None:
    with pytest.raises(NoResidualBranchError):
        ResidualDropPath(nn.Sequential(RepVggBlock(4, 4), RepVggBlock(4, 8, stride=2)))


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (TwoProjections, "equal standing"),
        (BranchUsedTwice, "used elsewhere"),
        (BranchOverwritesShortcut, "its branch overwrites the shortcut"),
        (ShortcutOverwritesInputOfBranch, "act overwrites what its branch reads"),
    ],
)
def test_what_is_left_aside_is_told_with_its_reason(block: type[nn.Module], reason: str) -> None:
    with pytest.raises(NoResidualBranchError, match=reason):
        ResidualDropPath(Stack(block))
    rdp = ResidualDropPath(nn.Sequential(OwnAdd(), block()))
    (rejected_adds,) = rdp.discovery.rejected_adds.items()
    assert rejected_adds[0].startswith("1.") and reason in rejected_adds[1]
    assert reason in repr(rdp)


def test_an_add_in_place_must_not_overwrite_what_a_later_branch_has_read() -> None:
    class TwoInplaceAdds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(WIDTH, WIDTH)
            self.b = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 2
            a, b = self.a(x.sin()), self.b(x)
            x += a
            x += b
            return x

    rdp = ResidualDropPath(nn.Sequential(TwoInplaceAdds(), OwnAdd()))
    assert [branch.name for branch in rdp.branches] == ["0", "1"]
    assert rdp.branches[0].parameters() == list(rdp.branches[0].block.get_submodule("a").parameters())
    (reason,) = rdp.discovery.rejected_adds.values()
    assert "overwrites what its branch reads" in reason


def test_no_branch_is_an_error_that_says_what_was_looked_for_and_how_to_register() -> None:
    with pytest.raises(NoResidualBranchError) as raised:
        ResidualDropPath(Stack(DependsOnValues))
    message = str(raised.value)
    assert "No residual branch was found in Stack" in message
    assert "x + self.branch(x)" in message
    assert "Could not be traced: blocks.0 (DependsOnValues" in message
    call = (
        'residualdroppath.register_block(DependsOnValues, lambda block, add, x: add("f", x, '
        'lambda x: type(block).forward(block, x) - x, x), {"f": ["f"]})'
    )
    assert message.endswith(f"`{call}`.")


def test_a_branch_inside_a_branch_is_left_to_the_outer_one() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(OwnAdd(), nn.Linear(WIDTH, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    rdp = ResidualDropPath(nn.Sequential(Outer(), Outer()))
    assert [branch.name for branch in rdp.branches] == ["0", "1"]
    assert rdp.discovery.rejected_adds == {
        "0.inner.0": "it lies inside the branch 0",
        "1.inner.0": "it lies inside the branch 1",
    }


def test_what_two_branches_share_belongs_to_the_trunk() -> None:
    model = Stack(OwnAdd)
    shared = model.blocks[0].get_submodule("branch.0")
    model.blocks[1].get_submodule("branch").register_module("0", shared)
    rdp = ResidualDropPath(model)
    assert rdp.shared_parameters == ("blocks.0.branch.0.weight", "blocks.0.branch.0.bias")
    assert [branch.num_parameters for branch in rdp.branches] == [54, 54, 96]
    assert "used in several places, taken as trunk: blocks.0.branch.0.weight" in repr(rdp)


def test_repr_lists_branches_rates_and_parameters() -> None:
    rdp = ResidualDropPath(Stack(OwnAdd), drop_path_rate=0.25, rate_over_depth="linear")
    text = repr(rdp)
    assert "3 residual branches in 3 blocks, with 288 of 345 parameters" in text
    effective = 0.25 / (1 - 0.875 * 0.75)
    (line,) = (line for line in text.splitlines() if "blocks.2" in line)
    assert line.split()[-4:] == ["0.250", f"{effective:.3f}", "96", "OwnAdd"]


def test_a_model_under_another_residual_drop_path_is_refused() -> None:
    model = Stack(OwnAdd)
    rdp = ResidualDropPath(model)
    with pytest.raises(ValueError, match="already under a ResidualDropPath"):
        ResidualDropPath(model)
    rdp.remove()
    ResidualDropPath(model)


def test_a_model_that_is_itself_a_block_is_named_after_its_class() -> None:
    assert [branch.name for branch in ResidualDropPath(OwnAdd()).branches] == ["OwnAdd"]


def test_repr_marks_what_is_dropped() -> None:
    rdp = ResidualDropPath(Stack(OwnAdd), drop_path_rate=0.5, rate_over_depth="uniform")
    assert rdp.plan.dropped and rdp.plan.kept
    marked = {line[2:].split()[0] for line in repr(rdp).splitlines() if line.startswith(" *")}
    assert marked == set(rdp.plan.dropped)


class ScalesTwice(nn.Module):
    """A learned scale of its input, as a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + x * self.gain


class TwoSidesOfOneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x) + torch.tanh(self.g(x))


class ProjectionWithActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g, self.h = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.f(x)) + self.h(torch.tanh(self.g(x)))


@pytest.mark.parametrize("block", [ScalesTwice, TwoSidesOfOneLayer, ProjectionWithActivation])
def test_sides_that_are_no_shortcut_or_no_branch(block: type[nn.Module]) -> None:
    assert [branch.name for branch in ResidualDropPath(nn.Sequential(OwnAdd(), block())).branches] == ["0"]


def test_branches_are_named_after_their_first_layer() -> None:
    class TwoLayersEach(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f1, self.f2, self.g1, self.g2 = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.f2(torch.tanh(self.f1(x)))
            return x + self.g2(torch.tanh(self.g1(x)))

    assert [branch.name for branch in ResidualDropPath(nn.Sequential(TwoLayersEach())).branches] == ["0.f1", "0.g1"]
