"""Residual networks drawn at random by hypothesis, each knowing its branches by construction."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn

from contracts.by_hand import TRUNK
from contracts.by_hand import Gate as NamedGate
from contracts.comparing import Inputs
from contracts.subject import Subject

from .random_blocks import OVERWRITES_BRANCH, OVERWRITES_SHORTCUT, Block, BlockSpec, BranchSpec, Family, Gate

WIDTHS = (4, 6, 8)
LENGTH = 8
BETWEEN = {"relu": nn.ReLU, "relu_": lambda: nn.ReLU(inplace=True)}
DRAWN_KINDS = ("OneBranch",) * 4 + ("TwoAdds",) * 2 + ("ParallelAsOne", "ParallelAsTwo", "NotResidual")
SAFE_ADDS = ("s + b", "b + s", "torch.add(s, b)", "torch.add(b, s)", "s.add(b)", "b.add(s)")


@dataclass(frozen=True)
class NetworkSpec:
    """`items` in order of execution: a block, an activation between blocks, or an earlier item once more.

    `share` picks two layers of branches that become one, `tie_head` one whose weight becomes the head's.
    """

    convolutional: bool
    body: str
    items: tuple[BlockSpec | str | int, ...]
    masks: tuple[str, ...]
    stem_norm: bool
    share: tuple[int, int] | None
    tie_head: int | None
    rows: int
    seed: int

    def build(self) -> Network:
        """The network in float64 and training mode, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            network = Network(self).double()
            for parameter in network.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
        return network.train()

    def inputs(self, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (self.rows, 5, LENGTH) if self.convolutional else (self.rows, 5)
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def subject(self) -> Subject:
        """To be held to the contracts."""
        return Subject(
            build=self.build,
            inputs=lambda seed: {"x": self.inputs(seed)},
            branches=expected_branches(self).parameters,
            formula=formula,
            can_be_pickled=True,
        )


def formula(network: Network, inputs: Inputs, gate: NamedGate) -> Tensor:
    return network.formula(inputs["x"], lambda block, index, run: gate(network.branch_name(block, index), run))


class Network(nn.Module):
    """Stem, body and head."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.convolutional = spec.convolutional
        family = Family(spec.convolutional)
        width = WIDTHS[spec.seed % len(WIDTHS)]
        self.stem = nn.Sequential(family.layer(5, width), *([nn.BatchNorm1d(width)] if spec.stem_norm else []))
        items: list[nn.Module] = []
        for item in spec.items:
            if isinstance(item, BlockSpec):
                items.append(item.build(family, width))
                width = item.width
            else:
                items.append(BETWEEN[item]() if isinstance(item, str) else items[item])
        self.body = _body(spec.body, items)
        self.head = family.layer(width, width)
        if spec.share:
            _share(self, *spec.share)
        if spec.tie_head is not None:
            _tie_head(self, spec.tie_head)

    def in_order(self) -> Iterator[tuple[Any, str]]:
        """Items of the body as they run, and how each is given its mask."""
        if self.spec.body == "stages":
            items = [item for stage in self.body.children() for item in stage._modules.values()]
        else:
            items = list(self.body._modules.values())
        return zip(reversed(items) if self.spec.body == "reversed" else items, self.spec.masks, strict=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.spec.body in ("sequential", "stages"):
            x = self.body(x)
        else:
            for item, mask in self.in_order():
                if mask == "keyword":
                    x = item(x, mask=self.mask(x))
                elif mask == "position":
                    x = item(x, self.mask(x))
                else:
                    x = item(x)
                if isinstance(item, Block) and item.spec.returns_tuple:
                    x = x[0]
        return self.classify(x)

    def formula(self, x: Tensor, gate: Gate) -> Tensor:
        """The forward with every residual branch behind `gate`."""
        x = self.stem(x)
        for item, mask in self.in_order():
            if isinstance(item, Block):
                x = item.formula(x, self.mask(x) if mask != "none" else None, gate)
            else:
                x = item(x)
        return self.classify(x)

    def mask(self, x: Tensor) -> Tensor:
        """1 or 1/2 by row."""
        first = x[:, :1, :1] if self.convolutional else x[:, :1]
        return 0.5 + 0.5 * (first > 0).to(x.dtype)

    def classify(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return x.mean(-1) if self.convolutional else x

    def branch_name(self, block: Block, index: int) -> str:
        path = next(path for path, module in self.named_modules() if module is block)
        return ".".join(filter(None, (path, block.suffix(index))))


@dataclass(frozen=True)
class Expected:
    """By the name of each branch, in order of execution, its parameters and the number of its block."""

    parameters: dict[str, set[str]]
    blocks: tuple[int, ...]

    def can_be_dropped(self, options: dict[str, Any]) -> bool:
        """Whether some branch has a rate above 0: one behind the first block, or any; with something to train."""
        rated = [block > 0 or max(self.blocks) == 0 or options["rate_over_depth"] == "uniform" for block in self.blocks]
        trained = [bool(names) or options["schedule"] == (1, 0) for names in self.parameters.values()]
        return any(map(operator.and_, rated, trained))


def expected_branches(spec: NetworkSpec) -> Expected:
    """What discovery has to find: the gates in order, and of each what nothing else can reach."""
    network = spec.build()
    found: dict[str, tuple[Block, int]] = {}

    def gate(block: Block, index: int, run: Any) -> float:
        found.setdefault(network.branch_name(block, index), (block, index))
        return 0.0

    with torch.no_grad():
        network.formula(spec.inputs(), gate)
    prefixes = [
        (f"{path}.{member}.", branch)
        for path, module in network.named_modules(remove_duplicate=False)
        for branch, (block, index) in found.items()
        if block is module
        for member in block.members(index)
    ]
    owners: dict[int, set[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        mine = {branch for prefix, branch in prefixes if f"{name}.".startswith(prefix)}
        owners.setdefault(id(parameter), set()).update(mine or {TRUNK})
    names = {name: owners[id(parameter)] for name, parameter in network.named_parameters()}
    numbers = {block: number for number, block in enumerate(dict.fromkeys(block for block, _ in found.values()))}
    return Expected(
        parameters={branch: {name for name, mine in names.items() if mine == {branch}} for branch in found},
        blocks=tuple(numbers[block] for block, _ in found.values()),
    )


def _body(kind: str, items: list[nn.Module]) -> nn.Module:
    if kind == "sequential":
        return nn.Sequential(*items)
    if kind == "stages":
        half = (len(items) + 1) // 2
        return nn.Sequential(nn.Sequential(*items[:half]), nn.Sequential(*items[half:]))
    return nn.ModuleList(reversed(items) if kind == "reversed" else items)


def _layers_of_branches(network: Network) -> list[tuple[nn.Module, str, nn.Module]]:
    """Each layer with parameters in a branch: the module that holds it, its name there, itself."""
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    parts = [(block, name) for block in blocks for names in block.parts for name in names]
    tops = [(block, name, block.get_submodule(name)) for block, name in parts]
    nested = [
        (top, name, child) for _, _, top in tops if type(top) is nn.Sequential for name, child in top.named_children()
    ]
    return [
        (holder, name, layer)
        for holder, name, layer in [*tops, *nested]
        if layer._parameters and not isinstance(layer, Block)
    ]


def _form(layer: nn.Module) -> tuple:
    return repr(layer), [parameter.shape for parameter in layer.parameters()]


def _share(network: Network, first: int, second: int) -> None:
    """Let one layer take the place of another of the same form."""
    layers = _layers_of_branches(network)
    pairs = [
        (layer, holder, name)
        for _, _, layer in layers
        for holder, name, other in layers
        if layer is not other and _form(layer) == _form(other)
    ]
    if pairs:
        layer, holder, name = pairs[(100 * first + second) % len(pairs)]
        holder.add_module(name, layer)


def _tie_head(network: Network, choice: int) -> None:
    layers = [layer for _, _, layer in _layers_of_branches(network) if repr(layer) == repr(network.head)]
    if layers:
        network.head.register_parameter("weight", layers[choice % len(layers)].get_parameter("weight"))


@st.composite
def branch_specs(
    draw: DrawFn, spec: BlockSpec, name: str, convolutional: bool, overwritable: bool, depth: int
) -> BranchSpec:
    """One branch of the block `spec`; `overwritable` says that nobody else needs the shortcut."""
    projected = "projection" in spec.shortcut
    least = 2 if projected or (convolutional and spec.kind.startswith("Parallel")) else 1
    style = draw(st.sampled_from(("norm last", "norm first", "bare", "relu first")))
    layers = draw(st.integers(least, 3))
    unit = {"norm last": ("layer", "norm", "act"), "norm first": ("norm", "act", "layer")}.get(style, ("layer", "act"))
    pieces = list(unit) * layers
    if pieces[-1] == "act":
        pieces.pop()
    if style == "relu first":
        pieces.insert(0, "relu")
    norm = draw(st.sampled_from(("batch", "batch", "layer", "group", "none")))
    if norm == "none":
        pieces = [piece for piece in pieces if piece != "norm"]
        pieces[0] = "relu" if pieces[0] == "act" else pieces[0]
    inner = None
    # Projections alone around a block of several branches would be a skip around it.
    if depth > 0 and not {"act", "relu"}.isdisjoint(pieces) and draw(st.integers(0, 3)) == 0:
        # After a layer the width is the block's; what the layer returned may be overwritten.
        pieces.insert(pieces.index("layer") + 1, "block")
        inner = draw(block_specs(convolutional, spec.width, True, depth - 1, inner=True))
        if inner.output_is_saved:
            pieces.insert(pieces.index("block") + 1, "layer")
    scales = ("none", "none", "number", "module", "vector", "scalar")
    scale = draw(st.sampled_from(scales))
    adds = [*SAFE_ADDS, *OVERWRITES_BRANCH]
    if overwritable and pieces[0] == "relu":
        adds += 4 * OVERWRITES_SHORTCUT
    return BranchSpec(
        name=name,
        pieces=tuple(pieces),
        norm=norm,
        act=draw(st.sampled_from(("relu", "relu_", "tanh", "gelu"))),
        loose=draw(st.booleans()),
        scale=scale,
        add=draw(st.sampled_from(adds)),
        inner=inner,
    )


@st.composite
def block_specs(
    draw: DrawFn,
    convolutional: bool,
    width_in: int,
    overwritable: bool,
    depth: int = 1,
    inner: bool = False,
) -> BlockSpec:
    """A block for inputs of `width_in` channels; an `inner` one keeps width and length and returns a tensor."""
    kind = draw(st.sampled_from(DRAWN_KINDS))
    shortcut, width, stride = "identity", width_in, 1
    before = behind = None
    if not inner and depth > 0:
        if draw(st.integers(0, 7)) == 0:
            before = draw(block_specs(convolutional, width_in, overwritable, 0, inner=True))
            overwritable = not before.output_is_saved
    entry = draw(st.sampled_from(("", "", "", "batch", "layer")))
    if kind not in ("TwoAdds", "NotResidual") and draw(st.booleans()):
        shortcuts = ["projection", "projection norm", "scaled"]
        if not inner:
            shortcuts += ["pad"] + (["pool", "pool projection norm"] if convolutional else [])
        shortcut = draw(st.sampled_from(shortcuts))
        if not inner and shortcut not in ("pool", "scaled"):
            width = draw(st.sampled_from([w for w in WIDTHS if shortcut != "pad" or w > width_in or w == max(WIDTHS)]))
            width = max(width, width_in) if shortcut == "pad" else width
            stride = draw(st.integers(1, 2)) if convolutional else 1
        stride = 2 if shortcut.startswith("pool") else stride
    spec = BlockSpec(kind, width, (), stride=stride, entry=entry, shortcut=shortcut, before=before)
    # What a norm or projection made is nobody else's.
    may_overwrite = shortcut.startswith("projection") or (shortcut == "identity" and (overwritable or entry != ""))
    may_overwrite = may_overwrite and kind not in ("ParallelAsTwo", "NotResidual")
    run_twice = kind == "TwoAdds" and draw(st.integers(0, 3)) == 0
    first = draw(branch_specs(spec, "f", convolutional, may_overwrite, 0 if kind == "NotResidual" else depth))
    branches = [first]
    if kind == "TwoAdds" and not run_twice:
        branches.append(draw(branch_specs(spec, "g", convolutional, True, depth)))
    elif kind == "ParallelAsTwo":
        branches.append(draw(branch_specs(spec, "g", convolutional, False, depth)))
    elif kind in ("ParallelAsOne", "NotResidual"):  # two sides of the same length
        branches.append(replace(first, name="g"))
    afters = ("", "", "", "relu", "relu_", "F.relu_", "norm")
    if width == width_in and stride == 1 and kind in ("OneBranch", "TwoAdds") and first.inner is None:
        afters += ("last part",)  # of the branch, run once more by the trunk
    after = draw(st.sampled_from(afters))
    if depth > 0 and not inner and draw(st.integers(0, 3)) == 0:
        behind = draw(block_specs(convolutional, width, "relu" not in after, 0, inner=True))
    returns_tuple = not inner and draw(st.integers(0, 7)) == 0
    return replace(spec, branches=tuple(branches), after=after, behind=behind, returns_tuple=returns_tuple)


@st.composite
def networks(draw: DrawFn) -> NetworkSpec:
    """One to five blocks, what lies between them, and what they share."""
    convolutional = draw(st.booleans())
    body = draw(st.sampled_from(("sequential", "stages", "list", "reversed")))
    seed = draw(st.integers(0, 999))
    width = WIDTHS[seed % len(WIDTHS)]
    items: list[BlockSpec | str | int] = []
    overwritable = True
    for _ in range(draw(st.integers(1, 5))):
        last = items[-1] if items else None
        if isinstance(last, BlockSpec) and draw(st.integers(0, 3)) == 0:
            between = draw(st.sampled_from(("relu", "relu_", "again") if overwritable else ("relu", "again")))
            keeps_form = last.width == (_width_before(items, WIDTHS[seed % len(WIDTHS)])) and last.stride == 1
            if between != "again":
                items.append(between)
                overwritable = False
            elif keeps_form and (overwritable or not last.overwrites_input):
                items.append(len(items) - 1)
        block = draw(block_specs(convolutional, width, overwritable))
        if body in ("sequential", "stages"):
            block = replace(block, returns_tuple=False)
        items.append(block)
        width, overwritable = block.width, not block.output_is_saved
    if not any(isinstance(item, BlockSpec) and item.has_branches for item in items):
        plain = BranchSpec("f", ("layer",))
        items.append(BlockSpec("OneBranch", width, (plain,)))
    masks = ("none", "keyword", "position") if body in ("list", "reversed") else ("none",)
    return NetworkSpec(
        convolutional=convolutional,
        body=body,
        items=tuple(items),
        masks=tuple(draw(st.sampled_from(masks)) if isinstance(item, BlockSpec) else "none" for item in items),
        stem_norm=draw(st.booleans()),
        share=draw(st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99))),
        tie_head=draw(st.none() | st.integers(0, 99)),
        rows=draw(st.integers(3, 5)),
        seed=seed,
    )


def _width_before(items: list[BlockSpec | str | int], stem: int) -> int:
    """The width of what the last item is given."""
    widths = [item.width for item in items[:-1] if isinstance(item, BlockSpec)]
    return widths[-1] if widths else stem
