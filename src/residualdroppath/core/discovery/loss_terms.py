"""Which values of a forward are losses or other single numbers: a sum of them adds no features."""

from __future__ import annotations

from torch import fx, nn

from ..graph.node_kinds import value_inputs

REDUCTIONS = ("mean", "sum", "prod", "std", "var", "norm", "max", "min", "amax", "amin", "median", "nansum", "nanmean")
REDUCTIONS += ("dot", "item")
ELEMENTWISE = ("add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "truediv", "div", "div_", "neg")
ELEMENTWISE += ("pow", "sqrt", "exp", "log", "abs", "clamp", "relu", "float", "to", "view", "reshape", "squeeze")
ELEMENTWISE += ("unsqueeze", "getitem", "stack", "cat", "itruediv", "detach", "type_as")
LOSSES = ("cross_entropy", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits")


def loss_terms(graph: fx.Graph, module: nn.Module) -> set[fx.Node]:
    """Nodes that are what a loss function returned, or reduced to one number, or made of such values alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        sources = [source for source in value_inputs(node) if source.op != "get_attr"]
        if _is_loss(node, module) or _is_one_number(node):
            found.add(node)
        elif _name(node) in (*ELEMENTWISE, *REDUCTIONS) and sources and found.issuperset(sources):
            found.add(node)
    return found


def _is_loss(node: fx.Node, module: nn.Module) -> bool:
    """Whether the node calls a loss: a function by its name, a child without parameters by that of its class."""
    if node.op == "call_module":
        child = module.get_submodule(str(node.target))
        return type(child).__name__.endswith("Loss") and not any(True for _ in child.parameters())
    return _name(node) in LOSSES or _name(node).endswith("_loss")


def _is_one_number(node: fx.Node) -> bool:
    """Whether the node reduces all dimensions of a tensor."""
    keeps_dimensions = {"dim", "axis", "keepdim", "other", "p"} & node.kwargs.keys()
    return _name(node) in REDUCTIONS and len(node.args) == 1 + (_name(node) == "dot") and not keeps_dimensions


def _name(node: fx.Node) -> str:
    if node.op not in ("call_function", "call_method"):
        return ""
    return str(getattr(node.target, "__name__", node.target))
