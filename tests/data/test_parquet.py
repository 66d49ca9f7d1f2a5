"""Parquet files of encoded images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from residualdroppath.data import image_sources, parquet
from residualdroppath.data.augment import IMAGENET_MEAN, channel_statistics
from residualdroppath.data.decoding import decode
from residualdroppath.data.image_sources import InMemory
from residualdroppath.data.load import cut_data, load_data
from residualdroppath.data.sources import read_source
from residualdroppath.errors import UserError

from .files import parquet_columns, pixels, request, write_parquet

LABELS = [0, 1, 2, 0, 1, 2]


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        load_data(request(str(folder), **options), validation_fraction=0.5)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_both(folder: Path, labels: list[Any] = LABELS) -> None:
    write_parquet(folder / "train.parquet", parquet_columns(labels))
    write_parquet(folder / "test.parquet", parquet_columns(labels[:3], seed=50))


def test_bytes_and_whole_number_labels(tmp_path: Path) -> None:
    write_both(tmp_path)
    source = read_source(request(str(tmp_path)))
    assert (source.num_classes, source.channels, source.image_size, source.mirrored) == (3, 3, 10, True)
    images, labels = next(iter(source.train.batches([torch.tensor([4, 0])])))
    assert labels.tolist() == [1, 0]
    for image, seed in zip(images, (4, 0), strict=True):
        assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(pixels(seed, 10, 10, 3)))


def test_structs_as_hugging_face_datasets_stores_them(tmp_path: Path) -> None:
    write_both(tmp_path / "plain")
    for part, labels, seed in (("train", LABELS, 0), ("test", LABELS[:3], 50)):
        columns = parquet_columns(labels, seed=seed)
        structs = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(columns["image"])]
        write_parquet(tmp_path / "hf" / f"{part}-00000-of-00001.parquet", {"label": labels, "img": structs})
    plain, hf = (read_source(request(str(tmp_path / name))) for name in ("plain", "hf"))
    for part in ("train", "test"):
        every = [torch.arange(len(getattr(plain, part)))]
        for ours, theirs in zip(
            next(iter(getattr(plain, part).batches(every))), next(iter(getattr(hf, part).batches(every))), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_several_files_are_one_part_in_order_of_numbers(tmp_path: Path) -> None:
    write_both(tmp_path)
    (tmp_path / "train.parquet").rename(tmp_path / "train-10.parquet")
    write_parquet(tmp_path / "train-9.parquet", parquet_columns([2, 2], seed=90))
    source = read_source(request(str(tmp_path)))
    assert source.train.labels.tolist() == [2, 2, *LABELS]


def test_texts_as_labels_are_numbered_in_order(tmp_path: Path) -> None:
    write_both(tmp_path, ["cat", "ant", "dog", "dog", "ant", "cat"])
    source = read_source(request(str(tmp_path)))
    assert source.train.labels.tolist() == [1, 0, 2, 2, 0, 1] and source.test.labels.tolist() == [1, 0, 2]


def test_columns_by_name(tmp_path: Path) -> None:
    for part in ("train", "test"):
        columns = parquet_columns(LABELS)
        first = {"thumbnail": [b"no image"] * 6, "picture": columns["image"], "fine": LABELS, "label": [0] * 6}
        write_parquet(tmp_path / f"{part}.parquet", first)
    source = read_source(request(str(tmp_path), image_column="picture", label_column="fine"))
    assert source.num_classes == 3
    assert "train row 0 cannot be decoded as an image" in refused(
        tmp_path, image_column="thumbnail", label_column="fine"
    )


def test_image_column_is_the_one_that_holds_images(tmp_path: Path) -> None:
    for part in ("train", "test"):
        columns = parquet_columns(LABELS)
        write_parquet(tmp_path / f"{part}.parquet", {"hash": [b"\x01\x02"] * 6, **columns})
    images, _ = next(iter(load_data(request(str(tmp_path)), validation_fraction=0.5).test.batches([torch.arange(6)])))
    assert torch.equal(images[5].permute(1, 2, 0), torch.from_numpy(pixels(5, 10, 10, 3)))


def test_a_column_is_judged_by_its_first_value_not_by_its_first_row(tmp_path: Path) -> None:
    columns = parquet_columns(LABELS)
    columns["image"][:2] = [None, b"damaged"]
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", {"thumbnail": parquet_columns(LABELS, seed=9)["image"], **columns})
    assert "thumbnail and image could be" in refused(tmp_path)


def test_all_parts_have_their_images_in_one_column_which_is_named(tmp_path: Path) -> None:
    columns, nothing = parquet_columns(LABELS), pa.array([None] * 6, pa.binary())
    train = {"thumbnail": nothing, "hash": [b"\x01"] * 6, **columns}
    write_parquet(tmp_path / "train.parquet", train)
    write_parquet(tmp_path / "test.parquet", {"thumbnail": columns["image"], "image": nothing, "label": LABELS})
    assert "`image_column` 'image' of" in refused(tmp_path)
    write_parquet(tmp_path / "test.parquet", {"thumbnail": columns["image"], "label": LABELS})
    message = refused(tmp_path)
    assert f"{tmp_path / 'test.parquet'}, got 'image'; its columns are thumbnail, label. Files of all parts" in message
    write_parquet(tmp_path / "test.parquet", train)
    assert (
        "images are read from the column image, not from thumbnail or hash" in read_source(request(str(tmp_path))).notes
    )


def test_a_column_of_another_name_is_named(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", {"img": parquet_columns(LABELS)["image"], "label": LABELS})
    assert "images are read from the column img" in read_source(request(str(tmp_path))).notes
    assert not any("column" in note for note in read_source(request(str(tmp_path), image_column="img")).notes)


def write_named(path: Path, labels: list[int], names: list[str], seed: int = 0) -> None:
    """With the names of classes noted as Hugging Face datasets does."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table(parquet_columns(labels, seed=seed))
    path.parent.mkdir(exist_ok=True)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_class_names_in_another_order_are_followed(tmp_path: Path) -> None:
    write_named(tmp_path / "train-0.parquet", [0, 0, 1], ["cat", "dog"])
    write_named(tmp_path / "train-1.parquet", [0, 0, 1], ["dog", "cat"], seed=5)
    write_named(tmp_path / "test.parquet", [0, 1, 1], ["dog", "cat"], seed=50)
    source = read_source(request(str(tmp_path)))
    assert source.classes == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 0, 1, 1, 1, 0] and source.test.labels.tolist() == [1, 0, 0]
    assert "classes of the test part are noted in another order than those of train, and were matched by name" in (
        source.notes
    )


