"""Figures that the text of docs/evidence.md quotes stand in the tables next to it, which are written from records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evidence.md"
FIGURE = re.compile(r"(?<![\w.])\d+\.\d+(?!\w|\.\d)")
MARKER = re.compile(r"<!-- (\w+) ?(\w*) -->")


def figures(text: str) -> list[str]:
    """Numbers with a decimal point, without their sign; not those of papers."""
    return [found for found in FIGURE.findall(text) if not re.fullmatch(r"\d{4}\.\d{5}", found)]


def sections(page: str) -> Iterator[tuple[str, str, set[float]]]:
    """Heading, prose, and the figures of its tables, of their records' costs, definitions and training accuracies."""
    for section in re.split(r"(?m)^(?=#+ )", page)[1:]:
        tables = re.findall(r"(?s)<!-- \w+ ?\w* -->.*?<!-- end -->", section)
        prose = re.sub(r"(?s)<!-- \w+ ?\w* -->.*?<!-- end -->", "", section)
        known = {float(each) for table in tables for each in figures(table)}
        for name in {match[2] for match in MARKER.finditer(section)}:
            path = ROOT / "results" / "studies" / f"{name}.json"
            if path.is_file():
                record = json.loads(path.read_text())
                known |= set(numbers([record["definition"], [row["cost"] for row in record["rows"]]]))
                known |= {100 * row["train_accuracy"]["mean"] for row in record["rows"]}
        yield section.partition("\n")[0], prose, known


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, float):
        yield value


def quoted(figure: str, known: set[float]) -> bool:
    """Some known one comes to `figure` when it is rounded to as many digits."""
    half = 0.5 * 10 ** -len(figure.partition(".")[2])
    return any(abs(each - float(figure)) <= half + 1e-9 for each in known)


def unknown(page: str) -> dict[str, list[str]]:
    """By heading, figures that no table has. A section without a table may quote those of the whole page."""
    found = list(sections(page))
    anywhere = set().union(*(known for _, _, known in found))
    wrong = {
        heading: [each for each in figures(prose) if not quoted(each, known or anywhere)]
        for heading, prose, known in found
    }
    return {heading: own for heading, own in wrong.items() if own}


def test_each_figure_stands_in_a_table() -> None:
    assert not unknown(PAGE.read_text())


def test_p_values_and_correlations_are_those_of_a_table() -> None:
    for section in re.split(r"(?m)^(?=#+ )", PAGE.read_text())[1:]:
        tables = "".join(re.findall(r"(?s)<!-- \w+ ?\w* -->.*?<!-- end -->", section))
        prose = re.sub(r"(?s)<!-- \w+ ?\w* -->.*?<!-- end -->", "", section).replace("\n", " ")
        for p in re.findall(r"\bp (0\.\d+)", prose):
            assert re.search(rf"p {p}\b", tables), (section.partition("\n")[0], p)
        for rho in re.findall(r"rank correlation (-?\d\.\d+)", prose):
            assert f"{float(rho):+.2f} (n" in tables, (section.partition("\n")[0], rho)


@pytest.mark.parametrize(("text", "wrong"), [("rises by 3.1 (2.0 to 4.2)", []), ("rises by 3.3, 0.25 a year", ["3.3"])])
def test_a_stale_figure_is_found(text: str, wrong: list[str]) -> None:
    page = f"# A\n\nIt {text}.\n\n<!-- study none -->\n| +3.14 (+1.96 to +4.2) | 0.249 |\n<!-- end -->\n"
    assert unknown(page).get("# A", []) == wrong
