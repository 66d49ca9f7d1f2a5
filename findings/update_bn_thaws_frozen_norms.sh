#!/usr/bin/env bash
# torch 2.13.0: `torch.optim.swa_utils.update_bn` leaves batch norms in training mode that were in evaluation mode.
#
# Input: a model in training mode with one batch norm kept in evaluation mode, as fine-tuning with frozen norms does.
# Expected: modes as before: the documentation speaks of running_mean and running_var alone.
# Seen: one mode is remembered for the whole model, so the frozen norm is in training mode afterwards; from then on
#   training uses batch statistics there and moves its running ones.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
model.train()
model[1].eval()
update_bn([torch.randn(8, 1, 3, 3) + 5], model)
thawed = model[1].training
print(f"batch norm kept in evaluation mode, after update_bn: training={thawed}")
sys.exit(0 if thawed else "This has changed.")
PYTHON
