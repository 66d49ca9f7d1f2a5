"""Images in, classes out: each once, in order, and what is left out is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from data.files import encoded
from residualdroppath.data.decoding import COMPOSED
from residualdroppath.errors import UserError
from residualdroppath.inference import prediction
from residualdroppath.inference.network import load_network
from residualdroppath.inference.prediction import find_images, predict

from .conftest import square, write_squares


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images in two folders, and four files that are none."""
    write_squares(tmp_path / "in", ("red", "blue"), 3)
    (tmp_path / "in/notes.txt").write_text("x")
    (tmp_path / "in/.hidden.png").write_bytes(b"x")
    (tmp_path / "in/red/1b.png").write_bytes(b"no image")
    whole = encoded(square("red", 0), "JPEG")
    (tmp_path / "in/red/cut.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "in"


@pytest.mark.parametrize("workers", [False, True])
def test_each_image_once(squares: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, workers: bool) -> None:
    monkeypatch.setattr(prediction, "FEW", 0 if workers else 64)
    network = load_network(squares / "run", "cpu")
    files, notes = find_images([folder, folder / "red/0.png"])
    assert len(files) == 8 and notes == [
        f"{folder}: skipped, .txt, not read as an image: notes.txt",
        f"{folder}: skipped, hidden: .hidden.png",
    ]
    seen: list[int] = []
    found, skipped = predict(network, files, top_k=2, batch_size=3, on_progress=lambda done, total: seen.append(done))
    assert [each.file.relative_to(folder).as_posix() for each in found] == [
        *(f"{name}/{number}.png" for name in ("blue", "red") for number in range(3))
    ]
    assert [each.classes[0] for each in found] == ["blue"] * 3 + ["red"] * 3
    assert all(1 >= each.probabilities[0] >= each.probabilities[1] >= 0 for each in found)
    assert seen == [3, 6, 8] and len(skipped) == 2
    assert skipped[0].startswith(f"skipped: {folder}/red/1b.png cannot be decoded as an image")
    assert skipped[1].startswith(f"skipped: {folder}/red/cut.jpg cannot be decoded as an image")


def test_what_leads_nowhere_is_left_out_and_named(folder: Path) -> None:
    (folder / "gone.png").symlink_to("/nowhere.png")
    os.mkfifo(folder / "red/pipe.png")  # must not be waited for
    files, notes = find_images([folder])
    assert len(files) == 8
    assert f"{folder}: skipped, has the name of an image but leads nowhere: gone.png" in notes
    assert f"{folder}: skipped, has the name of an image but is no regular file: red/pipe.png" in notes


def test_probabilities_are_those_of_the_logits(squares: Path) -> None:
    network = load_network(squares / "run", "cpu")
    files, _ = find_images([squares / "set/test"])
    found, _ = predict(network, files, top_k=3, batch_size=2)
    for each in found:
        assert sum(each.probabilities) == pytest.approx(1, abs=1e-5) and set(each.classes) == {"blue", "green", "red"}
    images = torch.from_numpy(square("blue", 0)).permute(2, 0, 1)[None]
    expected = network.logits(images).softmax(1)[0]
    assert found[0].probabilities[0] == pytest.approx(float(expected[0]), abs=1e-5)


@pytest.mark.parametrize("workers", [False, True])
def test_what_decoding_changed_is_kept(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: bool
) -> None:
    monkeypatch.setattr(prediction, "FEW", 0 if workers else 64)
    (tmp_path / "plain.png").write_bytes(encoded(square("red", 0)))
    (tmp_path / "see-through.png").write_bytes(encoded(np.zeros((12, 12, 4), np.uint8)))
    found, _ = predict(load_network(squares / "run", "cpu"), find_images([tmp_path])[0], top_k=1, batch_size=2)
    assert [each.remarks for each in found] == [(), (COMPOSED,)]


def test_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no images in"):
        find_images([tmp_path])
    with pytest.raises(UserError, match="is neither a folder nor a file"):
        find_images([tmp_path / "nothing"])
