"""Figures of an evaluation against those of another implementation, and classes matched by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as typed_too_strictly

from data.files import encoded, request, write_parquet, write_tar
from residualdroppath.errors import UserError
from residualdroppath.inference.evaluation import evaluate
from residualdroppath.inference.evaluation_files import confusion_figure, write_evaluation
from residualdroppath.inference.labelled import match_classes, other_images, own_images
from residualdroppath.inference.network import load_network

from .conftest import square, write_squares

metrics: Any = typed_too_strictly


def test_figures(digits: Path) -> None:
    """Those of scikit-learn, and of the run itself, whatever the batch size; the last batch is smaller."""
    network = load_network(digits, "cpu")
    images = own_images(network, "test")
    found = evaluate(network, images.split, 7)
    pixels, labels = next(iter(images.split.batches([torch.arange(len(images.split))])))
    logits = network.logits(pixels)
    answers, truth = logits.argmax(1).numpy(), labels.numpy()
    result = json.loads((digits / "result.json").read_text())
    assert found["images"] == len(labels) == 360
    assert (
        found["top1"] == pytest.approx(metrics.accuracy_score(truth, answers)) == pytest.approx(result["test_accuracy"])
    )
    assert found["top5"] == pytest.approx(metrics.top_k_accuracy_score(truth, logits.numpy(), k=5))
    assert found["loss"] == pytest.approx(metrics.log_loss(truth, logits.double().softmax(1).numpy()), rel=1e-5)
    assert found["confusion"] == metrics.confusion_matrix(truth, answers).tolist()
    recalls = metrics.recall_score(truth, answers, average=None)
    assert [row["accuracy"] for row in found["classes"]] == pytest.approx(list(recalls))
    precisions = metrics.precision_score(truth, answers, average=None, zero_division=np.nan)
    assert [np.nan if row["right_of_answers"] is None else row["right_of_answers"] for row in found["classes"]] == (
        pytest.approx(list(precisions), nan_ok=True)
    )


def test_own_data_that_changed(squares: Path, tmp_path: Path) -> None:
    copytree(squares, tmp_path / "copy")
    network = load_network(squares / "run", "cpu")
    assert len(own_images(network, "validation").split) == 9 and len(own_images(network, "test").split) == 6
    path = squares / "set/val/red/0.png"
    before = path.read_bytes()
    path.write_bytes(encoded(square("blue", 0)))
    try:
        with pytest.raises(
            UserError, match="differ in content of the validation part; put them back, or name data as `data`"
        ):
            own_images(network, "test")
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("layout", ["classes", "test/classes", "val and test"])
def test_other_folders_are_matched_by_name(squares: Path, tmp_path: Path, layout: str) -> None:
    """Two of three classes: by index, green would be taken for blue."""
    folder = tmp_path if layout == "classes" else tmp_path / "test"
    write_squares(folder, ("green", "red"), 3)
    if layout == "val and test":
        write_squares(tmp_path / "val", ("blue",), 3)
    network = load_network(squares / "run", "cpu")
    images = other_images(network, request(str(tmp_path)), "test")
    assert evaluate(network, images.split, 4)["top1"] == 1
    assert images.split.labels.unique().tolist() == [1, 2]
    assert images.notes[:2] == (
        "classes are in another order or fewer than the network's, and were matched by name",
        "the test part lacks 1 of 3 classes: blue",
    )


def test_parquet_in_another_order(squares: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        labels = ["red", "blue"] * 3
        columns = {"image": [encoded(square(label, n)) for n, label in enumerate(labels)], "label": labels}
        write_parquet(tmp_path / f"{part}.parquet", columns)
    network = load_network(squares / "run", "cpu")
    assert evaluate(network, other_images(network, request(str(tmp_path)), "test").split, 4)["top1"] == 1


def test_tar_files_as_for_training(squares: Path, tmp_path: Path) -> None:
    members = {f"{name}/{n}.png": encoded(square(name, n)) for name in ("red", "blue") for n in range(3)}
    for part in ("train", "test"):
        write_tar(tmp_path / f"{part}.tar", members)
    network = load_network(squares / "run", "cpu")
    assert evaluate(network, other_images(network, request(str(tmp_path)), "test").split, 4)["top1"] == 1


def test_named_sets_of_other_sizes_and_colours(digits: Path, squares: Path) -> None:
    network = load_network(digits, "cpu")
    images = other_images(network, request("digits"), "test")
    assert evaluate(network, images.split, 64) == evaluate(network, own_images(network, "test").split, 64)
    with pytest.raises(UserError, match="digits must hold classes of the network alone, blue, green, red, got 0, 1, 2"):
        other_images(load_network(squares / "run", "cpu"), request("digits"), "test")
    with pytest.raises(UserError, match="digits has no validation part of its own"):
        other_images(network, request("digits"), "validation")


def test_a_network_of_grey_images_takes_files_as_grey(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    Image.fromarray(np.full((20, 30, 3), 7, np.uint8)).save(tmp_path / "3/x.png")
    network = load_network(digits, "cpu")
    images = other_images(network, request(str(tmp_path)), "test").split.decoded()
    assert next(iter(images.batches([torch.arange(1)])))[0].shape == (1, 1, 8, 8)
    assert images.labels.tolist() == [3]


def test_other_classes_are_refused(squares: Path, tmp_path: Path) -> None:
    network = load_network(squares / "run", "cpu")
    write_squares(tmp_path / "a", ("green", "red"), 2)
    (tmp_path / "a/red").rename(tmp_path / "a/Red")
    with pytest.raises(UserError, match="must hold classes of the network alone, blue, green, red, got Red"):
        other_images(network, request(str(tmp_path / "a")), "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="must hold a folder of images for each class"):
        other_images(network, request(str(tmp_path / "empty")), "test")
    write_squares(tmp_path / "b" / "val", ("red",), 2)
    with pytest.raises(UserError, match="has no test part, it has val; choose another `part`"):
        other_images(network, request(str(tmp_path / "b")), "test")
    with pytest.raises(UserError, match="classes of x cannot be matched by name, a stands for several"):
        match_classes(torch.zeros(1), ("a", "a"), ("a", "b"), "x")


def test_files(squares: Path, tmp_path: Path) -> None:
    network = load_network(squares / "run", "cpu")
    images = own_images(network, "test")
    found = {"network": "run", "data": "set", "part": "test", "notes": ["a note"], **evaluate(network, images.split, 4)}
    assert "top5" not in found  # of three classes
    page = write_evaluation(found, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == found
    rows = list(csv.reader((tmp_path / "confusion.csv").read_text().splitlines()))
    assert rows[0] == ["class", "blue", "green", "red"] and rows[1] == ["blue", "2", "0", "0"]
    classes = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert [row["accuracy"] for row in classes] == ["1.0"] * 3
    assert "top-1 100.00 %" in page.read_text() and "a note" in page.read_text()
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.size[0] > 300


def test_names_of_classes_are_drawn_in_any_locale(tmp_path: Path) -> None:
    figure = confusion_figure(["katze_\udcc3\udcbc", "$x^$"], np.eye(2))
    figure.savefig(tmp_path / "x.png")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["katze_ü", r"\$x^\$"]
