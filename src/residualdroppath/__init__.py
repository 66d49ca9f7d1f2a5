"""ResidualDroppath: train residual networks to reuse features (arXiv 2411.09475)."""

from .core.branch import Branch as Branch
from .core.discovery.found import NoResidualBranchError as NoResidualBranchError
from .core.discovery.registry import register_block as register_block
from .core.freezing.optimizer_guard import FrozenParameterMovedError as FrozenParameterMovedError
from .core.options import Options as Options
from .core.planning.plan import Plan as Plan
from .core.pruning import prune as prune
from .core.residual_drop_path import ResidualDropPath as ResidualDropPath

__version__ = "0.1.0"
