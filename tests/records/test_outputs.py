"""Places for results are refused before the work, with the reason, and nothing is made or replaced."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from residualdroppath.errors import UserError
from residualdroppath.records.outputs import require_folder, require_record

READ_ONLY = Path("/proc")  # also for root, who may write into any folder that is not


@pytest.fixture(autouse=True)
def nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text('{"study": "mine"}')
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.json").mkdir()


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def refused(tmp_path: Path, path: Path, *, overwrite: bool = False) -> str:
    before = everything(tmp_path)
    with pytest.raises(UserError) as error:
        require_record(path, overwrite=overwrite)
    assert everything(tmp_path) == before and "\n" not in str(error.value)
    return str(error.value)


def test_a_new_record(tmp_path: Path) -> None:
    before = everything(tmp_path)
    require_record(tmp_path / "record.json")
    require_record(tmp_path / "deep" / "deeper" / "record.json")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["record.png", "record", "there", "record.JSONL"])
def test_a_record_is_a_json_file(tmp_path: Path, name: str) -> None:
    assert "ends in .json" in refused(tmp_path, tmp_path / name)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_record(tmp_path: Path, overwrite: bool) -> None:
    assert "must name a file, got the folder" in refused(tmp_path, tmp_path / "folder.json", overwrite=overwrite)


def test_a_record_that_is_there_stays_unless_asked(tmp_path: Path) -> None:
    assert "--overwrite it" in refused(tmp_path, tmp_path / "there.json")
    require_record(tmp_path / "there.json", overwrite=True)
    os.symlink(tmp_path / "nowhere", tmp_path / "link.json")
    assert "--overwrite it" in refused(tmp_path, tmp_path / "link.json")


def test_what_goes_on_replaces_its_own_record(tmp_path: Path) -> None:
    path = tmp_path / "there.json"
    require_record(path, own=lambda record: record["study"] == "mine")
    for content in ('{"study": "another"}', "[]", "{", "\xff"):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match="--overwrite it"):
            require_record(path, own=lambda record: record["study"] == "mine")


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that nobody may write to")
def test_places_that_cannot_be_written_to() -> None:
    for place in (READ_ONLY, READ_ONLY / "deep" / "deeper"):
        with pytest.raises(UserError, match="cannot be written to .*choose another `record`"):
            require_record(place / "record.json")
        with pytest.raises(UserError, match="cannot be written to .*choose another `out`"):
            require_folder(place / "run")


def test_below_a_file(tmp_path: Path) -> None:
    assert "cannot be written to" in refused(tmp_path, tmp_path / "file" / "record.json")
    with pytest.raises(UserError, match="cannot be written to"):
        require_folder(tmp_path / "file" / "run")


def test_folders(tmp_path: Path) -> None:
    require_folder(tmp_path / "new" / "run")
    require_folder(tmp_path, resume=True)
    with pytest.raises(UserError, match="is in use"):
        require_folder(tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_record_is_outside_of_the_folders_that_a_command_writes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    os.symlink(tmp_path, tmp_path / "link")
    for inside in (run / "costs.json", run / "deep" / "own.json", tmp_path / "link" / "run" / "costs.json"):
        for overwrite in (False, True):
            with pytest.raises(UserError, match="outside of .*run, whose files the command writes, got "):
                require_record(inside, overwrite=overwrite, outside=[tmp_path / "elsewhere", run])
    require_record(tmp_path / "run.json", outside=[run])
    require_record(run / ".." / "beside.json", outside=[run])
