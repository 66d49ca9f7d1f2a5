"""ResidualDroppath: train residual networks to reuse features (arXiv 2411.09475).

A name is imported when it is first used, so that the command line answers without waiting for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.lazy_names import lazy_names

if TYPE_CHECKING:
    from .core.branch import Branch as Branch
    from .core.discovery.found import NoResidualBranchError as NoResidualBranchError
    from .core.discovery.registry import register_block as register_block
    from .core.drop_path import DropPath as DropPath
    from .core.freezing.optimizer_guard import FrozenParameterMovedError as FrozenParameterMovedError
    from .core.options import Options as Options
    from .core.planning.plan import Plan as Plan
    from .core.pruning import prune as prune
    from .core.residual_drop_path import ResidualDropPath as ResidualDropPath

__version__ = "0.1.0"
__all__ = [
    "Branch",
    "DropPath",
    "FrozenParameterMovedError",
    "NoResidualBranchError",
    "Options",
    "Plan",
    "ResidualDropPath",
    "__version__",
    "prune",
    "register_block",
]

_MODULES = {
    "Branch": "core.branch",
    "NoResidualBranchError": "core.discovery.found",
    "register_block": "core.discovery.registry",
    "DropPath": "core.drop_path",
    "FrozenParameterMovedError": "core.freezing.optimizer_guard",
    "Options": "core.options",
    "Plan": "core.planning.plan",
    "prune": "core.pruning",
    "ResidualDropPath": "core.residual_drop_path",
}
if not TYPE_CHECKING:  # to a type checker an unknown name is an error
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
