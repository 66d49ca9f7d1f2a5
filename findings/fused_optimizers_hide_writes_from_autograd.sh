#!/usr/bin/env bash
# torch 2.13.0: fused optimizers change parameters without a new version counter, so autograd returns a wrong
# gradient where the other forms of the same optimizer raise.
#
# Input: two losses from the same parameters, a backward and a step for the first, then the backward of the second.
# Expected: "one of the variables needed for gradient computation has been modified by an inplace operation", as with
#   `fused=False`, or the right gradient.
# Seen: SGD, Adam, AdamW and Adagrad with `fused=True` leave `parameter._version` at 0, and the second backward returns
#   a gradient that belongs to no point: of w * z * w at w = 2, z = 3 it is 12, and 5 is returned.
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

seen = {}
for name in ("SGD", "Adam", "AdamW", "Adagrad"):
    for fused in (False, True):
        parameter = nn.Parameter(torch.ones(4))
        parameter.grad = torch.ones(4)
        getattr(torch.optim, name)([parameter], lr=0.1, fused=fused).step()
        assert bool((parameter != 1).all())
        seen[name, fused] = parameter._version > 0
        print(f"{name:8} fused={fused!s:5} parameters moved, version counter {'new' if seen[name, fused] else 'as before'}")

outcomes = {}
for fused in (False, True):
    w, z = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.SGD([w, z], lr=1.0, fused=fused)
    first, second = (w * z).sum(), (w * z * w).sum()
    first.backward()
    optimizer.step()
    optimizer.zero_grad()
    try:
        second.backward()
        outcomes[fused] = w.grad.item()
    except RuntimeError as error:
        outcomes[fused] = "raises"
    print(f"second backward after a step with fused={fused}: {outcomes[fused]} (the gradient at the forward was 12)")
as_described = all(new != fused for (_, fused), new in seen.items()) and outcomes == {False: "raises", True: 5.0}
sys.exit(0 if as_described else "This has changed.")
PYTHON
