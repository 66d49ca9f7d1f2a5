"""What all tests need before they import anything."""

import torch

from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

ensure_torchvision_ops()

torch.set_num_threads(1)  # tiny tensors, and a worker per core
