"""A small text transformer: which of 12 languages is a word of? Plain, drop path and ResidualDroppath at equal cost.

Words are the most frequent ones of each language (the package wordfreq, `pip install wordfreq==3.1.1`) that no other
of the languages has among its own. Each method has the same number of tries on validation words; the test words are
used once for each seed. Iterations of each method are timed in turn with plain ones before anything is trained.

.venv/bin/python benchmarks/text_transformer.py --out results/text/words.json
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import wordfreq
from builds import write
from torch import Tensor, nn
from torch.nn import functional as F

from residualdroppath import ResidualDropPath
from residualdroppath.analysis.capture import capture
from residualdroppath.analysis.units import closest, reuse
from residualdroppath.experiments.studies.statistics import holm, paired, summary

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "fi", "tr", "ro")
LENGTH, BATCH, ITERATIONS = 16, 100, 800
SIZES = {"train": 2000, "validation": 2000, "test": 6000}
SEEDS, TUNING_SEEDS = range(5), range(1000, 1003)
FORMS = [{"rate": rate, "lr": lr} for rate in (0.2, 0.5) for lr in (0.001, 0.003)]
METHODS: dict[str, tuple[dict[str, Any] | None, list[dict[str, float]]]] = {
    "plain": (None, [{"lr": lr} for lr in (0.0003, 0.0005, 0.001, 0.003)]),
    "drop path": ({"schedule": (1, 0)}, FORMS),
    "ResidualDroppath (4, 1) union": ({"schedule": (4, 1), "trains": "union"}, FORMS),
}
Words = tuple[Tensor, Tensor]  # int64[n, LENGTH] characters, 0 behind the end, and int64[n] languages


def read_words() -> dict[str, Words]:
    """The parts, the same for every seed, all languages alike in each."""
    lists = [wordfreq.top_n_list(language, 6000) for language in LANGUAGES]
    counts = Counter(word for words in lists for word in words)
    generator = torch.Generator().manual_seed(0)
    alphabet: dict[str, int] = {}
    rows: dict[str, list[tuple[list[int], int]]] = {part: [] for part in SIZES}
    for language, words in enumerate(lists):
        own = [word for word in words if counts[word] == 1 and 3 <= len(word) <= LENGTH and word.isalpha()]
        mixed = iter([own[place] for place in torch.randperm(len(own), generator=generator).tolist()])
        for part, size in SIZES.items():
            for _ in range(size // len(LANGUAGES)):
                word = next(mixed)
                numbers = [alphabet.setdefault(character, len(alphabet) + 1) for character in word]
                rows[part].append((numbers + [0] * (LENGTH - len(word)), language))
    return {
        part: (torch.tensor([numbers for numbers, _ in own]), torch.tensor([language for _, language in own]))
        for part, own in rows.items()
    }


class TextTransformer(nn.Module):
    """Characters int64[batch, LENGTH] to logits float[batch, languages]; two branches a layer."""

    def __init__(self, characters: int, width: int = 48, depth: int = 6):
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 3, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(LANGUAGES))

    def forward(self, characters: Tensor) -> Tensor:
        tokens = self.embedding(characters) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        kept = (characters > 0).unsqueeze(-1)
        return self.head((self.norm(tokens) * kept).sum(1) / kept.sum(1))


class Training:
    """One network and its method, iteration after iteration."""

    def __init__(
        self, words: dict[str, Words], options: dict[str, Any] | None, seed: int, iterations: int,
        lr: float = 0.003, rate: float = 0.0,
    ):  # fmt: skip
        torch.manual_seed(seed)
        self.model = TextTransformer(int(max(part.max() for part, _ in words.values())) + 1)
        self.rdp = None if options is None else ResidualDropPath(self.model, rate, seed=seed, **options)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.05)
        self.lr, self.iterations, self.iteration = lr, iterations, 0
        self.words = words
        self.order = torch.Generator().manual_seed(seed)

    def step(self) -> None:
        done = self.iteration / self.iterations
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(10 * done + 0.01, 0.5 * (1 + math.cos(math.pi * done)))
        characters, labels = self.words["train"]
        rows = torch.randint(len(labels), (BATCH,), generator=self.order)
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(characters[rows]), labels[rows]).backward()
        self.optimizer.step()
        if self.rdp is not None:
            self.rdp.step()
        self.iteration += 1

    def run(self) -> Training:
        self.model.train()
        while self.iteration < self.iterations:
            self.step()
        return self

    @torch.no_grad()
    def accuracy(self, part: str) -> float:
        characters, labels = self.words[part]
        self.model.eval()
        return float((self.model(characters).argmax(1) == labels).double().mean())

    def reuse(self) -> float:
        """Of the trained network: mean |r| of a unit with its closest one in the layer before, on test words."""
        rdp = self.rdp or ResidualDropPath(self.model, 0.0)
        words, labels = self.words["test"]
        streams = capture(rdp, [(words[:1000], labels[:1000])]).streams
        return float(np.mean(reuse(closest([np.asarray(layer, dtype=np.float64) for layer in streams]))))


def cost_of(words: dict[str, Words], options: dict[str, Any] | None, rate: float) -> float:
    """Seconds of an iteration over those of a plain one, the two in turn, over whole cycles."""
    if options is None:
        return 1.0
    sides = [Training(words, None, 0, 1000), Training(words, options, 0, 1000, rate=rate)]
    spent: list[list[float]] = [[], []]
    for _ in range(150):
        for side, own in zip(sides, spent, strict=True):
            start = time.process_time()
            side.step()
            own.append(time.process_time() - start)
    plain, ours = (own[10:] for own in spent)
    return statistics.fmean(ours) / statistics.fmean(plain)


def study(words: dict[str, Words]) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    wanted = {(name, each.get("rate", 0.0)) for name, (_, tries) in METHODS.items() for each in tries}
    measured = {(name, rate): cost_of(words, METHODS[name][0], rate) for name, rate in sorted(wanted)}
    print("timed", measured, flush=True)
    for name, (options, tries) in METHODS.items():
        costs = [measured[name, each.get("rate", 0.0)] for each in tries]
        lengths = [round(ITERATIONS / cost) for cost in costs]
        means = []
        for each, length in zip(tries, lengths, strict=True):
            found = [Training(words, options, seed, length, **each).run() for seed in TUNING_SEEDS]
            means.append(statistics.fmean(training.accuracy("validation") for training in found))
            print(name, each, f"{100 * means[-1]:.2f}", flush=True)
        best = max(range(len(tries)), key=means.__getitem__)
        trained = {seed: Training(words, options, seed, lengths[best], **tries[best]).run() for seed in SEEDS}
        rows[name] = {
            "chosen": tries[best],
            "tries": [{"values": each, "validation_accuracy": mean} for each, mean in zip(tries, means, strict=True)],
            "cost_per_iteration": costs[best],
            "iterations": lengths[best],
            "train_accuracy": summary([training.accuracy("train") for training in trained.values()]),
            "values": {seed: training.accuracy("test") for seed, training in trained.items()},
            "reuse_values": {seed: training.reuse() for seed, training in trained.items()},
        }
    return with_differences(rows)


def with_differences(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Summaries, and differences to plain training and drop path: paired by seed, Holm's correction over all."""
    pairs = [(name, other) for name in rows for other in ("plain", "drop path") if other != name and name != "plain"]
    differences = {pair: paired(rows[pair[0]]["values"], rows[pair[1]]["values"]) for pair in pairs}
    corrected = dict(zip(pairs, holm([each["p"] for each in differences.values()]), strict=True))
    plain = rows["plain"]["reuse_values"]
    for name, row in rows.items():
        row["test_accuracy"] = summary(list(row["values"].values()))
        row["against"] = {
            other: differences[name, other] | {"p_holm": corrected[name, other]} for own, other in pairs if own == name
        }
        reused = row["reuse_values"]
        row["reuse"] = summary(list(reused.values())) | {"minus_plain": paired(reused, plain)}
    return {"rows": rows, "comparisons": len(pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    about = {"languages": LANGUAGES, "sizes": SIZES, "batch_size": BATCH, "wordfreq": "3.1.1"}
    write({**about, "seeds": list(SEEDS), **study(read_words())}, arguments.out)


if __name__ == "__main__":
    main()
