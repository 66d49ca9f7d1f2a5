"""What all tests need before they import anything."""

from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

ensure_torchvision_ops()
