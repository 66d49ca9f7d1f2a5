"""Training on shards that are not in memory: disjoint rows, each image once an epoch, exact resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.files import write_image_folder, write_shards
from residualdroppath.data import image_sources
from residualdroppath.data.images import Split
from residualdroppath.data.request import located, reader_of
from residualdroppath.errors import UserError
from residualdroppath.training.batches import Augmentation, batches_of_epoch, rows_of
from residualdroppath.training.preview import preview
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer

from .tiny_runs import contents, interrupted, metrics, tiny

# Workers fork; newer Pythons warn of it in any process that has threads, as PyTorch's has.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """The training part is decoded batch by batch."""
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 0)
    write_shards(tmp_path / "shards", (30, 20, 25, 21))
    write_shards(tmp_path / "shards", (12,), part="val")
    return tiny(data=str(tmp_path / "shards"), train_size=None, shuffle_buffer=24, drop_path_rate=0.5)


def test_processes_see_disjoint_images_and_each_image_once(config: TrainConfig) -> None:
    split = load_config_data(config).train
    split = Split(split.source, torch.arange(len(split)))  # each image has its number
    cpu, none = torch.device("cpu"), Augmentation(0, False)

    def labels(start: int = 0, rows: slice = slice(None)) -> list[list[int]]:
        found = batches_of_epoch(split, 7, 32, none, cpu, start=start, rows=rows, shuffle_buffer=24)
        return [batch.labels.tolist() for batch in found]

    whole = labels()
    assert sorted(sum(whole, [])) == list(range(96))
    assert labels(start=2) == whole[2:]
    of_each = [labels(rows=rows_of(32, process, 2)) for process in range(2)]
    assert [first + second for first, second in zip(*of_each, strict=True)] == whole


def test_a_resumed_run_ends_with_the_same_bits(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"checkpoint_every": 1})
    train(config, tmp_path / "whole")
    interrupted(config, tmp_path / "cut", monkeypatch, after=1)
    train(config, tmp_path / "cut", resume=True)
    weights = [contents(tmp_path / name)["model.safetensors"] for name in ("whole", "cut")]
    assert weights[0] == weights[1] and metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_the_preview_names_the_order(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "order: 4 shards one after another, images drawn from the next 24" in preview(
        Trainer(config, load_config_data(config))
    )
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 10**9)
    lines = preview(Trainer(config, load_config_data(config)))
    assert "training images are in memory and drawn from all, `shuffle_buffer` has no effect" in lines


def test_files_of_their_own_are_refused_before_anything_is_made(config: TrainConfig, tmp_path: Path) -> None:
    write_image_folder(tmp_path / "folder")
    with pytest.raises(UserError, match="`shuffle_buffer` is for data in tar files"):
        train(config.model_copy(update={"data": str(tmp_path / "folder"), "batch_size": 2}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_data_lie_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set.tar").touch()
    assert located("set") == str(tmp_path / "set") and located("set.tar") == str(tmp_path / "set.tar")
    assert located("WDS/set") == f"wds/{tmp_path / 'set'}" and located("hfds/owner/set") == "hfds/owner/set"
    assert located(located("wds/set")) == located("wds/set") and reader_of("./wds/set") == ("", "./wds/set")
    assert tiny(data="wds/set").located().data == f"wds/{tmp_path / 'set'}"
