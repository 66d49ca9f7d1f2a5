#!/usr/bin/env bash
# torch 2.13.0: `torch.distributed.checkpoint.state_dict.set_optimizer_state_dict` silently drops the optimizer state of
# parameters whose `requires_grad` is False at that moment.
#
# Input: AdamW with state for four parameters, saved; loaded into the same model with its first layer frozen for now.
# Expected: the moments of all four, as `optimizer.load_state_dict` restores them, or an error.
# Seen: the first layer's are missing without a word; unfrozen later, it begins with moments of zero.
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
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict


def make(frozen=False):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model[0].requires_grad_(not frozen)
    return model, optimizer


model, optimizer = make()
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
saved, saved_plainly = get_optimizer_state_dict(model, optimizer), optimizer.state_dict()
restored = {}
for frozen in (False, True):
    model, optimizer = make(frozen)
    set_optimizer_state_dict(model, optimizer, saved)
    restored[frozen] = {name for name, parameter in model.named_parameters() if optimizer.state.get(parameter)}
    print(f"first layer frozen={frozen}: saved {sorted(saved['state'])}, restored {sorted(restored[frozen])}")
model, optimizer = make(frozen=True)
optimizer.load_state_dict(saved_plainly)
plainly = {name for name, parameter in model.named_parameters() if optimizer.state.get(parameter)}
print(f"optimizer.load_state_dict, frozen=True: restored {sorted(plainly)}")
as_described = restored == {False: set(saved["state"]), True: {"1.weight", "1.bias"}} and plainly == restored[False]
sys.exit(0 if as_described else "This has changed.")
PYTHON
