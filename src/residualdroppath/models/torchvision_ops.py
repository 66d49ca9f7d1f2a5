"""Make torchvision (and so timm) import where its compiled operators do not load.

A torchvision built for CUDA beside a PyTorch built for the CPU leaves its operators unregistered, and
`import torchvision` then fails with "operator torchvision::nms does not exist". Nothing here runs boxes
through `nms`: to declare it is enough. Where the operators load, this does nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: torch.library.Library | None = None  # a library that is collected takes its operators along


def ensure_torchvision_ops() -> bool:
    """Declare the operators that importing torchvision needs, if they are missing; True if it did so now."""
    global _declared
    if "torchvision" in sys.modules or _declared is not None:
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _operators_load(Path(spec.origin).parent):
        return False
    _declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _declared.define(name + SCHEMA)
    return True


def _operators_load(package: Path) -> bool:
    for library in [*package.glob("_C*.so"), *package.glob("_C*.pyd")]:
        try:
            torch.ops.load_library(str(library))
        except (ImportError, OSError):
            return False
        return True
    return False
