"""The folder of a user in a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from residualdroppath.errors import UserError
from residualdroppath.records.paths import expanded


def test_the_folder_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expanded("~/x") == expanded(Path("~/x")) == Path("/home/somebody/x") and expanded("~") == Path.home()
    assert expanded("a/~/x") == Path("a/~/x")


def test_the_name_of_no_user() -> None:
    with pytest.raises(UserError, match=r"~nobody.here/x begins with the name of no user; write ./~nobody.here/x"):
        expanded("~nobody.here/x")
    assert expanded("./~nobody.here/x") == Path("~nobody.here/x")
