#!/usr/bin/env bash
# schedulefree 1.4.1 with torch 2.13.0: the closure forms move parameters whose gradient is None, in every step.
#
# Input: two parameters; from the fifth step on only the first is in the loss, so the gradient of the second is None.
# Expected: the second stays where it is, as with `SGDScheduleFree`, `AdamWScheduleFree` and all of `torch.optim`.
# Seen: `SGDScheduleFreeClosure` and `AdamWScheduleFreeClosure` go on moving it. Before the closure all parameters are
#   moved from x to y; after it only those with a gradient are moved back.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 schedulefree==1.4.1
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import schedulefree
import torch
from torch import nn

moves = {}
for name in ("SGDScheduleFree", "SGDScheduleFreeClosure", "AdamWScheduleFree", "AdamWScheduleFreeClosure"):
    learned, frozen = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = getattr(schedulefree, name)([learned, frozen], lr=0.1)
    takes_closure = name.endswith("Closure")
    if not takes_closure:
        optimizer.train()
    values = []
    for step in range(8):

        def closure():
            optimizer.zero_grad(set_to_none=True)
            loss = (learned**2 + (frozen**2 if step < 4 else 0)).sum()
            loss.backward()
            return loss

        if takes_closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        assert (frozen.grad is None) == (step >= 4)
        values.append(frozen.item())
    moves[name] = len(set(values[4:])) > 1
    print(f"{name:25} without a gradient: {', '.join(f'{value:.4f}' for value in values[4:])}")
sys.exit(0 if all(moved == name.endswith("Closure") for name, moved in moves.items()) else "This has changed.")
PYTHON
