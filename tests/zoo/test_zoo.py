"""Models of well-known libraries: branches as their sources say, and contracts for some of them.

The first model of each file; all of them with THOROUGH=1. All contracts of all models: `make coverage`.
"""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
from torch import nn

from .check import differences, found_branches
from .contracts import Contracts
from .coverage import LIBRARIES, PAGE, RECORD, Row, check_file, write_page
from .expected import ExpectedBranch, ExpectedFile, ExpectedModel, expand, load_expected
from .models import build, inputs

FILES = [file for library in LIBRARIES for file in load_expected(library)]
MODELS = [model for file in FILES for model in file.models]
# One model for each way that branches are found: quick ones.
REPRESENTATIVE = {
    *(f"timm/{name}" for name in ("levit", "rexnet", "xcit", "tnt")),
    *(f"timm/{name}" for name in ("efficientvim", "repghost", "nfnet", "dla", "vision_transformer")),
    *(f"torchvision/{name}" for name in ("regnet", "swin_transformer")),
    *(f"transformers/{name}" for name in ("bert", "gpt2", "llama", "swin", "t5", "wav2vec2")),
}


def named(file: ExpectedFile) -> str:
    return f"{file.library}/{file.file}"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_branches_are_those_in_the_source(file: ExpectedFile) -> None:
    for model in file.models if "THOROUGH" in os.environ else file.models[:1]:
        network = build(model)
        assert not differences(model, network, found_branches(network)), model.name
    if file.none:
        row = check_file(file)
        assert row.passes and row.found == 0


@pytest.mark.parametrize("file", [file for file in FILES if named(file) in REPRESENTATIVE], ids=named)
def test_contracts(file: ExpectedFile) -> None:
    model = file.models[0]
    Contracts(lambda: build(model), inputs(model, rows=3)).check_all()


def test_the_representative_are_there() -> None:
    assert {named(file) for file in FILES} >= REPRESENTATIVE


def test_a_wrong_expectation_is_told() -> None:
    model = next(model for model in MODELS if model.name == "resnet18")
    first, *others = model.branches
    wrong = dataclasses.replace(first, members=first.members[:-1])
    found = found_branches(network := build(model))
    assert len(differences(dataclasses.replace(model, branches=(wrong, *others)), network, found)) == 2
    assert len(differences(dataclasses.replace(model, branches=tuple(others)), network, found)) == 1


def test_a_broken_contract_is_told() -> None:
    model = next(model for model in MODELS if model.name == "resnet18")

    class Noisy(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.network = build(model)

        def forward(self, x):
            Noisy.calls += 1
            return self.network(x) * Noisy.calls

    with pytest.raises(AssertionError, match="differs"):
        Contracts(Noisy, inputs(model)).check_all()


def test_patterns() -> None:
    assert expand("a{0..1}.{x,y}") == ["a0.x", "a0.y", "a1.x", "a1.y"]
    assert expand("") == [""]


def test_a_member_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no parameter"):
        ExpectedBranch("", ("act",)).parameters(nn.Sequential(nn.Linear(1, 1)))


def test_the_page_is_made_from_the_record() -> None:
    record = json.loads(RECORD.read_text())
    assert PAGE.read_text() == write_page(record)
    rows = [Row(**row) for row in record["rows"]]
    assert {(row.library, row.file) for row in rows} == {(file.library, file.file) for file in FILES}


def test_models_are_the_same_at_every_build() -> None:
    model: ExpectedModel = MODELS[0]
    first, second = build(model), build(model)
    assert all(a.equal(b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
