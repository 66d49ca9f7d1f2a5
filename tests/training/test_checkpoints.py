"""Which checkpoints are kept, and which one is used when some are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.records.files import sha256
from residualdroppath.training.checkpoints import Checkpoints, Manifest, kept
from residualdroppath.training.run import train

from .tiny_runs import interrupted, manifests, metrics, tiny


def saved(folder: Path, iteration: int, epoch: int = 0, **options: Any) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    checkpoints.save({"w": torch.tensor([iteration])}, {"iteration": iteration, "epoch": epoch}, **options)
    return checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def manifest(iteration: int, accuracy: float | None = None) -> Manifest:
    return Manifest(Path(f"{iteration}.json"), iteration, 0, accuracy, {})


@pytest.mark.parametrize(
    ("accuracies", "last", "expected"),
    [
        ([None, None, None, None], 2, [2, 3]),
        ([None, 0.5, 0.4, None], 1, [1, 3]),
        ([0.5, 0.5, 0.4, 0.3], 1, [0, 3]),
        ([0.1, 0.2, 0.3, 0.4], 3, [1, 2, 3]),
        ([0.0, None, None, None], 1, [0, 3]),
        ([], 2, []),
    ],
)
def test_the_last_and_the_best_are_kept(accuracies: list[float | None], last: int, expected: list[int]) -> None:
    found = kept([manifest(place, accuracy) for place, accuracy in reversed(list(enumerate(accuracies)))], last)
    assert [each.iteration for each in found] == expected


def test_files_of_others_are_removed(tmp_path: Path) -> None:
    for iteration, accuracy in ((3, 0.9), (5, None), (6, 0.8), (9, 0.1)):
        saved(tmp_path, iteration, accuracy=accuracy, last=1)
        (tmp_path / "iteration_00000099.state.pt.partial").touch()
    assert names(tmp_path) == [
        f"iteration_0000000{iteration}.{suffix}"
        for iteration in (3, 9)
        for suffix in ("json", "safetensors", "state.pt")
    ] + ["iteration_00000099.state.pt.partial"]


@pytest.mark.parametrize("suffix", ["json", "safetensors", "state.pt"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"{"), lambda path: path.unlink()])
def test_the_one_before_a_damaged_one_is_used(tmp_path: Path, suffix: str, damage: Any) -> None:
    saved(tmp_path, 3)
    checkpoints = saved(tmp_path, 5)
    damage(tmp_path / f"iteration_00000005.{suffix}")
    found = checkpoints.load()
    assert found is not None and found.state["iteration"] == found.weights["w"].item() == 3
    gone = suffix == "json" and not (tmp_path / "iteration_00000005.json").exists()
    assert gone or (len(found.damaged) == 1 and "iteration_00000005" in found.damaged[0])


def test_a_course_given_up_does_not_push_out_the_new_one(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    saved(tmp_path, 8)
    (tmp_path / "iteration_00000008.state.pt").write_bytes(b"")
    found = saved(tmp_path, 4, last=1).load()
    assert found is not None and found.state["iteration"] == 4 and found.damaged == ()


def test_the_same_iteration_may_be_saved_again(tmp_path: Path) -> None:
    saved(tmp_path, 3, epoch=0)
    found = saved(tmp_path, 3, epoch=1).load()
    assert found is not None and found.state["epoch"] == 1


def test_files_without_notes_are_damage_unless_a_kill_leaves_them(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    (tmp_path / "iteration_00000003.json").unlink()
    found = Checkpoints(tmp_path).load()
    assert found is not None and found.unchecked and found.state["iteration"] == 3
    (tmp_path / "iteration_00000003.state.pt").unlink()  # weights are written first
    assert Checkpoints(tmp_path).load() is None


def test_damaged_run_goes_on_from_the_checkpoint_before_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(epochs=3, drop_path_rate=0.5)
    train(config, tmp_path / "whole")
    interrupted(config, tmp_path / "cut", monkeypatch, after=2)
    assert manifests(tmp_path / "cut") == [3, 6]
    path = tmp_path / "cut/checkpoints/iteration_00000006.state.pt"
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    train(config, tmp_path / "cut", resume=True)
    said = capsys.readouterr().err
    assert "checkpoint not used, it is damaged: iteration_00000006" in said and "is used: iteration 3\n" in said
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_checkpoint_of_version_0_1_0_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs that were under way when checkpoints got names by iterations, and states more in them."""
    config = tiny(epochs=3, drop_path_rate=0.5)
    train(config, tmp_path / "whole")
    folder = interrupted(config, tmp_path / "cut", monkeypatch) / "checkpoints"
    state = torch.load(folder / "iteration_00000003.state.pt", weights_only=True)
    for name in ("so_far", "generators"):
        del state[name]
    torch.save(state, folder / "epoch_0001.state.pt")
    (folder / "iteration_00000003.safetensors").rename(folder / "epoch_0001.safetensors")
    for path in folder.glob("iteration*"):
        path.unlink()
    digests = {path.name: sha256(path) for path in folder.iterdir()}
    (folder / "latest.json").write_text(json.dumps({"epoch": 1, "sha256": digests}))
    (tmp_path / "cut/data.json").unlink()
    train(config, tmp_path / "cut", resume=True)
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    assert names(folder)[0] == "iteration_00000006.json" and len(names(folder)) == 6
