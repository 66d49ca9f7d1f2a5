#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.13.0: `unwrap_model` of a prepared model breaks a forward that was set on the instance.
#
# Input: on a CPU with mixed_precision="bf16", a model whose `forward` is a function, a `functools.partial` or an object
#   with `__call__`, prepared and unwrapped with `keep_fp32_wrapper=False`.
# Expected: the forward from before `prepare`, without the mixed precision hook, as documented.
# Seen: the forward is bound to the model as if it were a function of its class, so each call passes the model as one
#   more first argument and raises TypeError. The prepared model is the same object, so training breaks too.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 accelerate==1.15.0
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import functools
import sys

import torch
from accelerate import Accelerator
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)


class Wrapper:
    def __init__(self, forward):
        self.forward = forward

    def __call__(self, *args):
        return self.forward(*args)


def as_function(forward):
    return lambda x: forward(x)


accelerator = Accelerator(cpu=True, mixed_precision="bf16")
outcomes = {}
for name, wrap in {"none": None, "function": as_function, "partial": functools.partial, "object": Wrapper}.items():
    model, x = Model(), torch.ones(1, 2)
    if wrap is not None:
        model.forward = wrap(model.forward)
    prepared = accelerator.prepare(model)
    prepared(x)
    unwrapped = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    try:
        unwrapped(x)
        outcomes[name] = "runs"
    except TypeError as error:
        outcomes[name] = f"TypeError: {error}"
    print(f"forward set on the instance: {name:8} after unwrap_model: {outcomes[name]}")
as_described = outcomes.pop("none") == "runs" and all(outcome.startswith("TypeError") for outcome in outcomes.values())
sys.exit(0 if as_described else "This has changed.")
PYTHON
