"""Each record of a study has a page, of what it says, that docs/evidence.md links to."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from residualdroppath.experiments.studies.page import write_study_page
from residualdroppath.experiments.studies.recorded import shown_record
from residualdroppath.experiments.studies.table import with_deviation

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "evidence"
WITH_MARKS = {"digits-as-make-demo-shows-them", "pilots-not-tuned-three-seeds"}  # of headings
RECORDS = sorted((ROOT / "results" / "studies").glob("*.json"))


def test_each_record_has_a_page_and_each_page_a_link() -> None:
    linked = re.findall(r'href="evidence/(\w+)\.html"', (ROOT / "docs" / "evidence.md").read_text())
    names = [path.stem for path in RECORDS]
    assert sorted(linked) == names == sorted(path.stem for path in PAGES.glob("*"))


def test_links_of_the_tables_of_verdicts_lead_to_sections() -> None:
    page = (ROOT / "docs" / "evidence.md").read_text()
    sections = {heading.lower().replace(" ", "-") for heading in re.findall(r"(?m)^#+ (.*)$", page)}
    for text, link in ((page, r"\]\(#([\w-]+)\)"), ((ROOT / "README.md").read_text(), r"docs/evidence\.md#([\w-]+)")):
        linked = re.findall(link, text)
        assert len(set(linked)) > 8 and {each for each in linked if each not in sections} <= WITH_MARKS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_page_says_what_the_record_says(path: Path) -> None:
    texts = [unescape(text) for text in re.findall(r">([^<]+)<", (PAGES / f"{path.stem}.html").read_text())]
    record = shown_record(path)
    rows = [[row["variant"], with_deviation(row["test_accuracy"])] for row in record["rows"]]
    assert record["question"] in texts and all(text in texts for row in rows for text in row)


@pytest.mark.full
@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_page_is_what_would_be_written_now(path: Path, tmp_path: Path) -> None:
    page = write_study_page(shown_record(path), tmp_path / "page.html")
    assert page.read_text() == (PAGES / f"{path.stem}.html").read_text()
