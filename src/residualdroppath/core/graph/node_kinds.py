"""What single nodes of a traced forward do."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from ..torch_internals import AnyNorm, BatchNorm, Convolution, child_at

ADD_FUNCTIONS = (operator.add, operator.iadd, torch.add)
ADD_METHODS = ("add", "add_", "__add__", "__iadd__")
SUBTRACTIONS = (
    operator.sub,
    operator.isub,
    torch.sub,
    torch.subtract,
    "sub",
    "sub_",
    "subtract",
    "__sub__",
    "__isub__",
)
INPLACE_OPERATORS = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem, setattr)
# What these return depends on the shape of a tensor, not on its values.
METADATA_METHODS = ("size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "get_device", "type")
METADATA_METHODS += (
    "is_floating_point",
    "is_complex",
    "is_contiguous",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
)
METADATA_ATTRIBUTES = ("shape", "ndim", "dtype", "device", "layout", "itemsize", "nbytes", "requires_grad")
METADATA_ATTRIBUTES += ("is_cuda", "is_cpu", "is_mps", "is_meta", "is_sparse", "is_quantized", "is_nested")
METADATA_FUNCTIONS = (torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like)
METADATA_FUNCTIONS += (torch.is_floating_point, torch.is_complex, torch.numel)
# What no gradient passes through: a sum of it and something learned is not residual.
NO_GRADIENT = (
    "gt",
    "lt",
    "ge",
    "le",
    "eq",
    "ne",
    "logical_and",
    "logical_or",
    "logical_not",
    "isnan",
    "isinf",
    "isfinite",
)
NO_GRADIENT += ("bool", "long", "int", "argmax", "argmin", "argsort", "detach", "rand_like", "randn_like")
OF_ITS_FIRST = ("to", "type_as", "expand_as", "view_as", "reshape_as")  # of the other values the shape or dtype only


def operand(node: fx.Node, index: int) -> fx.Node:
    """One of the two values that an add adds."""
    value = node.args[index]
    assert isinstance(value, fx.Node)
    return value


def is_add(node: fx.Node) -> bool:
    """Whether the node adds two values of the graph, neither of them scaled by `alpha`."""
    named = (node.op == "call_function" and node.target in ADD_FUNCTIONS) or (
        node.op == "call_method" and node.target in ADD_METHODS
    )
    return named and not node.kwargs and len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)


def adds_or_subtracts(node: fx.Node) -> bool:
    """Whether the node is a sum or a difference of two values of the graph, with a factor or not."""
    if node.op not in ("call_function", "call_method"):
        return False
    named = node.target in (*ADD_FUNCTIONS, *ADD_METHODS, *SUBTRACTIONS)
    return named and len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)


def is_layer_of_torch(module: nn.Module) -> bool:
    """Whether its class, not one derived from it, is PyTorch's own."""
    return type(module).__module__.startswith("torch.nn.modules.")


def down_to_last(module: Any) -> list[Any]:
    """The module and, where it is an `nn.Sequential`, its last child, and so on down to the layer that runs last."""
    chain = [module]
    while isinstance(last := chain[-1], nn.Sequential) and type(last).forward is nn.Sequential.forward and last:
        chain.append(last[-1])
    return chain


def is_inplace(node: fx.Node, module: nn.Module) -> bool:
    """Whether the node overwrites its first input."""
    if node.op == "call_module":
        child = child_at(module, str(node.target))
        while isinstance(child, nn.Sequential) and len(child) > 0:
            child = next((member for member in child if not isinstance(member, nn.Identity)), child[0])
        return getattr(child, "inplace", False) is True
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        return (
            node.target in INPLACE_OPERATORS
            or node.kwargs.get("inplace") is True
            or (name.endswith("_") and not name.startswith("_"))
        )
    return False


