"""A folder is claimed by one run of one recipe, and damage in it is told before anything is written."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from residualdroppath.errors import UserError
from residualdroppath.records.files import sha256
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import train
from residualdroppath.training.run_folder import RunFolder

from .tiny_runs import contents, final_state, interrupted, tiny

ONLY = "iteration_00000003"  # the checkpoint of a run that was stopped after its first epoch


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, interrupted after the first."""
    with pytest.MonkeyPatch.context() as patch:
        return interrupted(tiny(), tmp_path_factory.mktemp("begun") / "run", patch)


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    for name, content in contents(begun).items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "run"


def refused(out: Path, config: TrainConfig | None = None, *, resume: bool = True) -> str:
    """The error, which left all as it was."""
    before = contents(out) if out.is_dir() else None
    with pytest.raises(UserError) as error:
        train(config or tiny(), out, resume=resume)
    assert "\n" not in str(error.value)
    assert (contents(out) if out.is_dir() else None) == before
    return str(error.value)


def test_folder_of_a_run_is_not_overwritten(folder: Path) -> None:
    assert "is in use; choose another `out`, or `resume`" in refused(folder, resume=False)


def test_folder_with_anything_in_it_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "is in use" in refused(tmp_path, resume=False)


def test_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is in use" in refused(tmp_path / "file", resume=False)
    assert "cannot be written to" in refused(tmp_path / "file" / "below", resume=False)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("resume", [True, False])
def test_nothing_to_resume(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "none", tmp_path / "empty"):
        assert "no run to resume" in refused(out)
    assert not (tmp_path / "none").exists()


def test_resume_keeps_the_recipe(folder: Path) -> None:
    message = refused(folder, tiny(lr=0.01, seed=1))
    assert "lr (0.05 there, 0.01 now)" in message and "seed (0 there, 1 now)" in message


def _hold(path: Path, held: multiprocessing.Queue, release: multiprocessing.Queue) -> None:
    with FileLock(path):
        held.put(True)
        release.get(timeout=60)


def test_folder_that_another_process_works_in(folder: Path) -> None:
    spawn = multiprocessing.get_context("forkserver")
    held, release = spawn.Queue(), spawn.Queue()
    other = spawn.Process(target=_hold, args=(folder / ".lock", held, release))
    other.start()
    try:
        assert held.get(timeout=60)
        assert "in use by a run that still goes on" in refused(folder)
    finally:
        release.put(True)
        other.join(60)
    assert train(tiny(), folder, resume=True)["iterations"] == 6


def _truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": _truncate,
    "empty": lambda content: b"",
    "text": lambda content: b"nothing of the kind\n",
    "zeros": lambda content: bytes(len(content)),
    "json": lambda content: b'{"epoch": 7}',
    "header": lambda content: b"\xff" * 64 + content[64:],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [f"{ONLY}.json", f"{ONLY}.safetensors", f"{ONLY}.state.pt"])
def test_damaged_checkpoint(folder: Path, name: str, damage: str) -> None:
    path = folder / "checkpoints" / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert f"The checkpoint in {folder / 'checkpoints'} is damaged" in refused(folder)


@pytest.mark.parametrize("name", [f"{ONLY}.safetensors", f"{ONLY}.state.pt"])
def test_any_flipped_bit_is_found(folder: Path, name: str) -> None:
    path = folder / "checkpoints" / name
    whole = path.read_bytes()
    for position in (0, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert f"{name} is not what was written" in refused(folder)


@pytest.mark.parametrize("name", [f"{ONLY}.safetensors", f"{ONLY}.state.pt"])
def test_half_a_checkpoint(folder: Path, name: str) -> None:
    (folder / "checkpoints" / name).unlink()
    assert "is damaged" in refused(folder)


@pytest.mark.parametrize("part", ["weights", "optimizer", "rdp", "scaler"])
def test_checkpoint_of_another_model(folder: Path, part: str) -> None:
    weights, state = final_state(folder)
    if part == "weights":
        weights["head.weight"] = torch.zeros(3, 3)
    elif part == "scaler":
        del state["scaler"]
    else:
        state[part] = {}
    RunFolder(folder).checkpoints.save(weights, state)
    assert "does not fit this model" in refused(folder)


def test_without_its_note_a_checkpoint_is_used_and_said_to_be_unchecked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "checkpoints" / f"{ONLY}.json").unlink()
    assert train(tiny(), folder, resume=True)["iterations"] == 6
    assert "so it was not checked: iteration 3" in capsys.readouterr().err