@pytest.mark.parametrize("name", ["train-1", "test"])
def test_other_class_names_are_refused(tmp_path: Path, name: str) -> None:
    for each in ("train-0", "train-1", "test"):
        write_named(tmp_path / f"{each}.parquet", [0, 1, 1], ["cat", "cow" if each == name else "dog"])
    assert "must be those of the training images, cat, dog, got cat, cow" in refused(tmp_path)


def test_two_columns_of_images_are_not_chosen_from(tmp_path: Path) -> None:
    for part in ("train", "test"):
        columns = parquet_columns(LABELS)
        write_parquet(tmp_path / f"{part}.parquet", {"mask": columns["image"], **columns})
    message = refused(tmp_path)
    assert "`image_column` must name the column of encoded images" in message and "mask and image could be" in message


def test_what_hugging_face_datasets_note_is_followed(tmp_path: Path) -> None:
    """Which column is the image, and the names of the classes."""
    features = {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee", "cat", "newt"], "_type": "ClassLabel"}}
    for part in ("train", "test"):
        columns = parquet_columns(LABELS)
        table = pa.table({"mask": columns["image"], **columns})
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        (tmp_path / "data").mkdir(exist_ok=True)
        path = tmp_path / "data" / f"{part}-00000-of-00001.parquet"
        pq.write_table(table.replace_schema_metadata(metadata), path)
    data = load_data(request(str(tmp_path)), validation_fraction=0.5)
    assert data.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("digest", ["", "-0123456789abcdef"])
def test_layout_of_the_hugging_face_hub(tmp_path: Path, digest: str) -> None:
    for part, labels, seed in (("train", LABELS, 0), ("validation", LABELS, 20), ("test", LABELS, 40)):
        for shard in range(2):
            columns = parquet_columns(labels[3 * shard :][:3], seed=seed + 3 * shard)
            name = f"{part}-0000{shard}-of-00002{digest}.parquet"
            write_parquet(tmp_path / "data" / name, columns)
    data = load_data(request(str(tmp_path)))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [6, 6, 6]
    for split, seed in ((data.train, 0), (data.validation, 20), (data.test, 40)):
        images, _ = next(iter(split.batches([torch.arange(6)])))
        assert torch.equal(images[5].permute(1, 2, 0), torch.from_numpy(pixels(seed + 5, 10, 10, 3)))


@pytest.mark.parametrize(
    "stray", ["train-00000-of-00001 copy.parquet", "train.parquet.bak", "train_old.parquet", "~train.parquet"]
)
def test_stray_files_are_noted_and_not_mixed_in(tmp_path: Path, stray: str) -> None:
    write_both(tmp_path)
    write_parquet(tmp_path / stray, parquet_columns([0] * 9))
    data = load_data(request(str(tmp_path)), validation_fraction=0.5)
    assert len(data.train) + len(data.validation) == 6
    assert f"skipped, not named as a file of a part: {stray}" in data.notes


@pytest.mark.parametrize(
    "names",
    [
        ("train.parquet", "train-2.parquet"),
        ("train-1.parquet", "train_01.parquet"),
        ("train-00000-of-00001.parquet", "train-00000-of-00001-0123456789abcdef.parquet"),
        ("train-00000-of-00001.parquet", "train-00000-of-00002.parquet"),
    ],
)
def test_two_versions_of_a_part_are_not_mixed(tmp_path: Path, names: tuple[str, str]) -> None:
    write_parquet(tmp_path / "test.parquet", parquet_columns(LABELS))
    for name in names:
        write_parquet(tmp_path / name, parquet_columns(LABELS))
    assert "holds several versions of one part" in refused(tmp_path)


def test_files_of_a_part_that_are_missing(tmp_path: Path) -> None:
    write_both(tmp_path)
    (tmp_path / "train.parquet").rename(tmp_path / "train-00001-of-00003.parquet")
    assert "lacks Parquet files of one part (train-00001-of-00003.parquet): number 0 of 3; fetch" in refused(tmp_path)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (("0", "2"), "lacks Parquet files of one part (train-0.parquet, train-2.parquet): number 1; fetch the others"),
        (("00000-of-00003", "00001-of-00003", "00003-of-00003"), "number 2 of 3; fetch the others"),
        (("0-of-2", "1-of-2", "5-of-2"), "with number 5, which is too high for 2 files"),
    ],
)
def test_numbers_that_are_missing_or_too_high(tmp_path: Path, numbers: tuple[str, ...], said: str) -> None:
    for number in numbers:
        write_parquet(tmp_path / f"train-{number}.parquet", parquet_columns(LABELS))
    write_parquet(tmp_path / "test.parquet", parquet_columns(LABELS))
    assert said in refused(tmp_path)


