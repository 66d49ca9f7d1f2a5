"""One line for each study and form of the method: what it gains over plain training and over tuned drop path,
which has a line of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cost_page import markdown_table

from residualdroppath.experiments.studies.signatures import significant
from residualdroppath.experiments.studies.table import difference_text

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "studies"
Record = dict[str, Any]
# In the order of docs/evidence.md; a study that is not among them has a question of its own.
SETTINGS = {
    "overfit_conv": "overfits: ResNet20, 2,000 CIFAR-10 images (JPEG copy, 16x16)",
    "overfit_vit": "overfits: vision transformer, 1,000 CIFAR-10 images (JPEG copy, 16x16)",
    "underfit_conv": "underfits: ResNet20, 4,000 CIFAR-10 images with crops (JPEG copy, 16x16)",
    "underfit_small": "too small for its data: 20 layers of 2 to 8 channels, 2,000 CIFAR-10 images with crops "
    "(JPEG copy, 16x16); not tuned",
    "mnist": "MNIST: ResNet14, 6,000 images",
    "convnext": "overfits: small ConvNeXt, 1,000 CIFAR-10 images (JPEG copy, 32x32)",
    "resnext": "small network of ResNeXt's blocks, 1,000 CIFAR-10 images (JPEG copy, 16x16)",
    "efficientnet": "small EfficientNet, 1,000 CIFAR-10 images (JPEG copy, 16x16)",
    "text": "overfits: text transformer, 2,000 words of 12 languages",
}
# Sections of docs/evidence.md.
SECTIONS = {
    "overfit_conv": "a-convolutional-network-that-overfits",
    "overfit_vit": "a-vision-transformer-that-overfits",
    "underfit_conv": "a-convolutional-network-that-underfits",
    "underfit_small": "a-network-too-small-for-its-data",
    "mnist": "mnist",
    "convnext": "a-small-convnext",
    "resnext": "blocks-of-resnext",
    "efficientnet": "blocks-of-efficientnet",
    "text": "a-text-transformer",
}
TEXT = ROOT / "results" / "text" / "words.json"
FORMS = ("ResidualDroppath (4, 1) union", "ResidualDroppath (1, 1)", "the paper's form")
FURTHER = ("balanced draws",)  # of (4, 1) union, where it was studied
HEAD = ["set-up", "form", "n", "minus plain", "minus drop path", "verdict"]


def studies() -> dict[str, Record]:
    """Records by the name of their file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))}


def text_study() -> Record:
    """The record of benchmarks/text_transformer.py with its rows as those of a study."""
    rows = json.loads(TEXT.read_text())["rows"]
    names = {"plain": "plain", "drop path": "drop_path"}
    return {
        "rows": [
            {**row, "variant": name, "against": {names[other]: each for other, each in row["against"].items()}}
            for name, row in rows.items()
        ]
    }


def verdict_table(records: dict[str, Record], page: str = "") -> str:
    """Set-ups are links to the sections of `page`, docs/evidence.md as seen from where the table is."""
    rows = []
    records = {**records, "text": text_study()}
    for name, text in SETTINGS.items():
        setting = f"[{text}]({page}#{SECTIONS[name]})"
        for row in records.get(name, {"rows": []})["rows"]:
            if row["variant"] in ("drop path", *FORMS, *FURTHER):
                against = {other: row["against"].get(other) for other in ("plain", "drop_path")}
                words = [verdict(each, other.replace("_", " ")) for other, each in against.items() if each is not None]
                differences = [difference_text(each) for each in against.values()]
                variant = f"(4, 1) union, {row['variant']}" if row["variant"] in FURTHER else row["variant"]
                rows.append([setting, variant, str(row["test_accuracy"]["n"]), *differences, "; ".join(words)])
                setting = ""  # once for all of its rows
    return markdown_table(HEAD, rows)


# What the paper reports, single runs of larger networks, and the study here that comes closest.
PAPER = (
    ("CIFAR-10", "ResNet50d, 90.84 %, about +1", "overfit_conv", "ResNet20, 2,000 images of the JPEG copy, 16x16"),
    ("MNIST", "trained too; its figure is not at hand", "mnist", "ResNet14, 6,000 images"),
    ("ImageNet-1k", "ResNet50d, 76.57 %, +0.3", "", "not run"),
)
PAPER_HEAD = ["", "paper", "here", "n", "plain (%)", *(f"{form}, minus plain" for form in ("drop path", *FORMS))]


def paper_table(records: dict[str, Record]) -> str:
    """The paper's figures with those of small networks here next to them."""
    rows = []
    for data, paper, name, here in PAPER:
        found = {row["variant"]: row for row in records.get(name, {"rows": []})["rows"]}
        row = [data, paper, here if found else "not run"]
        if found:
            accuracy = found["plain"]["test_accuracy"]
            row += [str(accuracy["n"]), f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['std']:.2f}"]
            row += [
                difference_text(found[form]["against"]["plain"]) if form in found else "-"
                for form in ("drop path", *FORMS)
            ]
        rows.append(row + ["-"] * (len(PAPER_HEAD) - len(row)))
    return markdown_table(PAPER_HEAD, rows)


def verdict(difference: Record, other: str) -> str:
    """In words, by the p value after Holm's correction."""
    if difference.get("p_holm") is None:
        return f"not compared to {other}"
    if not significant(difference):
        return f"no difference to {other} shown"
    return f"{'above' if difference['mean'] > 0 else 'below'} {other}"
