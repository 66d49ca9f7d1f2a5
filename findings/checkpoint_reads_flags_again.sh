#!/usr/bin/env bash
# torch 2.13.0: with non-reentrant activation checkpointing a `requires_grad` that changes between forward and backward
# raises; without checkpointing the same code runs.
#
# Input: three layers; between forward and backward the first weight's flag is switched off, as loops that alternate
#   between parts of a network do for the next forward.
# Expected: as without checkpointing, where the flag counts when an operation runs and the backward is as recorded.
# Seen: CheckpointError "A different number of tensors was saved during the original forward and recomputation".
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
from torch.utils.checkpoint import CheckpointError, checkpoint

outcomes = {}
for checkpointed in (False, True):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    x = torch.ones(1, 2, requires_grad=True)
    output = checkpoint(model, x, use_reentrant=False) if checkpointed else model(x)
    model[0].weight.requires_grad_(False)
    try:
        output.sum().backward()
        outcomes[checkpointed] = "runs"
    except CheckpointError as error:
        outcomes[checkpointed] = "CheckpointError"
        print(str(error).splitlines()[0])
    print(f"checkpointed={checkpointed}: {outcomes[checkpointed]}")
sys.exit(0 if outcomes == {False: "runs", True: "CheckpointError"} else "This has changed.")
PYTHON