def test_without_note_and_weights_nothing_is_started_anew(folder: Path) -> None:
    for suffix in (".json", ".safetensors"):
        (folder / "checkpoints" / f"{ONLY}{suffix}").unlink()
    assert "there are 1, and no notes on them" in refused(folder)


def test_a_run_that_was_killed_in_its_first_epoch_starts_it_again(folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    (folder / "checkpoints" / f"{ONLY}.safetensors").write_bytes(b"half")  # the kill came while it was saved
    assert train(tiny(), folder, resume=True)["iterations"] == 6


@pytest.mark.parametrize("left", ["weights", "epochs"])
def test_checkpoints_that_are_gone_are_not_taken_for_a_start(folder: Path, left: str) -> None:
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    rows = (folder / "metrics.jsonl").read_text()
    if left == "weights":
        (folder / "model.safetensors").write_bytes(b"trained")
    else:
        (folder / "metrics.jsonl").write_text(rows * 2)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = "final weights" if left == "weights" else "epochs of training"
    assert f"no checkpoint to resume from, but {folder} holds {words}" in refused(folder)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"epoch": 1}\n{"epo', b"[]", b"1", b'{"epoch": "one"}', b'{"a": []}', b"{}", b'{"epoch": 1}'],
)
def test_damaged_metrics(folder: Path, content: bytes) -> None:
    (folder / "metrics.jsonl").write_bytes(content)
    assert f"{folder / 'metrics.jsonl'} is damaged" in refused(folder)


def test_metrics_that_are_gone(folder: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    assert "it holds 0 of 1 epochs" in refused(folder)


WITHOUT_EPOCHS = '{"iterations": 6, "train_accuracy": 1, "validation_accuracy": 1}'
OF_TEXT = WITHOUT_EPOCHS[:-1] + ', "epochs": 2, "test_accuracy": "x"}'


@pytest.mark.parametrize("content", ["{", "[1]", "1", '{"iterations": 6}', "null", WITHOUT_EPOCHS, OF_TEXT])
@pytest.mark.parametrize("name", ["environment.json", "result.json"])
def test_damaged_records(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert f"{folder / name} is damaged" in refused(folder)


@pytest.mark.parametrize("content", ["", "epochs: [", "epochs: 0\n"])
def test_damaged_recipe(folder: Path, content: str) -> None:
    (folder / "config.yaml").write_text(content)
    assert str(folder / "config.yaml") in refused(folder)


class _Trap:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("as_torch_does", [True, False])
def test_no_code_in_a_checkpoint_is_run(folder: Path, tmp_path: Path, as_torch_does: bool) -> None:
    sprung, path = tmp_path / "sprung", folder / "checkpoints" / f"{ONLY}.state.pt"
    trap = {"epoch": 1, "iteration": 3, "optimizer": _Trap(sprung)}
    if as_torch_does:
        torch.save(trap, path)
    else:
        path.write_bytes(pickle.dumps(trap))
    manifest = path.with_name(f"{ONLY}.json")
    written = json.loads(manifest.read_text())
    written["sha256"][path.name] = sha256(path)
    manifest.write_text(json.dumps(written))
    assert "is damaged" in refused(folder)
    assert not sprung.exists()
    torch.load(path, weights_only=False) if as_torch_does else pickle.loads(path.read_bytes())
    assert sprung.exists(), "the trap itself does not work"


def test_environment_has_one_entry_per_start(folder: Path) -> None:
    train(tiny(), folder, resume=True)
    entries = json.loads((folder / "environment.json").read_text())
    assert len(entries) == 2 and {"torch", "residualdroppath"} <= entries[1]["versions"].keys()
    assert entries[1]["device"].startswith("cpu")
