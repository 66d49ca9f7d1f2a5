"""The order of images in an epoch: any, or shards read through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from residualdroppath.data import image_sources
from residualdroppath.data.image_sources import Encoded
from residualdroppath.data.load import load_data
from residualdroppath.data.order import draw_order, require_shards
from residualdroppath.data.sources import read_source
from residualdroppath.data.stored import Piece
from residualdroppath.errors import UserError

from .files import request, write_image_folder, write_shards


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def source(tmp_path: Path) -> Encoded:
    write_shards(tmp_path, (50, 40, 60, 50))
    write_shards(tmp_path, (4,), part="test")
    read = read_source(request(f"wds/{tmp_path}")).train.source
    assert isinstance(read, Encoded)
    return read


@pytest.mark.parametrize("buffer", [None, 1, 20, 199, 200, 10_000])
def test_each_image_once_and_by_seed(source: Encoded, buffer: int | None) -> None:
    order = draw_order(source, generator(3), buffer)
    assert order.dtype == torch.int64 and sorted(order.tolist()) == list(range(200))
    assert torch.equal(order, draw_order(source, generator(3), buffer))
    assert not torch.equal(order, draw_order(source, generator(4), buffer))


def test_without_a_buffer_it_is_the_permutation_that_it_has_always_been(source: Encoded) -> None:
    assert torch.equal(draw_order(source, generator(5)), torch.randperm(200, generator=generator(5)))


def test_a_buffer_of_one_reads_shards_through(source: Encoded) -> None:
    shards = [source.items[place].shard for place in draw_order(source, generator(0), 1).tolist()]  # pyright: ignore
    changes = sum(first != second for first, second in zip(shards, shards[1:], strict=False))
    assert changes == 3 and shards != sorted(shards)  # in a drawn order


def test_images_leave_the_buffer_at_random_and_never_early(source: Encoded) -> None:
    in_turn, order = draw_order(source, generator(1), 1), draw_order(source, generator(1), 20)
    place = {image: number for number, image in enumerate(in_turn.tolist())}
    moved = [place[image] - number for number, image in enumerate(order.tolist())]
    assert max(moved) <= 20 and any(abs(each) > 5 for each in moved)
    open_shards = {
        Path(item.path).name for item in map(source.items.__getitem__, order[:30].tolist()) if isinstance(item, Piece)
    }
    assert len(open_shards) <= 2


def test_a_subset_keeps_its_shards(source: Encoded) -> None:
    part = source.subset(torch.arange(0, 200, 10))
    assert part.by_shard is not None and [len(places) for places in part.by_shard] == [5, 4, 6, 5]


def test_images_in_files_of_their_own_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 0)
    write_image_folder(tmp_path)
    source = load_data(request(str(tmp_path)), validation_fraction=0.5).train.source
    for refuse in (lambda: draw_order(source, generator(0), 5), lambda: require_shards(source, 5)):
        with pytest.raises(UserError, match="`shuffle_buffer` is for data in tar files"):
            refuse()
    require_shards(source, None)
