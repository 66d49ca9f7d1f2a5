"""Find the residual branches of any network, in order of execution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import fx, nn

from .registry import registered_block
from .residual_add import ResidualAdd, find_residual_adds, is_inplace, node_parameters
from .tracing import UntraceableError, trace_forward


class NoResidualBranchError(ValueError):
    """The network has no residual branch that could be found."""


@dataclass(frozen=True)
class FoundBranch:
    """A branch before anything acts on it.

    `roots` are the children and parameters of `block` (dotted names) that the branch alone uses.
    """

    name: str
    suffix: str
    block: nn.Module
    block_path: str
    block_index: int
    roots: tuple[str, ...]


@dataclass
class Discovery:
    """What was found in a network, and what was left aside: by module path, the reason."""

    branches: list[FoundBranch] = field(default_factory=list)
    left_aside: dict[str, str] = field(default_factory=dict)
    untraceable: dict[str, str] = field(default_factory=dict)
    # Whether something outside the blocks may overwrite the output of a block.
    outputs_may_be_overwritten: bool = False


def discover(model: nn.Module) -> Discovery:
    """All residual branches of `model`. Raises `NoResidualBranchError` if there is none."""
    return _Walk(model).result()


def name_adds(graph: fx.Graph, adds: list[ResidualAdd], block: nn.Module) -> dict[str, ResidualAdd]:
    """The adds of one block by the last part of their branch's name.

    That part is empty where the block has one branch, else the first child in the branch with a
    weight matrix or kernel (`attn`, not the norm before it).
    """
    if len(adds) == 1:
        return {"": adds[0]}
    named: dict[str, ResidualAdd] = {}
    for add in adds:
        suffix = _first_parametrised(add, block)
        count = sum(other.split("@")[0] == suffix for other in named)
        named[suffix if not count else f"{suffix}@{count + 1}"] = add
    return named


def _first_parametrised(add: ResidualAdd, block: nn.Module) -> str:
    used = [(str(node.target), node_parameters(block, node)) for node in add.nodes]
    with_weights = [name for name, parameters in used if any(p.dim() >= 2 for p in parameters)]
    return (with_weights or [name for name, parameters in used if parameters])[0]


class _Walk:
    """Visits each module once, in order of execution where forwards can be traced."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.found = Discovery()
        self.seen: set[nn.Module] = set()
        self.num_blocks = 0

    def result(self) -> Discovery:
        self.visit(self.model, "", inside="")
        if not self.found.branches:
            raise NoResidualBranchError(self.nothing_found())
        return self.found

    def visit(self, module: nn.Module, path: str, inside: str) -> None:
        """Visit a module and its children; `inside` names the branch it lies in, if any."""
        if module in self.seen or not any(True for _ in module.parameters()):
            return
        self.seen.add(module)
        registered = registered_block(module)
        if registered is not None:
            branches = {
                name if len(registered.branches) > 1 else "": roots for name, roots in registered.branches.items()
            }
            self.record(module, path, branches, inside)
            self.visit_children(module, path, dict.fromkeys(branches, ()) if inside else branches, None, inside)
            return
        if _is_library_leaf(module):
            return
        try:
            graph = trace_forward(module)
        except UntraceableError as error:
            num_blocks = self.num_blocks
            self.visit_children(module, path, {}, None, inside)
            if not inside:
                self.found.untraceable[path or type(module).__name__] = f"{type(module).__name__}: {error}"
                holds_inplace = any(getattr(child, "inplace", False) is True for child in module.modules())
                self.found.outputs_may_be_overwritten |= holds_inplace or self.num_blocks > num_blocks
            return
        adds, others = find_residual_adds(graph, module)
        for other in others:
            if not inside:
                self.found.left_aside[_join(path, other.node.name)] = other.reason
        named = name_adds(graph, adds, module)
        branches = {suffix: _roots(add, graph) for suffix, add in named.items()}
        self.record(module, path, branches, inside)
        if not inside:
            self.found.outputs_may_be_overwritten |= _overwrites_outputs(graph, module, is_block=bool(adds))
        self.visit_children(module, path, branches, graph, inside)

    def record(self, block: nn.Module, path: str, branches: dict[str, tuple[str, ...]], inside: str) -> None:
        for suffix, roots in branches.items():
            name = _join(path, suffix) or type(block).__name__
            if inside:
                self.found.left_aside[name] = f"it lies inside the branch {inside}"
            else:
                self.found.branches.append(FoundBranch(name, suffix, block, path, self.num_blocks, roots))
        self.num_blocks += bool(branches) and not inside

    def visit_children(
        self,
        module: nn.Module,
        path: str,
        branches: dict[str, tuple[str, ...]],
        graph: fx.Graph | None,
        inside: str,
    ) -> None:
        owner = {
            root: _join(path, suffix) or type(module).__name__ for suffix, roots in branches.items() for root in roots
        }
        for name in _in_order(module, graph):
            child = module.get_submodule(name)
            self.visit(child, _join(path, name), inside or owner.get(name, ""))

    def nothing_found(self) -> str:
        lines = [
            f"No residual branch was found in {type(self.model).__name__}. Looked for: an add in a module's forward, "
            "one operand of which reaches a common input without parameters (or through one projection) while the "
            "other runs through parametrised modules, as in `x + self.branch(x)`."
        ]
        if self.found.left_aside:
            lines.append("Adds that are not residual: " + _first_few(self.found.left_aside) + ".")
        if self.found.untraceable:
            lines.append("Could not be traced: " + _first_few(self.found.untraceable) + ".")
        block = next(iter(self.found.untraceable.values()), "MyBlock").split(":")[0]
        lines.append(
            "If the network has residual branches, register the class of their block: "
            f"`residualdroppath.register_block({block}, forward, branches)`, see its docstring."
        )
        return " ".join(lines)


def _roots(add: ResidualAdd, graph: fx.Graph) -> tuple[str, ...]:
    """Children and parameters that only the branch names."""
    mine = set(add.nodes)
    elsewhere = {node.target for node in graph.nodes if node.op in ("call_module", "get_attr") and node not in mine}
    used = (str(node.target) for node in add.nodes if node.op in ("call_module", "get_attr"))
    return tuple(dict.fromkeys(name for name in used if name not in elsewhere))


def _in_order(module: nn.Module, graph: fx.Graph | None) -> Iterator[str]:
    """Names of descendants to visit: those called, in order of the calls, then the other children."""
    if graph is not None:
        yield from dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module")
    for name, _ in module.named_children():
        yield name


def _overwrites_outputs(graph: fx.Graph, module: nn.Module, *, is_block: bool) -> bool:
    """Whether a forward may overwrite what it is given or, outside a block, what a child returned."""
    for node in graph.nodes:
        if is_inplace(node, module) and node.all_input_nodes:
            source = node.all_input_nodes[0]
            given = source.op == "placeholder"
            fresh = source.op == "call_module" and _is_library_leaf(module.get_submodule(str(source.target)))
            if given or not (is_block or fresh):
                return True
    return False


def _is_library_leaf(module: nn.Module) -> bool:
    """PyTorch's own layers, which hold no residual add of a shape that tracing could find."""
    defined_in = type(module).__module__
    return defined_in.startswith("torch.nn.modules") and not defined_in.endswith((".container", ".transformer"))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _first_few(reasons: dict[str, str], limit: int = 3) -> str:
    few = [f"{name} ({reason})" for name, reason in list(reasons.items())[:limit]]
    return "; ".join(few) + (f"; and {len(reasons) - limit} more" if len(reasons) > limit else "")
