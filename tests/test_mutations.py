"""The mutations apply to the source as it is. That tests fail on them: `make mutations`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mutations.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_applies(mutation: Mutation) -> None:
    text = mutation.mutated(ROOT / "src")
    assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(text.replace(mutation.after, mutation.before)))
    compile(text, mutation.file, "exec")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_tests_are_there(mutation: Mutation) -> None:
    assert mutation.tests
    for test in mutation.tests:
        file, *names = test.partition("[")[0].split("::")
        functions = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert functions.issuperset(names), test


def test_names_are_different() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
