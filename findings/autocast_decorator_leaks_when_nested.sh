#!/usr/bin/env bash
# torch 2.13.0: a function decorated with `torch.autocast` that calls itself leaves autocast switched on.
#
# Input: on a CPU, `@torch.autocast("cpu", dtype=torch.bfloat16)` over a function that calls itself once.
# Expected: autocast is off after the call, as it was before; `@torch.no_grad()` over the same function does restore.
# Seen: the decorator enters one context object again, which forgets what was before, so autocast stays on: all
#   later matrix products of the process run in bfloat16.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch


def call_itself(times):
    return decorated(times - 1) if times else None


outcomes = {}
for times in (0, 1):
    decorated = torch.autocast("cpu", dtype=torch.bfloat16)(call_itself)
    decorated(times)
    outcomes[times] = torch.is_autocast_enabled("cpu")
    print(f"calls of itself: {times}   autocast afterwards: {outcomes[times]}   "
          f"a product is {(torch.ones(2, 2) @ torch.ones(2, 2)).dtype}")
decorated = torch.no_grad()(call_itself)
decorated(1)
print(f"no_grad, calls of itself: 1   gradients afterwards: {torch.is_grad_enabled()}")
as_described = outcomes == {0: False, 1: True} and torch.is_grad_enabled()
sys.exit(0 if as_described else "This has changed.")
PYTHON
