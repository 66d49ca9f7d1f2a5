#!/usr/bin/env bash
# torch 2.13.0: inside a transform of `torch.func` the method `requires_grad_(False)` is refused and the attribute
# `requires_grad = False` is accepted, for the same tensor and with the same effect.
#
# Input: a parameter that the transformed function closes over.
# Expected: both refused, or both accepted: the method is documented to set the attribute in place.
# Seen: the method raises RuntimeError ("You are attempting to call Tensor.requires_grad_() ... inside of a function
#   being transformed by a functorch transform"); the attribute switches the flag.
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

parameter = nn.Parameter(torch.ones(3))
outcomes = {}


def by_method():
    parameter.requires_grad_(False)


def by_attribute():
    parameter.requires_grad = False


for name, transform in (("vmap", torch.func.vmap), ("grad", torch.func.grad)):
    for switch in (by_method, by_attribute):

        def function(x):
            try:
                switch()
                outcomes[name, switch] = "accepted"
            except RuntimeError:
                outcomes[name, switch] = "refused"
            return (x * parameter).sum()

        parameter.requires_grad = True
        transform(function)(torch.ones(2, 3) if name == "vmap" else torch.ones(3))
        print(f"{name} {switch.__name__:12}: {outcomes[name, switch]}, requires_grad is {parameter.requires_grad} now")
as_described = all((switch is by_method) == (how == "refused") for (_, switch), how in outcomes.items())
sys.exit(0 if as_described else "This has changed.")
PYTHON
