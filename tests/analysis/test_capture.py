"""Capture: what it sees at each add, against forwards written by hand, and a model that stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock as TorchvisionBasicBlock
from torchvision.models.resnet import ResNet as TorchvisionResNet

from residualdroppath import ResidualDropPath
from residualdroppath.analysis.capture import _Rows, capture, coarse, logits_of, pooled
from residualdroppath.analysis.streams import StreamStatistics
from residualdroppath.errors import UserError


class Block(nn.Module):
    """The add in place, and an activation in place behind it: both overwrite what capture looks at."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y += x
        return F.relu(y, inplace=True)


class Network(nn.Module):
    def __init__(self, blocks: int = 3):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(4) for _ in range(blocks)))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def made(seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network().eval()


def batches(sizes: tuple[int, ...] = (5, 7)) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 1, 6, 5, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for size in sizes
    ]


@torch.no_grad()
def by_hand(network: Network, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Maps of streams and branches."""
    stream = network.stem(images)
    streams, branches = [stream], []
    for block in network.blocks:
        branch = block.conv(stream)  # pyright: ignore[reportCallIssue]
        branches.append(branch)
        streams.append(stream + branch)
        stream = F.relu(stream + branch)
    return streams, branches


def close(found: np.ndarray, expected: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(found), expected.detach(), rtol=1e-5, atol=1e-6)


def test_features_are_those_of_a_forward_written_by_hand() -> None:
    network, data = made(), batches()
    streams, branches = by_hand(network, torch.cat([images for images, _ in data]))
    features = capture(ResidualDropPath(network, 0.0), data)
    assert features.branch_names == ["blocks.0", "blocks.1", "blocks.2"] and features.indices == [0, 1, 2]
    assert features.names == ["input of blocks.0", *features.branch_names]
    assert len(features.streams) == 4 and len(features.branches) == 3
    for found, maps in zip(features.streams + features.branches, streams + branches, strict=True):
        close(found, maps.mean((2, 3)))
    assert features.labels.tolist() == torch.cat([labels for _, labels in data]).tolist()


def test_callbacks_see_whole_maps_and_coarse_ones() -> None:
    network, data = made(), batches((6,))
    streams, branches = by_hand(network, data[0][0])
    seen: list[tuple[int, Tensor, Tensor, Tensor]] = []
    wide: list[tuple[list[Tensor], list[Tensor]]] = []
    capture(
        ResidualDropPath(network, 0.0), data,
        at_add=lambda index, *sides: seen.append((index, *(side.clone() for side in sides))),  # pyright: ignore[reportArgumentType]
        on_batch=lambda own, added: wide.append((own, added)),
    )  # fmt: skip
    assert [index for index, *_ in seen] == [0, 1, 2]
    for index, shortcut, branch, merged in seen:
        torch.testing.assert_close(branch, branches[index])
        torch.testing.assert_close(merged, streams[index + 1])
        torch.testing.assert_close(shortcut, F.relu(streams[index]) if index else streams[0])
    assert len(wide) == 1
    for found, maps in zip(wide[0][0] + wide[0][1], streams + branches, strict=True):
        torch.testing.assert_close(found, F.adaptive_avg_pool2d(maps, 4).flatten(1))


def test_stream_statistics_survive_adds_in_place() -> None:
    network, data = made(), batches((6,))
    statistics = StreamStatistics()
    capture(ResidualDropPath(network, 0.0), data, at_add=statistics.update)
    streams, branches = by_hand(network, data[0][0])
    shortcut, branch = F.relu(streams[1]).flatten(1), branches[1].flatten(1)
    row = statistics.result()[1]
    assert row["norm_ratio"] == pytest.approx(float((branch.norm(dim=1) / shortcut.norm(dim=1)).mean()), rel=1e-5)
    assert row["cosine"] == pytest.approx(float(F.cosine_similarity(branch, shortcut).mean()), rel=1e-4)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet": (lambda: ResNet(cast(Any, Bottleneck), (1, 1, 1, 1), 3, stem_type="deep", stem_width=4), 4),
    "vit": (lambda: VisionTransformer(16, 8, embed_dim=16, depth=2, num_heads=2, num_classes=3), 4),
    "swin, channels last": (
        lambda: SwinTransformer(32, 4, num_classes=3, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4), 4,
    ),
    "torchvision": (lambda: TorchvisionResNet(TorchvisionBasicBlock, [1, 1, 1, 1], num_classes=3), 4),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_libraries_answer_as_before_and_stay_as_they_were(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make, count = NETWORKS[name]
        model = make()
        images = torch.randn(5, 3, 16 if name == "vit" else 32, 16 if name == "vit" else 32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        plain = model.eval()(images)
    model.train()
    features = capture(ResidualDropPath(model, 0.0), [(images, torch.zeros(5, dtype=torch.int64))])
    assert len(features.branches) == count and len(features.streams) == count + 1
    np.testing.assert_allclose(features.outputs, plain.numpy(), rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(each).all() and len(each) == 5 for each in features.streams + features.branches)
    widths = [each.shape[1] for each in features.branches]
    assert widths == {"vit": [16] * 4, "swin, channels last": [8, 8, 16, 16]}.get(name, widths)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_pooled_of_every_layout() -> None:
    maps = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(pooled(maps), maps.mean((2, 3)))
    torch.testing.assert_close(pooled(maps.movedim(1, -1)), maps.mean((2, 3)))
    tokens = torch.randn(2, 5, 3)
    torch.testing.assert_close(pooled(tokens), tokens.mean(1))
    torch.testing.assert_close(pooled(tokens[:, 0]), tokens[:, 0])
    video = torch.randn(2, 3, 4, 5, 5)
    torch.testing.assert_close(pooled(video), video.mean((2, 3, 4)))


def test_coarse_keeps_little_of_where() -> None:
    maps = torch.randn(2, 3, 8, 8)
    expected = maps.reshape(2, 3, 4, 2, 4, 2).mean((3, 5)).flatten(1)
    torch.testing.assert_close(coarse(maps), expected)
    assert coarse(maps[:, :, :2, :2]).shape == (2, 12)
    tokens = torch.randn(2, 32, 3)
    torch.testing.assert_close(coarse(tokens), tokens.reshape(2, 16, 2, 3).mean(2).transpose(1, 2).flatten(1))


def test_logits_of_what_classifiers_return() -> None:
    logits = torch.randn(2, 3)
    assert logits_of(logits) is logits and logits_of((logits, 1)) is logits
    for wrong in (torch.randn(2, 3, 4), "text", ()):
        with pytest.raises(UserError, match="logits"):
            logits_of(wrong)


def test_mistakes() -> None:
    rdp = ResidualDropPath(made(), 0.0)
    with pytest.raises(UserError, match="at least one batch"):
        capture(rdp, [])


class CutsImages(Network):
    """Rows of the map become rows of the batch before the add."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x.transpose(1, 2).reshape(-1, 4, 1, x.shape[3])
        return self.head(self.blocks(x).mean((2, 3)))


def test_images_cut_apart_are_told() -> None:
    with pytest.raises(UserError, match="along the first"):
        capture(ResidualDropPath(CutsImages().eval(), 0.0), batches())


def test_rows_collected_in_pieces_are_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Rows, "PIECE", 4)
    batches = [np.arange(n * 2, dtype=np.float32).reshape(n, 2) + 10 * n for n in (3, 1, 6, 4, 1)]
    rows = _Rows()
    for batch in batches:
        rows.append(batch)
    assert np.array_equal(rows.joined(), np.concatenate(batches))
