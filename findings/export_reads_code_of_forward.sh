#!/usr/bin/env bash
# torch 2.13.0: `torch.export.export` cannot export a model whose `forward` is an object with `__call__`, which runs.
#
# Input: a linear layer in a module, with a callable object set as `model.forward`.
# Expected: it is exported, as it is called, compiled, and exported with `strict=True` or as a `functools.partial`.
# Seen: with `strict=False`, the default, AttributeError: the object has no attribute `__code__`.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import functools
import sys

import torch
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

    def __call__(self, x):
        return self.forward(x)


outcomes = {}
for kind in (Wrapper, functools.partial):
    for strict in (False, True):
        model, x = Model(), torch.ones(1, 2)
        model.forward = kind(model.forward)
        expected = model(x)
        try:
            assert torch.allclose(torch.export.export(model, (x,), strict=strict).module()(x), expected)
            outcomes[kind, strict] = "exported"
        except AttributeError as error:
            outcomes[kind, strict] = f"AttributeError: {error}"
        print(f"forward is a {kind.__name__}, strict={strict}: {outcomes[kind, strict]}")
failed = [key for key, outcome in outcomes.items() if "__code__" in outcome]
exported = [key for key, outcome in outcomes.items() if outcome == "exported"]
sys.exit(0 if failed == [(Wrapper, False)] and len(exported) == 3 else "This has changed.")
PYTHON
