"""A file is written whole or not at all, and what cannot be read or claimed is one line that names it."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from residualdroppath.errors import UserError
from residualdroppath.records import files
from residualdroppath.records.files import (
    InUse,
    Taken,
    locked,
    read_json,
    replacing,
    require_unused,
    sha256,
    write_json,
    write_record,
    write_text,
)
from residualdroppath.records.tensors import read_state, read_weights, write_arrays, write_state, write_weights

WRITES: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "record": lambda path: write_record(path, {"new": 1}),
    "arrays": lambda path: write_arrays(path, {"new": np.arange(3)}),
    "state": lambda path: write_state(path, {"new": torch.arange(3)}),
    "weights": lambda path: write_weights(path, {"new": torch.arange(3)}),
}


@pytest.mark.parametrize("kind", WRITES)
def test_interrupted_before_the_end_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def stop(*paths: Path) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            WRITES[kind](path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    WRITES[kind](path)
    assert path.read_bytes() != b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", WRITES)
def test_a_disk_that_is_full_is_one_line_and_leaves_the_old_file(tmp_path: Path, kind: str) -> None:
    large = {
        "text": lambda path: write_text(path, "x" * 200_000),
        "json": lambda path: write_json(path, ["x" * 200_000]),
        "record": lambda path: write_record(path, {"x": "x" * 200_000}),
        "arrays": lambda path: write_arrays(path, {"x": np.random.default_rng(0).random(100_000)}),
        "state": lambda path: write_state(path, {"x": torch.rand(100_000)}),
        "weights": lambda path: write_weights(path, {"x": torch.rand(100_000)}),
    }
    path = tmp_path / "file"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # what a file may take, in place of a full disk
    try:
        with pytest.raises(UserError, match=r"file cannot be written \(.*(large|27).*\); free some space") as error:
            large[kind](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("kind", WRITES)
def test_permissions_are_those_of_any_new_file(tmp_path: Path, kind: str, mask: int) -> None:
    before = os.umask(mask)
    try:
        WRITES[kind](tmp_path / "file")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask
    finally:
        os.umask(before)


def test_two_processes_do_not_write_to_one_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replacing(tmp_path / "file") as ours:
        monkeypatch.setattr(files.os, "getpid", lambda: -1)
        with replacing(tmp_path / "file") as theirs:
            assert ours != theirs
            theirs.write_text("theirs")
        ours.write_text("ours")
    assert (tmp_path / "file").read_text() == "ours"


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"


def test_values_come_back(tmp_path: Path) -> None:
    write_record(tmp_path / "deep" / "record.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "deep" / "record.json") == {"a": [1, 2.5, None]}
    write_arrays(tmp_path / "arrays.npz", {"a": np.arange(3)})
    with np.load(tmp_path / "arrays.npz") as arrays:
        assert arrays["a"].tolist() == [0, 1, 2]
    write_state(tmp_path / "state.pt", {"epoch": 3, "moment": torch.arange(3)})
    state = read_state(tmp_path / "state.pt")
    assert state["epoch"] == 3 and state["moment"].tolist() == [0, 1, 2]


def test_tied_and_transposed_weights_come_back(tmp_path: Path) -> None:
    tied = nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3)])
    tied[1].weight = tied[0].weight
    weights = {**tied.state_dict(), "transposed": torch.arange(6).reshape(2, 3).T}
    write_weights(tmp_path / "weights", weights)
    found = read_weights(tmp_path / "weights")
    assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 20)
    for path in (tmp_path / "none", tmp_path / "model.safetensors"):
        with pytest.raises(UserError, match="cannot be read as safetensors"):
            read_weights(path)


@pytest.mark.parametrize("content", [b"[]", b"3", b'"text"', b"null", b'[{"epoch": 1}]', b'{"epoch": "three"}'])
def test_json_of_another_kind_is_damage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="record.json is damaged") as error:
        read_json(path, dict[str, int])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 5000])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(UserError, match="record.json is damaged"):
        read_json(tmp_path / "record.json")


def test_digest_sees_a_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    digests = set()
    for content in (b"abc", b"abb", b"abc"):
        path.write_bytes(content)
        digests.add(sha256(path))
    assert len(digests) == 2


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    folder, below = tmp_path / "run", tmp_path / "run" / "below"
    with locked(folder, below):
        assert below.is_dir()
        with pytest.raises(InUse, match="in use by a run that still goes on"), locked(folder):
            pass
    with locked(folder):
        pass
    with locked(tmp_path / "new", new=True), pytest.raises(InUse), locked(tmp_path / "new", new=True):
        pass


def test_a_new_folder_is_empty_or_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is in use"), locked(tmp_path, new=True):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_who_comes_second_finds_what_the_first_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have seen an empty folder; the first has ended when the second gets the lock."""
    acquire = files.FileLock.acquire

    def after_the_first(self: Any, *args: Any, **kwargs: Any) -> Any:
        (tmp_path / "run" / "result.json").write_text("{}")
        return acquire(self, *args, **kwargs)

    monkeypatch.setattr(files.FileLock, "acquire", after_the_first)
    with pytest.raises(UserError, match="is in use"), locked(tmp_path / "run", new=True):
        pass
    assert (tmp_path / "run" / "result.json").read_text() == "{}"


def test_a_mistake_leaves_no_folder_behind(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "runs" / "run", new=True):
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "runs" / "run", new=True):
        (tmp_path / "runs" / "run" / "log.txt").write_text("x")
        raise ZeroDivisionError
    assert (tmp_path / "runs" / "run" / "log.txt").is_file()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written to"), locked(tmp_path / "file" / "below"):
        pass


def test_only_new_and_empty_folders_are_unused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    require_unused(tmp_path / "none")
    require_unused(tmp_path / "empty")
    for used in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="is in use"):
            require_unused(used)


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_replaces_none_that_came_in_the_meantime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_link(*paths: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(files.os, "link", no_link)
    path = tmp_path / "table.csv"
    write_text(path, "first", new=True)
    for number in (2, 3):
        with pytest.raises(Taken, match=rf"table.csv was made .* the result is in .*table-{number}.csv") as error:
            write_text(path, str(number), new=True)
        assert error.value.kept.read_text() == str(number)
    (tmp_path / "link.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Taken):
        write_text(tmp_path / "link.csv", "x", new=True)
    assert path.read_text() == "first" and not (tmp_path / "nowhere").exists()
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"table.csv", "table-2.csv", "table-3.csv", "link.csv", "link-2.csv"}
