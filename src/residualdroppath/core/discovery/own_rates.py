"""The rates of a model's own drop path, branch by branch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence

from torch import fx, nn

from ..graph.node_kinds import OF_ITS_FIRST, has_no_gradient, is_product
from ..graph.trace_errors import UntraceableError
from ..graph.tracing import trace_forward
from .block_branches import find_block_branches
from .branch_subgraph import ResidualAdd
from .found import Discovery, FoundBranch
from .own_drop_path import OwnDropPath, stacks_of, switched_off
from .registry import registered_block

KEEP_FIRST_LAYER = ("WavLMEncoder", "WavLMEncoderStableLayerNorm")  # their layerdrop skips all layers but the first


def rates_of_branches(model: nn.Module, discovery: Discovery, own: Sequence[OwnDropPath]) -> tuple[float, ...]:
    """For each branch found, the probability at which the model itself would drop it.

    That is the rate of the drop path between the branch and its add, combined with the rate of the block
    and the layerdrop of the stacks that it lies in: keep probabilities multiply. Drop path around a part of
    the branch only, as in a residual block nested in it, does not count; of parallel parts, the lowest rate.

    Raises:
        ValueError: no drop path is on, none acts on a branch, or one lies where it cannot be attributed.
    """
    if not own:
        raise ValueError(
            f"`drop_path_rate='model'` needs a model with drop path of its own that is on; {type(model).__name__} has "
            "none (no DropPath, StochasticDepth or layerdrop with a rate above 0). Build it with one, for instance "
            "`timm.create_model(..., drop_path_rate=0.1)`, or pass a rate in [0, 1)."
        )
    stacks = [(one.rate, _layers(stack)) for one in own if one.kind == "layerdrop" for stack in stacks_of(model, one)]
    with switched_off(own):  # as the blocks will run
        of_blocks = _RatesOfBlocks(own)
        rates = tuple(
            combined(
                of_blocks.of_branch(branch, discovery.outputs_read.get(branch.block)),
                *(rate for rate, layers in stacks if _lies_in(layers, branch)),
            )
            for branch in discovery.branches
        )
    if not any(rates):
        raise ValueError(
            f"`drop_path_rate='model'` needs drop path on residual branches; that of {type(model).__name__} "
            f"({', '.join(one.path for one in own[:3])}) acts on none of the {len(rates)} that were found. Pass a "
            "rate in [0, 1), or rates of single branches as `drop_rates`."
        )
    return rates


def combined(*rates: float) -> float:
    """The rate of independent drop paths in a row: keep probabilities multiply."""
    return functools.reduce(lambda first, second: first + second - first * second, rates, 0.0)


class _RatesOfBlocks:
    """Rates of branches and modules under the drop path `own`, layerdrop apart."""

    def __init__(self, own: Sequence[OwnDropPath]):
        self.own = {id(one.holder): one for one in own if one.kind != "layerdrop"}
        self.of_child = functools.cache(self._of_child)
        self.adds_of = functools.cache(_adds_of)

    def of_branch(self, branch: FoundBranch, outputs_read: frozenset[int] | None) -> float:
        block = branch.block
        if not any(id(module) in self.own for module in block.modules()):
            return 0.0
        add = self.adds_of(block, outputs_read).get(branch.suffix)
        if add is None:  # registered: the children of the branch are taken to run in a row
            return combined(self.given_by(block), *map(self.of_child, _called(branch)))
        inlined = [block.get_submodule(path) for path, _ in add.node.meta.get("nn_module_stack", {}).values()]
        along = self.along(add.node.graph, block, add.nodes)[add.branch]
        return combined(along, *map(self.given_by, {block, *inlined}))

    def given_by(self, module: nn.Module) -> float:
        """What a module applies to the adds in its own forward."""
        return self.own[id(module)].rate if id(module) in self.own else 0.0

    def _of_child(self, module: nn.Module) -> float:
        """Between what a child is given and what it returns (of several values, the first)."""
        inside = [self.own[id(member)] for member in module.modules() if id(member) in self.own]
        if not inside or registered_block(module):
            return 0.0
        if inside[0].holder is module and inside[0].kind == "module":
            return inside[0].rate
        try:
            graph = trace_forward(module)
        except UntraceableError as error:
            raise ValueError(
                f"`drop_path_rate='model'` needs to know which branch the drop path {inside[0].path} acts on, but it "
                f"lies in a {type(module).__name__} that cannot be traced ({error}). Pass a rate in [0, 1), or rates "
                "of single branches as `drop_rates`."
            ) from error
        (output,) = (node for node in graph.nodes if node.op == "output")
        found = self.along(graph, module, graph.nodes)
        along = next((found[value] for value in output.all_input_nodes if value in found), 0.0)
        return along if self.adds_of(module, None) else combined(along, self.given_by(module))

    def along(self, graph: fx.Graph, module: nn.Module, members: Iterable[fx.Node]) -> dict[fx.Node, float]:
        """By node that computes something from arguments: the rate from the first of `members` on.

        Where paths join, the lowest, since a value with one path left is not dropped; of factors, the highest.
        """
        inside = set(members)
        rates: dict[fx.Node, float] = {}
        for node in graph.nodes:
            sources = [rates[source] for source in _sources(node) if source in rates]
            if node.op != "placeholder" and (not sources or has_no_gradient(node)):
                continue
            rates[node] = 0.0
            if sources and node in inside:
                rates[node] = max(sources) if is_product(node) else min(sources)
                if node.op == "call_module":
                    rates[node] = combined(rates[node], self.of_child(module.get_submodule(str(node.target))))
        return rates


def _sources(node: fx.Node) -> list[fx.Node]:
    is_first_alone = node.op == "call_method" and node.target in OF_ITS_FIRST
    return node.all_input_nodes[:1] if is_first_alone else node.all_input_nodes


def _adds_of(block: nn.Module, outputs_read: frozenset[int] | None) -> dict[str, ResidualAdd]:
    """The residual adds by name; none where they were registered, or the forward cannot be traced."""
    if registered_block(block):
        return {}
    try:
        return find_block_branches(block, outputs_read).found
    except UntraceableError:
        return {}


def _called(branch: FoundBranch) -> Iterator[nn.Module]:
    for name in (*branch.roots, *branch.shares):
        with contextlib.suppress(AttributeError):  # a parameter, or a child that is None
            yield branch.block.get_submodule(name)


def _layers(stack: nn.Module) -> set[nn.Module]:
    """The modules that layerdrop of `stack` skips, and all below them."""
    lists = [module for module in (stack, *stack.children()) if isinstance(module, nn.ModuleList)]
    first = int(type(stack).__name__ in KEEP_FIRST_LAYER)
    return {below for layers in lists for layer in list(layers.children())[first:] for below in layer.modules()}


def _lies_in(layers: set[nn.Module], branch: FoundBranch) -> bool:
    """Whether a branch is part of `layers`; of a stack that is one block, its modules are."""
    modules = branch.modules()
    return branch.block in layers or (len(modules) > 0 and layers.issuperset(modules))