def test_numbers_may_begin_with_one(tmp_path: Path) -> None:
    for number in (2, 1):
        write_parquet(tmp_path / f"train-{number}-of-2.parquet", parquet_columns([number] * 2 + [0]))
    write_parquet(tmp_path / "test.parquet", parquet_columns([0]))
    assert read_source(request(str(tmp_path))).train.labels.tolist() == [1, 1, 0, 2, 2, 0]


def test_folders_and_parquet_files_at_once(tmp_path: Path) -> None:
    write_both(tmp_path)
    (tmp_path / "train").mkdir()
    assert "holds both a folder train/ and Parquet files" in refused(tmp_path)


def test_folder_of_several_sets_names_them(tmp_path: Path) -> None:
    for name in ("plain", "tiny"):
        write_both(tmp_path / name)
    assert f"holds Parquet files in {tmp_path / 'plain'}, {tmp_path / 'tiny'}; name one of these" in refused(tmp_path)


def test_hidden_test_labels_are_not_tested_on(tmp_path: Path) -> None:
    for part, labels in (("train", LABELS), ("validation", LABELS[:3]), ("test", [-1] * 4)):
        write_parquet(tmp_path / f"{part}.parquet", parquet_columns(labels))
    data = load_data(request(str(tmp_path)))
    assert not data.has_test and len(data.validation) == 3
    assert "the test part is not used: its labels are hidden, all are -1" in data.notes
    with pytest.raises(UserError, match="its labels are hidden, all are -1"):
        data.require_test()


@pytest.mark.parametrize("part", ["train", "test"])
def test_some_hidden_labels_are_refused(tmp_path: Path, part: str) -> None:
    write_both(tmp_path)
    write_parquet(tmp_path / f"{part}.parquet", parquet_columns([0, 1, 2, 0, 1, 2, -1]))
    assert f"The {part} part of {tmp_path} holds 1 rows of 7 with the label -1" in refused(tmp_path)


