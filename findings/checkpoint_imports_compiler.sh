#!/usr/bin/env bash
# torch 2.13.0: the first activation checkpoint of a process imports the compiler, which nothing in the process uses.
#
# Input: one function under `torch.utils.checkpoint.checkpoint(..., use_reentrant=False)`, in eager mode.
# Expected: an operation of autograd, ready once torch is imported, as the first backward is.
# Seen: the first call imports `torch._dynamo` with hundreds of modules and takes about a second; the second, a
#   fraction of a millisecond. What times a step or a memory saving by its first checkpoint times imports.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys
import time

import torch
from torch.utils.checkpoint import checkpoint

x = torch.ones(2, requires_grad=True)
x.exp().sum().backward()
print("torch", torch.__version__)
before = set(sys.modules)
seconds, loaded = [], []
for _ in range(2):
    start = time.process_time()
    checkpoint(torch.exp, x, use_reentrant=False).sum().backward()
    seconds.append(time.process_time() - start)
    loaded.append(len(set(sys.modules) - before))
    before = set(sys.modules)
print("torch._dynamo imported:", "torch._dynamo" in sys.modules)
print("modules imported by the first and the second checkpoint:", *loaded)
print("seconds of processor time:", *(f"{each:.4f}" for each in seconds))
unchanged = "torch._dynamo" in before and loaded[0] > 100 and loaded[1] == 0
sys.exit(0 if unchanged else "the behaviour has changed")
PYTHON