def node_parameters(module: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    """Parameters that the node itself brings in, those of a called child included."""
    if node.op == "call_module":
        return list(child_at(module, str(node.target)).parameters())
    if node.op == "get_attr":
        value = operator.attrgetter(str(node.target))(module)
        return [value] if isinstance(value, nn.Parameter) else []
    return []


def num_layers(module: nn.Module, node: fx.Node) -> int:
    """Weight matrices and kernels that the node itself brings in."""
    if node.op == "call_module":
        return num_layers_in(child_at(module, str(node.target)))
    return sum(map(is_matrix, node_parameters(module, node)))


def is_matrix(parameter: nn.Parameter) -> bool:
    """Weight matrix or kernel by its shape, rather than one number per channel."""
    return parameter.dim() >= 2 and parameter.numel() > max(parameter.shape)


def num_layers_in(module: nn.Module) -> int:
    """Weight matrices and kernels of a module."""
    if isinstance(module, (nn.Linear, Convolution)):
        # One channel in or out is a vector by its shape; under a parametrization the weight hangs deeper.
        return max(1, sum(map(is_matrix, module.parameters())))
    own = sum(map(is_matrix, module.parameters(recurse=False)))
    return own + sum(map(num_layers_in, module.children()))


def is_depthwise(module: nn.Module) -> bool:
    """Whether the module filters each channel by itself, as pooling does."""
    return isinstance(module, Convolution) and module.groups == module.in_channels == module.out_channels > 1


def is_used(node: fx.Node) -> bool:
    """Whether the values of the node are read, not its dtype, device or shape alone; a number is no part."""
    if node.meta.get("is_place"):
        return False
    return not all(is_metadata(user) or (_of_its_first(user) and user.args[0] is not node) for user in node.users)


def value_inputs(node: fx.Node) -> list[fx.Node]:
    """What the node computes its values from; `x.to(y)` reads no value of `y`."""
    if not _of_its_first(node):
        return node.all_input_nodes
    return [node.args[0]] if isinstance(node.args[0], fx.Node) else []


def _of_its_first(node: fx.Node) -> bool:
    return node.op == "call_method" and node.target in OF_ITS_FIRST


def is_metadata(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in METADATA_METHODS
    if node.op != "call_function":
        return False
    return node.target in METADATA_FUNCTIONS or (node.target is getattr and node.args[1] in METADATA_ATTRIBUTES)


def has_no_gradient(node: fx.Node) -> bool:
    """Whether no gradient passes from the node to what it is computed from."""
    if node.op not in ("call_method", "call_function"):
        return False
    return is_metadata(node) or getattr(node.target, "__name__", node.target) in NO_GRADIENT


ACTIVATIONS = (
    "relu",
    "relu_",
    "gelu",
    "silu",
    "elu",
    "leaky_relu",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
    "softmax",
)
PRODUCTS = ("mul", "mul_", "imul", "matmul", "bmm", "einsum", "scaled_dot_product_attention")


def is_activation(node: fx.Node, module: nn.Module) -> bool:
    """Whether the node applies an activation last, or looks vectors up."""
    if node.op == "call_module":
        layers = [layer for layer in child_at(module, str(node.target)).modules() if not isinstance(layer, nn.Identity)]
        return isinstance(layers[-1], nn.Embedding) or is_activation_layer(layers[-1]) if layers else False
    return node.op != "get_attr" and getattr(node.target, "__name__", node.target) in ACTIVATIONS


def is_part(node: fx.Node) -> bool:
    """Whether the node takes an item or a slice of a value."""
    return node.op == "call_function" and node.target is operator.getitem


def is_logarithm(node: fx.Node) -> bool:
    return node.op != "get_attr" and getattr(node.target, "__name__", node.target) in ("log", "logit", "special_logit")


def is_activation_layer(layer: nn.Module) -> bool:
    """Whether the layer is an activation by where its class is defined."""
    # Of PyTorch, timm (`timm.layers.activations`) and transformers (`transformers.activations`).
    defined_in = type(layer).__module__.rpartition(".")[2]
    return defined_in in ("activation", "activations") and not isinstance(layer, nn.MultiheadAttention)


def is_product(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and getattr(node.target, "__name__", node.target) in PRODUCTS


def is_linear(node: fx.Node, module: nn.Module) -> bool:
    """Whether the node is an affine map (with batch norm), a view or a scaling by a number."""
    if node.op != "call_module":
        return node.op == "get_attr" or (
            len(node.all_input_nodes) == 1
            and getattr(node.target, "__name__", node.target) in ("mul", "truediv", "view", "reshape")
        )
    kinds = (nn.Sequential, nn.Linear, Convolution, BatchNorm, nn.Identity, nn.AvgPool2d)
    return all(isinstance(layer, kinds) for layer in child_at(module, str(node.target)).modules())


def is_concatenation(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in (torch.cat, torch.concat, torch.concatenate)


def is_item(node: fx.Node) -> bool:
    """Whether the node is one of several values that a child returned, or that were given."""
    if node.target is getattr:
        if is_metadata(node) or node.args[1] in ("T", "mT", "H", "mH", "real", "imag"):
            return False
    elif node.target is not operator.getitem or not isinstance(node.args[1], (int, str)):
        return False
    return node.all_input_nodes[0].op in ("call_module", "placeholder")


def is_convolution(node: fx.Node, module: nn.Module) -> bool:
    """Whether the node calls a convolution, with or without a norm and nothing else."""
    if node.op != "call_module":
        return False
    child = child_at(module, str(node.target))
    layers = [member for member in child.modules() if not any(True for _ in member.children())]
    convolutions = [layer for layer in layers if isinstance(layer, Convolution)]
    others = [layer for layer in layers if layer not in convolutions and not isinstance(layer, nn.Identity)]
    return len(convolutions) == 1 and all(isinstance(layer, AnyNorm) for layer in others)


def upstream(
    node: fx.Node, inputs_of: Callable[[fx.Node], list[fx.Node]] = lambda node: node.all_input_nodes
) -> set[fx.Node]:
    """The node itself and all from which its value is computed."""
    found: set[fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack.extend(inputs_of(current))
    return found
