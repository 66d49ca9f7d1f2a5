"""What package metadata declares, and whether what is installed satisfies it."""

from __future__ import annotations

import importlib.metadata

import pytest

from residualdroppath.records import extras
from residualdroppath.records.extras import Requirement, as_requirement, extra_of, in_range, pip_line, requirements

DECLARED = [
    "torch<2.16,>=2.6",
    'pyyaml>=6; extra == "train"',
    'scikit-learn>=1.4; extra == "train"',
    'ray<3,>=2.40; extra == "ray"',
    'residualdroppath[export,hfds]; extra == "dev"',
]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("torch", Requirement("torch", "")),
        ("torch<2.16,>=2.6", Requirement("torch", "<2.16,>=2.6")),
        ("Pillow (>=10.1) ; extra == 'train'", Requirement("pillow", ">=10.1", "train")),
        ('pyright[nodejs]==1.1.414; extra == "dev"', Requirement("pyright", "==1.1.414", "dev")),
        ('tomli>=2; python_version < "3.11" and extra == "dev"', Requirement("tomli", ">=2", "dev")),
    ],
)
def test_requirements_are_read(line: str, expected: Requirement) -> None:
    assert as_requirement(line) == expected


def test_what_is_no_requirement_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a requirement such as 'tyro>=0.9"):
        as_requirement("; nothing")


@pytest.mark.parametrize(
    ("version", "range", "expected"),
    [
        ("2.13.0+cpu", ">=2.6", True),
        ("2.13.0", ">=2.6,<2.16", True),
        ("2.16.0", ">=2.6,<2.16", False),
        ("2.5.1", ">=2.6", False),
        ("2.10", ">2.9", True),
        ("3", "==3.0", True),
        ("3.1", "!=3.1,<4", False),
        ("1.0", "<=1", True),
        ("anything", "", True),
    ],
)
def test_ranges(version: str, range: str, expected: bool) -> None:
    assert in_range(version, range) is expected


def test_a_range_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="got '~=2.6'"):
        in_range("2.6", "~=2.6")


def test_the_extra_that_brings_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: DECLARED)
    assert len(requirements()) == 4
    assert [extra_of(name) for name in ("yaml", "sklearn", "ray", "torch", "nothing")] == [
        "train", "train", "ray", None, None,
    ]  # fmt: skip
    assert pip_line("ray") == "pip install 'residualdroppath[ray]'"


def test_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "2.13.0+cpu"}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(extras.importlib.metadata, "version", version)
    assert Requirement("torch", ">=2.6,<2.16").problem is None
    assert Requirement("torch", ">=2.14").problem == "torch 2.13.0+cpu is not >=2.14"
    assert Requirement("ray", ">=2.40").problem == "ray is missing"
