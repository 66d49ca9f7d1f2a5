#!/usr/bin/env bash
# torch-optimizer 0.3.0 with torch 2.13.0: `Lookahead` moves parameters whose gradient is None, unseen by version
# counters, and takes no step hooks.
#
# Input: SGD inside `Lookahead(k=2)`, two parameters; from the third step on the gradient of the second is None.
# Expected: the second stays, as with every optimizer of `torch.optim`; a hook can be registered on any `Optimizer`.
# Seen: it is pulled to its slow weight, its `_version` unchanged since the write goes through `.data`;
#   `register_step_post_hook` raises AttributeError, since `Optimizer.__init__` is never called.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 torch-optimizer==0.3.0
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
import torch_optimizer
from torch import nn

learned, frozen = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
optimizer = torch_optimizer.Lookahead(torch.optim.SGD([learned, frozen], lr=0.1), k=2, alpha=0.5)
for step in range(3):
    optimizer.zero_grad()
    frozen.grad = None
    (learned**2 + (frozen**2 if step < 2 else 0)).sum().backward()
    before, version = frozen.item(), frozen._version
    optimizer.step()
    versions = f"version {version} -> {frozen._version}"
    print(f"step {step}: gradient {frozen.grad}, {before:.4f} -> {frozen.item():.4f}, {versions}")
moved_unseen = frozen.grad is None and frozen.item() != before and frozen._version == version
try:
    optimizer.register_step_post_hook(lambda *_: None)
    takes_hooks = True
except AttributeError as error:
    takes_hooks = False
    print(f"register_step_post_hook: AttributeError: {error}")
sys.exit(0 if moved_unseen and not takes_hooks else "This has changed.")
PYTHON
