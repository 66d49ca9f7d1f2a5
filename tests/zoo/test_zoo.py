"""Models of well-known libraries: branches as their sources say, and contracts for some of them.

One model for each form in which branches are written; all models in the full tier, and all contracts of all of them
by `make coverage`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from contracts.option_pairs import one_row
from contracts.subject import Subject
from contracts.walk import check_contracts

from .check import differences, found_branches
from .coverage import LIBRARIES, PAGE, RECORD, Row, check_file, write_page
from .expected import (
    WITH_THE_PROJECT,
    ExpectedBranch,
    ExpectedFile,
    ExpectedModel,
    expand,
    libraries,
    load_expected,
    load_file,
    open_files,
    why_absent,
)
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
OPEN = open_files()


def named(file: ExpectedFile) -> str:
    return f"{file.library}/{file.file}"


def models(default: set[str], files: list[ExpectedFile]) -> pytest.MarkDecorator:
    """All models of these files; all but the first of those in `default` in the full tier alone."""
    parameters = [
        pytest.param(model, id=f"{model.id}-{number}" if number else model.id, marks=marks(file, default, number))
        for file in files
        for number, model in enumerate(file.models)
    ]
    return pytest.mark.parametrize("model", parameters)


def marks(file: ExpectedFile, default: set[str], number: int) -> list[pytest.MarkDecorator]:
    """Of a model by its number in the file: the full tier, a library that is absent, a case that is still open."""
    found = [] if named(file) in default and number == 0 else [pytest.mark.full]
    if file.library not in WITH_THE_PROJECT:
        found.append(pytest.mark.filterwarnings("ignore"))  # those of the libraries themselves
    if absent := why_absent(file.library):
        found.append(pytest.mark.skip(reason=absent))
    elif reason := OPEN.get(named(file)):
        found.append(pytest.mark.xfail(reason=reason, strict=True))
    return found


@models(REPRESENTATIVE, FILES)
def test_branches_are_those_in_the_source(model: ExpectedModel) -> None:
    network = build(model)
    assert not differences(model, network, found_branches(network, inputs(model)))


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
    run = [file for file in FILES if file.library not in record["skipped"]]
    assert {(row.library, row.file) for row in rows} == {(file.library, file.file) for file in run}


def test_libraries_that_are_absent_are_named() -> None:
    record = json.loads(RECORD.read_text())
    library = libraries()[-1]
    record["rows"] = [row for row in record["rows"] if row["library"] != library]
    record["skipped"] = {library: f"{library} is not installed"}
    assert f"## {library}\n\nSkipped: {library} is not installed.\n" in write_page(record)


def test_every_optional_library_is_pinned() -> None:
    """`why_absent` raises `KeyError` for one that is not."""
    assert not any(why_absent(library) for library in WITH_THE_PROJECT)
    assert all(isinstance(why_absent(library), str) for library in libraries())


def test_open_cases_are_files_with_branches_expected() -> None:
    assert OPEN.keys() <= {named(file) for file in FILES if any(model.branches for model in file.models)}


def test_models_are_the_same_at_every_build() -> None:
    model: ExpectedModel = MODELS[0]
    first, second = build(model), build(model)
    assert all(a.equal(b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def written(folder: Path, text: str) -> ExpectedFile:
    folder.mkdir()
    (folder / "file.yaml").write_text(text)
    return load_file(folder / "file.yaml")


MADE = """
models:
  - make: torch.nn.Sequential
    options: {}
    inputs:
      noise: [4]
      ids: {shape: [3], from: 2, below: 5}
      edges: {shape: [2, 6], below: 4, whole: true}
      mask: {value: [[true, false]]}
      parts: {of: {past: [2], flags: {of: [[1], null]}}}
      flag: true
    dtype: float32
    none: no layer
"""


def test_inputs_are_made_as_described(tmp_path: Path) -> None:
    (model,) = written(tmp_path / "torch", MADE).models
    made = inputs(model, rows=5)
    assert made["noise"].shape == (5, 4) and made["noise"].dtype == torch.float32
    assert made["ids"].shape == (5, 3) and 2 <= made["ids"].min() and made["ids"].max() < 5
    assert made["edges"].shape == (2, 6) and made["mask"].tolist() == [[True, False]]
    assert made["parts"]["past"].shape == (5, 2) and made["parts"]["flags"][1] is None and made["flag"] is True
    assert made["noise"].equal(inputs(model, rows=5)["noise"]) and not made["noise"].equal(inputs(model, 5, 1)["noise"])


NESTED = """
models:
  - make: torch.nn.ModuleDict
    options: {modules: {first: {make: torch.nn.Linear, args: [2, 3], options: {bias: false}}}}
    branches: [{block: "", branch: [first]}]
"""


def test_options_are_made_too(tmp_path: Path) -> None:
    (model,) = written(tmp_path / "torch", NESTED).models
    network = build(model)
    assert model.name == "ModuleDict"
    assert {name: p.shape for name, p in network.named_parameters()} == {"first.weight": (3, 2)}
    assert next(network.parameters()).dtype == torch.float64


def test_a_model_has_branches_or_a_reason_for_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either `branches` or `none`"):
        written(tmp_path / "torch", "models: [{make: torch.nn.ReLU}]")
