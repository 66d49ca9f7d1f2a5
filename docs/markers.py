"""Pages with places that scripts fill: `<!-- NAME -->`, a table, `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping


def filled(text: str, tables: Mapping[str, str], page: str) -> str:
    """`text` with each of these tables between its markers. Exits, naming the marker, where one is missing."""
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"{page} has no marker `<!-- {name} -->`.")
        text = marked.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text
