"""The site builds without a warning, the reference has every public name, and notebooks run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import residualdroppath
import residualdroppath.analysis

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.full  # about 20 s; `make docs` is the same
def test_the_site_builds_without_a_warning(tmp_path: Path):
    """Links and anchors between pages, and names in the reference, are checked by it."""
    pytest.importorskip("sphinx", reason="needs the extra `docs`")
    pytest.importorskip("myst_nb", reason="needs the extra `docs`")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", str(DOCS), "site"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    assert not re.search(
        r"""(?:src|href)=["'](?:https?:)?//[^"']+\.(?:css|js|woff2?|png|svg)""", page
    )  # nothing is fetched


@pytest.mark.parametrize("package", [residualdroppath, residualdroppath.analysis], ids=lambda package: package.__name__)
def test_the_reference_has_every_public_name(package: object):
    listed = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.rst"))
    whole = re.findall(r"automodule:: residualdroppath\.analysis\.(\w+)\n   :members:\n", listed)
    modules: dict[str, str] = vars(package)["_MODULES"]
    missing = [
        name for name, module in modules.items() if module not in whole and not re.search(rf"\b{name}\b", listed)
    ]
    assert not missing


def test_every_page_is_in_the_contents():
    """Sphinx warns of pages that are in none; this holds where it is not installed."""
    listed = (DOCS / "index.rst").read_text()
    pages = [path.relative_to(DOCS) for path in DOCS.rglob("*.md") if path != DOCS / "README.md"]
    missing = [
        str(page) for page in pages if page.parts[0] != "integrations" and str(page.with_suffix("")) not in listed
    ]
    assert not missing


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `docs`")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `docs`")
    pytest.importorskip("ipykernel", reason="needs the extra `docs`")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the kernel is a process of its own
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_of_a_whole_run(path: Path):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `docs`")
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
