"""The mutations apply to the source as it is. That tests fail on them: `make mutations`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mutations.mutations import CORE, MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_applies(mutation: Mutation) -> None:
    original = (ROOT / "src" / CORE / mutation.file).read_text()
    mutated = mutation.mutated(ROOT / "src")
    compile(mutated, mutation.file, "exec")
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(original))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_tests_are_there(mutation: Mutation) -> None:
    assert mutation.tests
    for test in mutation.tests:
        file, *names = test.partition("[")[0].split("::")
        functions = {
            node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)
        }
        assert functions.issuperset(names), test


def test_names_are_different() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
