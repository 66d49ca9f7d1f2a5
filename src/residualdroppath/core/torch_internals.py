"""Every private name of PyTorch that the core uses, each with the reason; one test holds them to its behaviour.

Private names may go in any release: whatever is missing then is found here, and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

# `isinstance` for all dimensions at once: the public classes are one per dimension.
from torch._C._functorch import is_functorch_wrapped_tensor  # inside `torch.func` transforms nothing else shows it
from torch.fx import _symbolic_trace
from torch.nn.modules import module as _module
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import _pop_mode_temporarily
from torch.utils.checkpoint import CheckpointFunction  # public, but undocumented: the reentrant kind

BatchNorm, AnyNorm, Convolution = _BatchNorm, _NormBase, _ConvNd
ReentrantCheckpoint = CheckpointFunction
is_in_functorch_transform = is_functorch_wrapped_tensor

# Hooks registered for all modules at once can be asked for in no public form.
HOOKS_FOR_ALL = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_pre_hooks")
HOOKS_FOR_ALL += ("_global_backward_hooks",)

# Where a module keeps what is its own.
HOOKS_OF_MODULE = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARAMETERS, BUFFERS, CHILDREN = "_parameters", "_buffers", "_modules"


@contextmanager
def unseen_by_modes() -> Iterator[None]:
    """Inside, modes that count or change operations by dispatch see none; nothing public hides from them."""
    with ExitStack() as popped:
        while torch._C._len_torch_dispatch_stack():
            popped.enter_context(_pop_mode_temporarily())
        yield


def call_instead(module: nn.Module, function: Callable[..., Any] | None) -> None:
    """From now on `module(...)` calls this function, past all hooks; None: as other modules.

    It is where `module.compile()` puts what it made; hooks for all modules can be passed by in no public form.
    """
    vars(module)["_compiled_call_impl"] = function


# The public `torch.compiler.disable` imports the compiler at decoration, which takes seconds.
outside_of_graphs: Callable[[Callable[..., Any]], Callable[..., Any]] = torch._disable_dynamo  # pyright: ignore


def skipped_by_compiler(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function runs outside of graphs; what it calls may be compiled."""
    return torch._disable_dynamo(function, recursive=False)  # pyright: ignore


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks, those for all modules included, see or change what the module computes."""
    own = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(own) or any(getattr(_module, name) for name in HOOKS_FOR_ALL)


# The public `named_children` and its like leave out what is None and what comes twice, and cannot be looked up in.
def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The parameters of the module itself: the dict that it keeps them in (of a scripted module, a view of it)."""
    return module._parameters


def own_children(module: nn.Module) -> dict[str, nn.Module | None]:
    """The child modules: the dict that the module keeps them in."""
    return module._modules


def child_at(module: nn.Module, path: str) -> nn.Module:
    """As `module.get_submodule(path)`, which looks every name up four times."""
    for name in path.split(".") if path else ():
        child = own_children(module).get(name)
        module = module.get_submodule(name) if child is None else child  # raises where there is none
    return module


def modules_below(module: nn.Module) -> list[nn.Module]:
    """As `module.modules()`, itself first and each once, which hands every module on through all above it."""
    found: dict[nn.Module, None] = {}
    stack: list[nn.Module | None] = [module]
    while stack:
        if (member := stack.pop()) is not None and member not in found:
            found[member] = None
            stack += reversed([*own_children(member).values()])
    return list(found)


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The buffers of the module itself: the dict that it keeps them in."""
    return module._buffers


def wraps_compiled(module: nn.Module) -> bool:
    """Whether the module is what `torch.compile(module)` returns; the class is public in a private place."""
    return type(module).__module__.startswith("torch._dynamo")


def is_exporting() -> bool:
    """Whether the forward is being written down for export: by torch.export, ONNX or torch.jit.trace."""
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]  (ONNX by TorchScript too)
        return True
    exporting = getattr(torch.compiler, "is_exporting", None)  # since torch 2.7
    return exporting() if exporting else torch.onnx.is_in_onnx_export()  # which takes ten times as long


# What a checkpoint's function runs under when it runs again in the backward: thread by thread, since forwards
# of several models may run at once.
_on_checkpoint = threading.local()
Notice = Callable[[], Callable[[], AbstractContextManager[Any]] | None]


def not_recomputed() -> AbstractContextManager[Any]:
    """Returned by a `Notice`: the function of the checkpoint runs as if there were none.

    A graph that is being traced has no backward, and until torch 2.12 a checkpoint makes tensors of its own there.
    """
    raise RuntimeError("nothing runs again where nothing was checkpointed")


@contextmanager
def noticing_checkpoints(notice: Notice) -> Iterator[None]:
    """Call `notice` at every non-reentrant checkpoint inside, in this thread; recomputation runs under its result.

    The public `context_fn` belongs to the caller of the checkpoint; nothing public shows others that there is one.
    A wrapper stands in the place of PyTorch's generator from the first use on, and passes through elsewhere.
    """
    outer = call_at_checkpoints(notice)
    try:
        yield
    finally:
        call_at_checkpoints(outer)


def call_at_checkpoints(notice: Notice | None) -> Notice | None:
    """`noticing_checkpoints` from here on; what was called before."""
    if getattr(torch.utils.checkpoint, CHECKPOINT_GENERATOR) is _original_generator:
        setattr(torch.utils.checkpoint, CHECKPOINT_GENERATOR, _checkpoint_generator)
    before = getattr(_on_checkpoint, "notice", None)
    _on_checkpoint.notice = notice
    return before


# What `checkpoint` calls, with the function to run again as its first argument. Since torch 2.14 the older name is
# kept for others alone: `checkpoint` passes it by, so its being there proves nothing.
CHECKPOINT_GENERATOR = "_checkpoint_without_reentrant_generator"
if hasattr(torch.utils.checkpoint, f"{CHECKPOINT_GENERATOR}_impl"):
    CHECKPOINT_GENERATOR += "_impl"
_original_generator = getattr(torch.utils.checkpoint, CHECKPOINT_GENERATOR)


def _checkpoint_generator(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    notice = getattr(_on_checkpoint, "notice", None)
    again = notice() if notice is not None and not torch.compiler.is_compiling() else None
    if again is None:
        return _original_generator(fn, *args, **kwargs)
    if again is not_recomputed:
        return _nothing_around()

    def recomputed(*inputs: Any, **named: Any) -> Any:
        with again():
            return fn(*inputs, **named)

    return _original_generator(recomputed, *args, **kwargs)


def _nothing_around() -> Iterator[None]:
    yield


def backward_name(value: Tensor) -> str:
    """The name of the operation that made the tensor; empty without a graph."""
    return "" if value.grad_fn is None else value.grad_fn.name()


def is_returned_by_reentrant_checkpoint(value: Tensor) -> bool:
    """Whether the tensor is what a reentrant checkpoint returned."""
    return getattr(value.grad_fn, "_forward_cls", None) is CheckpointFunction


def functions_wrapped_for_fx() -> list[tuple[dict[str, Any], str]]:
    """Functions under `torch.fx.wrap`: the namespace that holds each, and its name. Nothing public lists them."""
    return [(namespace, name) for (_, name), namespace in _symbolic_trace._wrapped_fns_to_patch.items()]


# An assertion that a graph can hold, and that loads from the code of one; no public function of PyTorch raises.
assert_in_graph: Callable[[Any, str], None] = torch._assert
