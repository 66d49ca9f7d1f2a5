"""A forward set on one instance of a module, which vanishes from its copies."""

from __future__ import annotations

import copy
import functools
import inspect
import types
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

from torch import nn


class ForwardOverride:
    """Replaces `module.forward` from `install()` to `uninstall()`; subclasses define `__call__`.

    A deepcopy or pickle of the module gets the forward that the module had before.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.original: Callable[..., Any] = module.forward
        self._was_set_on_instance = "forward" in vars(module)
        functools.update_wrapper(self, self.original, updated=())
        if hasattr(self.original, "__code__"):
            self.__code__ = self.original.__code__  # pyright: ignore[reportFunctionMemberAccess]  (torch.export reads it)

    def install(self) -> None:
        if _innermost(self.module) is None:
            _INNERMOST[self.module] = weakref.ref(self)
        vars(self.module)["forward"] = self  # `setattr` of wrapped modules writes to what they wrap

    def uninstall(self) -> None:
        """Leave the module as it was; what others have wrapped around this forward stays."""
        if _innermost(self.module) is self:
            del _INNERMOST[self.module]
        if vars(self.module).get("forward") is self:
            if self._was_set_on_instance:
                vars(self.module)["forward"] = self.original
            else:
                del vars(self.module)["forward"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs)

    @property
    def __func__(self) -> Callable[..., Any]:
        """As a bound method has it: a wrapper around it that is bound to the module is bound to a copy in the copy.

        Accelerate wraps so for mixed precision. Without it, it would wrap this object, which belongs to one module.
        """

        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self(*args, **kwargs) if module is self.module else type(module).forward(module, *args, **kwargs)

        forward.__signature__ = inspect.signature(type(self.module).forward)  # pyright: ignore[reportFunctionMemberAccess]
        return forward

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        if (foreign := foreign_forward(self.module)) is not None:
            return copy.deepcopy(foreign, memo)
        module = memo.get(id(self.module), self.module)
        return types.MethodType(type(module).forward, module)

    def __reduce__(self) -> tuple:
        if (foreign := foreign_forward(self.module)) is not None:
            return _itself, (foreign,)
        return getattr, (self.module, "forward")  # loads without this package


_INNERMOST: MutableMapping[nn.Module, weakref.ref[ForwardOverride]] = weakref.WeakKeyDictionary()


def _innermost(module: nn.Module) -> ForwardOverride | None:
    """The first override of ours that was installed on the module, and still is."""
    return _INNERMOST[module]() if module in _INNERMOST else None


def forward_beneath(module: nn.Module) -> Any:
    """A forward that somebody else has set on the instance before ours, or where there is none of ours; else None.

    What wraps ours is not meant: it goes on to call it.
    """
    innermost = _innermost(module)
    return foreign_forward(module) if innermost is None else _foreign(innermost, module)


def own_override(module: nn.Module, kind: type[ForwardOverride]) -> ForwardOverride | None:
    """The override of that kind on the module, under others of ours too."""
    forward = vars(module).get("forward")
    while isinstance(forward, ForwardOverride):
        if isinstance(forward, kind):
            return forward
        forward = forward.original
    return None


def foreign_forward(module: nn.Module) -> Any:
    """A forward that somebody else has set on the instance, under ours or above it; None where there is none.

    Copies hold the forward of their class as an attribute, where the module that was copied held one of ours.
    """
    return _foreign(vars(module).get("forward"), module)


def _foreign(forward: Any, module: nn.Module) -> Any:
    while isinstance(forward, ForwardOverride):
        forward = forward.original if forward._was_set_on_instance else None
    is_class_forward = isinstance(forward, types.MethodType) and forward == types.MethodType(
        type(module).forward, module
    )
    return None if is_class_forward else forward


def _itself(value: Any) -> Any:
    return value
