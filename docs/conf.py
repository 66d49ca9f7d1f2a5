"""The documentation site: `make docs` writes it to build/docs. Nothing is fetched; every warning is an error."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pkgutil
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import residualdroppath
import residualdroppath.integrations

project = "residualdroppath"
author = "The authors of residualdroppath"
copyright = "MIT licence"
version = release = residualdroppath.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["README.md", "**/.ipynb_checkpoints"]  # index.rst includes it
suppress_warnings = ["toc.empty_glob"]

# Every reference and every anchor must exist; types of other libraries have no page here.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!residualdroppath).*"),
    (r"py:.*", r"residualdroppath\.(?!analysis\.\w+$|\w+$).*"),
]
default_role = "code"  # docstrings write `name` as Markdown does
# The reference of an integration does not need its library, which takes longer to import than all else.
autodoc_mock_imports = ["accelerate", "lightning", "pytorch_lightning", "transformers"]
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Floats", "Floats32", "Ints", "NDArray")}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks are stored with their outputs, and executed by tests/docs

html_theme = "furo"
html_title = f"residualdroppath {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def escape_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Bars, stars and trailing underscores outside of code are text, as in Markdown: |x| is no substitution."""
    for place, line in enumerate(lines):
        parts = re.split(r"(``.*?``|`.*?`)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        if not line.lstrip().startswith(":"):  # fields that napoleon made
            lines[place] = "".join(parts)


class OptionsTable(SphinxDirective):
    """Fields of `Options` with their defaults, from the field itself."""

    def run(self) -> list[nodes.Node]:
        defaults = residualdroppath.Options()
        lines = [
            f"``{field.name}``\n   {field.metadata['description']} (default `{getattr(defaults, field.name)!r}`)"
            for field in dataclasses.fields(defaults)
        ]
        return self.parse_text_to_nodes("\n".join(lines))


class Integrations(SphinxDirective):
    """The modules of `residualdroppath.integrations`, with what a user calls: it has an example in its docstring."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for module in pkgutil.iter_modules(residualdroppath.integrations.__path__, "residualdroppath.integrations."):
            title = module.name.rpartition(".")[2]
            tree = ast.parse(Path(residualdroppath.integrations.__path__[0], f"{title}.py").read_text())
            found = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
            members = [node.name for node in found if ">>>" in (ast.get_docstring(node) or "")]
            lines += [title, "-" * len(title), "", f".. automodule:: {module.name}"]
            lines += [f"   :members: {', '.join(members)}" if members else "", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def tidy_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Aliases of array types by their names, and what a class takes whose base is not imported here."""
    if what == "class" and signature == "(*args: Any, **kwargs: Any)":
        signature = str(inspect.Signature([*inspect.signature(obj.__init__).parameters.values()][1:]))
        signature = re.sub(r": '([^']*)'", r": \1", signature)  # annotations are text
    alias = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
    return signature and alias.sub(r"\1", signature), returned and alias.sub(r"\1", returned)


def copy_study_pages(app: Sphinx, exception: Exception | None) -> None:
    """To the place that evidence.md links to; they are whole pages, not sources of any."""
    if exception is None:
        shutil.copytree(Path(app.srcdir, "evidence"), Path(app.outdir, "evidence"), dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", copy_study_pages)
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", tidy_signature)
    app.add_directive("options-table", OptionsTable)
    app.add_directive("integrations", Integrations)
