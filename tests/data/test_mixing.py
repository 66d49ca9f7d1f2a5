"""Erasing and mixing of batches: what timm does, from seeds, whatever rows a process has."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from residualdroppath.data.augmented import seeded
from residualdroppath.data.mixing import Mixing, eraser
from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

IMAGES = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(8) % 5
OPTIONS: Any = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erased_by_its_own_seed(mode: str) -> None:
    erase = eraser(0.7, mode, 2)
    seeds = list(range(8))
    whole = erase(IMAGES.clone(), seeds)
    halves = [erase(IMAGES[rows].clone(), seeds[rows]) for rows in (slice(0, 3), slice(3, 8))]
    assert torch.equal(torch.cat(halves), whole)
    erased = (whole != IMAGES).flatten(1).any(1)
    assert erased.any() and not erased.all()
    assert torch.equal(erase(IMAGES.clone(), [9] * 8)[0], erase(IMAGES.clone(), [9] * 8)[0])


def test_nothing_or_all_is_erased_at_the_ends() -> None:
    assert torch.equal(eraser(0.0, "const", 1)(IMAGES.clone(), range(8)), IMAGES)
    assert ((eraser(1.0, "const", 1)(IMAGES.clone(), range(8)) == 0).flatten(1).any(1)).all()


def test_batch_is_mixed_as_timm_does_with_neighbours_at_its_ends() -> None:
    ensure_torchvision_ops()
    from timm.data.mixup import Mixup

    order = [0, 2, 4, 6, 7, 5, 3, 1]
    of_timm = Mixup(label_smoothing=0.0, num_classes=5, **OPTIONS)
    for seed in range(5):
        with seeded(seed):
            images, shares = of_timm(IMAGES[order], LABELS[order])
        found, labels = Mixing(5, **OPTIONS)(IMAGES, LABELS, [seed])
        assert torch.equal(found[order], images) and torch.equal(labels[order], shares.double())
        assert torch.allclose(labels.sum(1), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_rows_of_processes_make_up_the_batch(mode: str) -> None:
    mixing = Mixing(5, mode=mode, **OPTIONS)
    before = IMAGES.clone()
    seeds = [3] if mode == "batch" else [3, 4, 5, 6]
    images, labels = mixing(IMAGES, LABELS, seeds)
    assert torch.equal(IMAGES, before)
    parts = [slice(0, 2), slice(2, 8)]
    of_each = [
        mixing(IMAGES[rows], LABELS[rows], seeds if mode == "batch" else seeds[rows.start // 2 : rows.stop // 2])
        for rows in parts
    ]
    assert torch.equal(torch.cat([part[0] for part in of_each]), images)
    assert torch.equal(torch.cat([part[1] for part in of_each]), labels)
    assert not torch.equal(images, IMAGES)


def test_mixup_is_a_blend_of_two_and_cutmix_a_rectangle() -> None:
    images, labels = Mixing(5, mixup_alpha=1.0, cutmix_alpha=0.0)(IMAGES, LABELS, [1])
    share = labels[0, 0].item()
    assert 0 < share < 1 and torch.allclose(images[0], share * IMAGES[0] + (1 - share) * IMAGES[1], atol=1e-7)
    images, labels = Mixing(5, mixup_alpha=0.0, cutmix_alpha=1.0)(IMAGES, LABELS, [1])
    assert ((images[0] == IMAGES[0]) | (images[0] == IMAGES[1])).all()
    kept = (images[0] == IMAGES[0]).double().mean().item()
    assert labels[0, 0].item() == pytest.approx(kept, abs=1e-6)


def test_probability_0_mixes_nothing() -> None:
    images, labels = Mixing(5, prob=0.0, **OPTIONS)(IMAGES, LABELS, [1])
    assert torch.equal(images, IMAGES) and torch.equal(labels.argmax(1), LABELS) and labels.max(1).values.eq(1).all()