def test_only_images_that_are_used_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = list(range(3)) * 20
    for part, seed in (("train", 0), ("test", 100)):
        write_parquet(tmp_path / f"{part}.parquet", parquet_columns(labels, seed=seed))
    decoded: list[str] = []

    def noted(item: Any, name: str, **options: Any) -> Any:
        decoded.append(Path(name).name)
        return decode(item, name, **options)

    monkeypatch.setattr(image_sources, "decode", noted)
    data = load_data(request(str(tmp_path)), validation_fraction=0.1, train_size=9)
    assert len(decoded) == len(set(decoded)) == 9 + 6 and all(name.startswith("train") for name in decoded)
    for _ in range(2):
        assert len(list(data.test.batches([torch.arange(60)]))[0][0]) == 60
    assert len(decoded) == 9 + 6 + 60


def test_statistics_do_not_hang_on_when_images_are_decoded(tmp_path: Path) -> None:
    write_both(tmp_path)
    name = str(tmp_path)
    data = cut_data(read_source(request(name)), name, validation_fraction=0.5)
    assert not isinstance(data.train.source, InMemory)
    statistics = channel_statistics(data.train.source)
    assert statistics == channel_statistics(data.decoded().train.source)
    assert statistics[0] != [255 * value for value in IMAGENET_MEAN]
    moved = data.train.to(torch.device("cpu"))
    assert isinstance(moved.source, InMemory) and len(moved) == 3


def test_label_column_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    write_both(tmp_path)
    message = refused(tmp_path, label_column="target")
    assert "`label_column` 'target'" in message and "image, label" in message


@pytest.mark.parametrize("name", ["picture", "label"])
def test_image_column_that_holds_none(tmp_path: Path, name: str) -> None:
    write_both(tmp_path)
    assert "`image_column`" in refused(tmp_path, image_column=name)


@pytest.mark.parametrize("images", [["a.png"] * 6, [{"path": "a.png"}] * 6, [{"bytes": None, "path": "a.png"}] * 6])
def test_paths_are_not_encoded_images(tmp_path: Path, images: list[Any]) -> None:
    write_parquet(tmp_path / "train.parquet", {"image": images, "label": LABELS})
    write_parquet(tmp_path / "test.parquet", parquet_columns(LABELS))
    assert "`image_column`" in refused(tmp_path)
    assert "`image_column` 'image'" in refused(tmp_path, image_column="image")


def test_rows_without_a_label(tmp_path: Path) -> None:
    write_both(tmp_path, [0, 1, None, 0, 1, 1])
    assert "rows without a label" in refused(tmp_path)


@pytest.mark.parametrize("labels", [[0.5, 1.5] * 3, [[0], [1]] * 3, [{"id": 1}] * 6])
def test_labels_of_another_kind(tmp_path: Path, labels: list[Any]) -> None:
    write_both(tmp_path, labels)
    assert "must hold whole numbers or texts" in refused(tmp_path)


def test_label_of_the_test_part_alone(tmp_path: Path) -> None:
    write_both(tmp_path)
    write_parquet(tmp_path / "test.parquet", parquet_columns([0, 7]))
    assert "labels that train lacks: [7]" in refused(tmp_path)


@pytest.mark.parametrize(("present", "missing"), [("train", "test"), ("test", "train")])
def test_missing_part(tmp_path: Path, present: str, missing: str) -> None:
    write_parquet(tmp_path / f"{present}.parquet", parquet_columns(LABELS))
    assert f"{missing}* is missing" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not Parquet at all", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_not_a_parquet_file(tmp_path: Path, content: bytes) -> None:
    write_both(tmp_path)
    (tmp_path / "train.parquet").write_bytes(content)
    assert "train.parquet cannot be read as Parquet" in refused(tmp_path)


def test_truncated_file(tmp_path: Path) -> None:
    write_both(tmp_path)
    path = tmp_path / "train.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    assert "cannot be read as Parquet" in refused(tmp_path)


def test_no_rows(tmp_path: Path) -> None:
    write_both(tmp_path)
    write_parquet(tmp_path / "test.parquet", {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
    assert "holds no images" in refused(tmp_path)


def test_row_that_is_no_image_is_named(tmp_path: Path) -> None:
    write_both(tmp_path)
    columns = parquet_columns(LABELS)
    columns["image"][3] = columns["image"][3][:40]
    write_parquet(tmp_path / "train.parquet", columns)
    assert "train row 3 cannot be decoded as an image" in refused(tmp_path)


def test_files_that_do_not_fit_into_memory_are_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_both(tmp_path)
    monkeypatch.setattr(parquet.os, "sysconf", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 2000}.__getitem__)
    assert f"name the folder as `data` hfds/{tmp_path}" in refused(tmp_path)
    monkeypatch.setattr(parquet.os, "sysconf", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 100_000}.__getitem__)
    assert len(read_source(request(str(tmp_path))).train) == 6
