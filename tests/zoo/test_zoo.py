"""Models of well-known libraries: branches as their sources say, and contracts for some of them.

One model for each form in which branches are written; all models in the full tier, and all contracts of all of them
by `make coverage`.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
from torch import nn

from contracts.option_pairs import one_row
from contracts.subject import Subject
from contracts.walk import check_contracts

from .check import differences, found_branches
from .coverage import LIBRARIES, PAGE, RECORD, Row, check_file, write_page
from .expected import ExpectedBranch, ExpectedFile, ExpectedModel, expand, load_expected
from .models import build, inputs, number_of, subject

FILES = [file for library in LIBRARIES for file in load_expected(library)]
MODELS = [model for file in FILES for model in file.models]
# One file for each form in which branches are written, quick ones; and of these, those that are not much like others.
REPRESENTATIVE = {
    *(f"timm/{name}" for name in ("levit", "rexnet", "xcit", "tnt")),
    *(f"timm/{name}" for name in ("efficientvim", "repghost", "nfnet", "dla", "vision_transformer")),
    *(f"torchvision/{name}" for name in ("regnet", "swin_transformer")),
    *(f"transformers/{name}" for name in ("bert", "gpt2", "llama", "swin", "t5", "wav2vec2")),
}
HELD_TO_CONTRACTS = {"timm/tnt", "timm/nfnet", "timm/dla", "torchvision/swin_transformer", "transformers/bert"}
HELD_TO_CONTRACTS |= {f"transformers/{name}" for name in ("llama", "swin", "t5", "wav2vec2")}
WITHOUT_BRANCHES = "torchvision/vgg"


def named(file: ExpectedFile) -> str:
    return f"{file.library}/{file.file}"


def models(default: set[str], files: list[ExpectedFile]) -> pytest.MarkDecorator:
    """All models of these files; all but the first of those in `default` in the full tier alone."""
    parameters = [
        pytest.param(model, id=model.id, marks=() if named(file) in default and number == 0 else pytest.mark.full)
        for file in files
        for number, model in enumerate(file.models)
    ]
    return pytest.mark.parametrize("model", parameters)


@models(REPRESENTATIVE, FILES)
def test_branches_are_those_in_the_source(model: ExpectedModel) -> None:
    network = build(model)
    assert not differences(model, network, found_branches(network))


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=named(file), marks=() if named(file) == WITHOUT_BRANCHES else pytest.mark.full)
        for file in FILES
        if file.none
    ],
)
def test_where_the_source_has_no_branch_none_is_found(file: ExpectedFile) -> None:
    row = check_file(file)
    assert row.passes and row.found == 0


@models(HELD_TO_CONTRACTS, [file for file in FILES if named(file) in REPRESENTATIVE])
def test_contracts(model: ExpectedModel) -> None:
    check_contracts(subject(model), one_row(number_of(model)))


def test_the_representative_are_there() -> None:
    assert {named(file) for file in FILES} >= REPRESENTATIVE >= HELD_TO_CONTRACTS
    assert WITHOUT_BRANCHES in {named(file) for file in FILES if file.none}


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

    with pytest.raises(AssertionError, match="not equal"):
        check_contracts(Subject(Noisy, lambda seed: inputs(model, seed=seed)), one_row(0))


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
