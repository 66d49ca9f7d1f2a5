#!/usr/bin/env bash
# torch 2.13.0: some random functions fill a tensor in the order of its memory, others in the order of its indices.
#
# Input: two tensors of equal values, one contiguous and one in `torch.channels_last`, and the same seed before each
#   call.
# Expected: the same numbers; or, if memory counts, in all functions.
# Seen (CPU): `dropout`, `randn_like`, `rand_like`, `normal_` and `init.kaiming_normal_` draw other numbers for the
#   other layout; `bernoulli`, `dropout2d`, `alpha_dropout`, `normal` and `Normal.rsample` the same. So a seeded
#   training in channels-last, or behind an operation that returns its result in another layout, has other dropout
#   masks and other noise, and a model that is moved to channels-last before it is initialised has other weights.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
from torch.nn import functional as F
from torch.nn import init

plain = torch.full((2, 3, 4, 4), 0.5)
other = plain.to(memory_format=torch.channels_last)
assert torch.equal(plain, other)
functions = {
    "dropout": lambda x: F.dropout(x, 0.5),
    "randn_like": torch.randn_like,
    "rand_like": torch.rand_like,
    "normal_": lambda x: x.clone().normal_(),
    "init.kaiming_normal_": lambda x: init.kaiming_normal_(x.clone()),
    "bernoulli": torch.bernoulli,
    "dropout2d": lambda x: F.dropout2d(x, 0.5),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5),
    "normal": lambda x: torch.normal(x, 1.0),
    "Normal.rsample": lambda x: torch.distributions.Normal(x, 1.0).rsample(),
}
same = {}
for name, function in functions.items():
    drawn = []
    for tensor in (plain, other):
        torch.manual_seed(0)
        drawn.append(function(tensor))
    same[name] = torch.equal(*drawn)
    print(f"{name:22} {'the same numbers' if same[name] else 'other numbers'} in channels-last")
by_memory = {"dropout", "randn_like", "rand_like", "normal_", "init.kaiming_normal_"}
sys.exit(0 if {name for name, equal in same.items() if not equal} == by_memory else "This has changed.")
PYTHON
