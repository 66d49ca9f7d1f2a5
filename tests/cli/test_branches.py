"""`rdp branches`: what it prints, as a table and as JSON, and every mistake in one line."""

from __future__ import annotations

import importlib.util
import io
import json
from typing import Any

import pytest
from rich.console import Console

from residualdroppath.cli.branches_table import (
    MOST_REASONS,
    NAME_WIDTH,
    WIDTH,
    branches_page,
    branches_table,
    short_names,
)
from residualdroppath.cli.main import run
from residualdroppath.errors import UserError
from residualdroppath.models import spec

SMALL = ["small_resnet", "--options", "{depth: 8, width: 4}"]
TINY_BERT = ["transformers/BertModel", "--options", '{"num_hidden_layers": 2, "hidden_size": 24}']


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["branches", *arguments]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    return json.loads(printed(capsys, *arguments, "--json"))


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["branches", *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("error: ") and output.err.count("\n") == 1
    return output.err


def test_help_lists_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "\n  branches " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run(["branches", "--help"])
    output = capsys.readouterr().out
    assert stop.value.code == 0
    for option in ("image-size", "sequence-length", "drop-path-rate", "rate-over-depth", "options", "json"):
        assert f"--{option}" in output


def test_json_of_small_resnet(capsys: pytest.CaptureFixture[str]) -> None:
    record = as_json(capsys, *SMALL, "--image-size", "16", "--drop-path-rate", "0.4")
    assert list(record) == ["model", "totals", "branches", "rejected_adds", "untraceable", "shared_parameters"]
    assert record["model"] == {
        "name": "small_resnet",
        "class": "SmallResNet",
        "options": {"depth": 8, "width": 4},
        "inputs": {"x": [1, 3, 16, 16]},
        "drop_path_rate": 0.4,
        "rate_over_depth": "linear",
    }
    first, second, third = record["branches"]
    conv, projection = 9 * 2 * 4 * 4 * 16 * 16, 2 * 4 * 8 * 8 * 8
    assert first == {
        "name": "blocks.0",
        "block": "BasicBlock",
        "block_path": "blocks.0",
        "drop_rate": 0.0,
        "effective_rate": 0.0,
        "parameters": 2 * 9 * 4 * 4 + 2 * 2 * 4,
        "flops": 2 * conv,
        "share_of_flops": 2 * conv / record["totals"]["flops"],
        "shortcut": "downsample",
        "follows": "act2",
    }
    assert (second["drop_rate"], third["drop_rate"]) == (0.2, 0.4)
    assert third["effective_rate"] > 0.4
    assert [branch["flops"] for branch in (second, third)] == [3 * conv // 2, 3 * conv // 2]
    stem, head = 9 * 2 * 3 * 4 * 16 * 16, 2 * 16 * 10
    assert record["totals"] == {
        "branches": 3,
        "blocks": 3,
        "parameters": (9 * 3 * 4 + 8) + 304 + (864 + 80) + (3456 + 224) + (16 * 10 + 10),
        "parameters_in_branches": sum(branch["parameters"] for branch in record["branches"]),
        "flops": 5 * conv + 2 * projection + stem + head,
        "flops_in_branches": 5 * conv,
        "share_of_flops": 5 * conv / record["totals"]["flops"],
        "flops_note": None,
    }
    assert record["rejected_adds"] == record["untraceable"] == {} and record["shared_parameters"] == []


def test_uniform_rates(capsys: pytest.CaptureFixture[str]) -> None:
    record = as_json(capsys, *SMALL, "--rate-over-depth", "uniform", "--drop-path-rate", "0.25")
    assert [branch["drop_rate"] for branch in record["branches"]] == [0.25] * 3


@pytest.mark.parametrize("name", ["resnet10t", "timm/resnet10t", "resnet10t.c3_in1k"])
def test_timm(capsys: pytest.CaptureFixture[str], name: str) -> None:
    record = as_json(capsys, name, "--options", "{num_classes: 7, in_chans: 1}", "--image-size", "64")
    assert record["model"]["name"] == f"timm/{name.removeprefix('timm/')}"
    assert record["model"]["inputs"] == {"x": [1, 1, 64, 64]}
    assert [branch["name"] for branch in record["branches"]] == [f"layer{stage}.0" for stage in (1, 2, 3, 4)]
    assert all(0 < branch["share_of_flops"] < 1 for branch in record["branches"])


def test_timm_network_that_is_made_for_one_size(capsys: pytest.CaptureFixture[str]) -> None:
    record = as_json(capsys, "vit_tiny_patch16_224", "--image-size", "32", "--options", "{depth: 1}")
    assert record["model"]["inputs"] == {"x": [1, 3, 32, 32]} and record["totals"]["flops"] > 0
    assert [branch["name"] for branch in record["branches"]] == ["blocks.0.attn", "blocks.0.mlp"]


@pytest.mark.parametrize(("name", "inputs"), [("resnet18", [1, 3, 224, 224]), ("r3d_18", [1, 3, 16, 112, 112])])
def test_torchvision(capsys: pytest.CaptureFixture[str], name: str, inputs: list[int]) -> None:
    record = as_json(capsys, f"torchvision/{name}")
    assert record["model"]["inputs"] == {"x": inputs} and record["totals"]["branches"] == 8
    assert 0.5 < record["totals"]["share_of_flops"] < 1


def test_torchvision_network_that_is_told_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    record = as_json(capsys, "torchvision/vit_b_16", "--image-size", "32")
    assert record["model"]["inputs"] == {"x": [1, 3, 32, 32]} and record["totals"]["flops"] > 0


def test_two_rows_where_batch_norm_wants_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, *SMALL, "--image-size", "4")["model"]["inputs"] == {"x": [2, 3, 4, 4]}


@pytest.mark.parametrize(
    ("name", "options", "inputs"),
    [
        ("BertModel", "{num_hidden_layers: 2}", {"input_ids": [1, 128]}),
        pytest.param("LlamaModel", "{num_hidden_layers: 2}", {"input_ids": [1, 128]}, marks=pytest.mark.full),
        ("ViTForImageClassification", "{num_hidden_layers: 1}", {"pixel_values": [1, 3, 224, 224]}),
        ("T5Model", "{num_layers: 1}", {"input_ids": [1, 128], "decoder_input_ids": [1, 128]}),
        ("Wav2Vec2Model", "{num_hidden_layers: 1}", {"input_values": [1, 16000]}),
        pytest.param(
            "WhisperModel",
            "{encoder_layers: 1, decoder_layers: 1}",
            {"input_features": [1, 80, 3000], "decoder_input_ids": [1, 128]},
            marks=pytest.mark.full,
        ),
        (
            "CLIPModel",
            "{text_config: {num_hidden_layers: 1}, vision_config: {num_hidden_layers: 1}}",
            {"input_ids": [1, 77], "pixel_values": [1, 3, 224, 224]},
        ),
        pytest.param("MixtralModel", "{num_hidden_layers: 1}", {"input_ids": [1, 128]}, marks=pytest.mark.full),
    ],
)
def test_transformers(
    capsys: pytest.CaptureFixture[str], name: str, options: str, inputs: dict[str, list[int]]
) -> None:
    pytest.importorskip("transformers")
    record = as_json(capsys, f"transformers/{name}", "--options", options)
    assert record["model"]["name"] == f"transformers/{name}" and record["model"]["inputs"] == inputs
    assert all(0 < branch["share_of_flops"] < 1 for branch in record["branches"])
    assert 0.1 < record["totals"]["share_of_flops"] <= 1 and record["totals"]["flops_note"] is None


def test_transformers_of_another_length_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    text = as_json(capsys, *TINY_BERT, "--sequence-length", "10")
    assert text["model"]["inputs"] == {"input_ids": [1, 10]}
    hidden, inner = 24, 3072
    flops = {branch["name"]: branch["flops"] for branch in text["branches"]}
    assert flops["encoder.layer.0.attention"] == 4 * 2 * 10 * hidden**2 + 2 * 2 * 10 * 10 * hidden
    assert flops["encoder.layer.0"] == 2 * 2 * 10 * hidden * inner
    images = as_json(capsys, "transformers/ViTModel", "--image-size", "64", "--options", "{num_hidden_layers: 1}")
    assert images["model"]["inputs"] == {"pixel_values": [1, 3, 64, 64]}


def test_part_that_does_not_run_has_no_share(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    layers = "{vision_config: {num_hidden_layers: 1}, text_config: {num_hidden_layers: 1}}"
    record = as_json(capsys, "transformers/BlipModel", "--options", layers)
    idle = [branch["name"] for branch in record["branches"] if branch["share_of_flops"] is None]
    assert idle and all("crossattention" in name for name in idle)
    assert record["totals"]["flops_note"].startswith(f"{len(idle)} branches did not run on input_ids 1x128")


def test_forward_that_cannot_be_run_leaves_the_share_empty(capsys: pytest.CaptureFixture[str]) -> None:
    name = "torchvision/fasterrcnn_mobilenet_v3_large_fpn"
    record = as_json(capsys, name)
    assert {branch["share_of_flops"] for branch in record["branches"]} == {None}
    assert record["totals"]["flops"] is record["totals"]["share_of_flops"] is record["model"]["inputs"] is None
    assert "does not run on images 1x3x224x224 (targets should not be none" in record["totals"]["flops_note"]
    text = printed(capsys, name)
    assert "share of FLOPs: The forward does not run" in text and " FLOPs\n" not in text


def test_no_inputs_known(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    record = as_json(capsys, "transformers/PatchTSTModel", "--options", "{num_hidden_layers: 1}")
    assert record["totals"]["flops_note"] == "No inputs are known for PatchTSTModel, so its forward was not run."


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, *SMALL, "--drop-path-rate", "0.4").splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("small_resnet (SmallResNet) with {'depth': 8, 'width': 4}, x 1x3x32x32;")
    head = next(index for index, line in enumerate(lines) if line.startswith("branch"))
    assert lines[head - 1].split() == ["drop", "eff.", "%", "of"]
    assert lines[head].split() == "branch block rate rate parameters FLOPs shortcut then".split()
    row = next(line for line in lines if line.startswith("blocks.1")).split()
    assert row[:3] == ["blocks.1", "BasicBlock", "0.200"] and row[-2:] == ["downsample", "act2"]
    assert any(line.startswith("3 residual branches in 3 blocks: 4,") for line in lines)
    assert "left aside" not in "".join(lines) and "not traced" not in "".join(lines)


def test_table_of_long_names_fits(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    lines = printed(
        capsys,
        "transformers/CLIPModel",
        "--options",
        "{text_config: {num_hidden_layers: 1}, vision_config: {num_hidden_layers: 1}}",
    ).splitlines()
    assert max(map(len, lines)) <= WIDTH
    row = next(line for line in lines if line.startswith("vision_model…0.self_attn")).split()
    assert row[1:5] == ["CLIPEncoderLayer", "0.000", "0.000", "2,363,904"]


def test_what_was_left_aside_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    record = as_json(capsys, *SMALL)
    for key in ("rejected_adds", "untraceable"):
        record[key] = {f"a.{index}": "of [equal] standing " * 20 for index in range(MOST_REASONS + 2)}
    record["shared_parameters"] = ["one.weight", "two.weight"]
    console = Console(width=WIDTH, markup=False, record=True, file=io.StringIO())
    for part in branches_page(record):
        console.print(part)
    text = console.export_text()
    assert f"left aside ({MOST_REASONS + 2}):" in text and "and 2 more" in text
    assert f"not traced, taken as trunk unless its parts are above ({MOST_REASONS + 2}):" in text
    assert "(2): one.weight, two.weight" in text and "of [equal] standing" in text
    assert text.count("  a.4: ") == 2 and "a.5" not in text
    assert max(map(len, text.splitlines())) <= WIDTH and text.count("…\n") >= 2 * MOST_REASONS


def test_long_texts_leave_the_figures_alone(capsys: pytest.CaptureFixture[str]) -> None:
    record = as_json(capsys, *SMALL)
    long = {key: f"{key}_" * 9 for key in ("block", "shortcut", "follows")}
    name = "vision_model.encoder.layers.11.self_attn"
    record["branches"] = [{**record["branches"][0], **long, "name": name, "parameters": 99_999_999}]
    console = Console(width=WIDTH, record=True, file=io.StringIO())
    console.print(branches_table(record))
    (row,) = [line for line in console.export_text().splitlines() if "99,999,999" in line]
    assert row.split()[0] == short_names([name])[0] and row.split()[2:4] == ["0.000", "0.000"]
    assert row.count("…") == 4 and len(row) <= WIDTH


def test_short_names() -> None:
    assert short_names(["a.b", "layer1.0"]) == ["a.b", "layer1.0"]
    long = "vision_model.encoder.layers.11.self_attn"
    assert short_names([long]) == ["vision_model…11.self_attn"]
    assert all(len(name) <= NAME_WIDTH for name in short_names([long, long.replace("vision", "text")]))
    same = ["a_model.first_encoder.layers.11.self_attn", "a_model.second_encoder.layers.11.self_attn"]
    assert short_names(same) == same


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("resnet50dd", "did you mean resnet50d"),
        ("timm/resnet50dd", "did you mean resnet50d"),
        ("small_resnt", "did you mean small_resnet"),
        ("qqqqqqqq", "Other libraries: torchvision/NAME, transformers/CLASS"),
        ("torchvision/resnet5", "did you mean torchvision/resnet50"),
        ("transformers/bertmodel", "did you mean transformers/BertModel"),
        ("transformers/BertConfig", "must be a model class after transformers/, got 'BertConfig'"),
        ("transformers/AutoModel", "must be a model class after transformers/"),
        ("transformers/PreTrainedModel", "must be a model class after transformers/"),
        ("keras/resnet50", "`model` must be NAME or timm/NAME, torchvision/NAME or transformers/CLASS"),
        ("vgg11", "No residual branch was found in VGG"),
        ("small_resnet --options {depth:", "`options` cannot be read"),
        ("small_resnet --options 7", "`options` must be a YAML or JSON mapping"),
        ("small_resnet --options [depth]", "`options` must be a YAML or JSON mapping"),
        ("small_resnet --options {7:7}", "`options` must be a YAML or JSON mapping"),
        ('small_resnet --options {"depth":9}', "6n + 2"),
        ('small_resnet --options {"dept":8}', "'dept'"),
        ('resnet18 --options {"no_such":8}', "'no_such'"),
        ('resnet18 --options {"pretrained":true}', "`pretrained` loads weights"),
        ('torchvision/resnet18 --options {"no_such":8}', "'no_such'"),
        ('torchvision/resnet18 --options {"weights":"DEFAULT"}', "`weights` loads weights"),
        ('transformers/BertModel --options {"num_hidden_layer":8}', "did you mean num_hidden_layers"),
        ('transformers/CLIPModel --options {"text_config":{"n_layer":8}}', "has no `text_config.n_layer`"),
        ('transformers/BertModel --options {"hidden_size":7}', "7"),
        ("transformers/BertModel --image-size 32", "`image_size` does not go with BertModel"),
        ("transformers/ViTModel --sequence-length 32", "`sequence_length` does not go with ViTModel"),
        ("resnet18 --sequence-length 32", "`sequence_length` does not go with resnet18"),
        ("resnet18 --drop-path-rate 1", "`drop_path_rate`"),
        ("resnet18 --image-size 0", "`image_size`"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: str, told: str) -> None:
    if arguments.startswith("transformers/"):
        pytest.importorskip("transformers")
    assert told in mistake(capsys, *arguments.split())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("transformers/BertModel", "transformers is not installed: pip install 'residualdroppath[transformers]'"),
        ("torchvision/resnet18", "torchvision is not installed: pip install 'residualdroppath[train]'"),
        ("resnet18", "timm is not installed: pip install 'residualdroppath[train]'"),
    ],
)
def test_library_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert told in mistake(capsys, name)


@pytest.mark.parametrize(
    "arguments", ["", "resnet18 resnet34", "resnet18 --no-such 1", "resnet18 --rate-over-depth up"]
)
def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["branches", *arguments.split()])
    output = capsys.readouterr()
    assert stop.value.code == 2 and output.out == "" and "Traceback" not in output.err


def test_network_that_cannot_be_made_on_meta_is_made_in_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    build_on = spec.ModelSpec.build_on

    def not_on_meta(self: spec.ModelSpec, device: str) -> Any:
        asked.append(device)
        if device == "meta":
            raise UserError("no")
        return build_on(self, device)

    expected = as_json(capsys, *SMALL)
    monkeypatch.setattr(spec.ModelSpec, "build_on", not_on_meta)
    assert as_json(capsys, *SMALL) == expected and asked == ["meta", "cpu"]


def test_forward_that_does_not_run_on_meta_is_run_in_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from residualdroppath.cli import branches

    def not_on_meta(inputs: spec.Inputs, device: str) -> Any:
        if device == "meta":
            raise RuntimeError("Tensor.item() cannot be called on meta tensors")
        return spec.tensors(inputs, device)

    expected = as_json(capsys, *SMALL)
    monkeypatch.setattr(branches, "tensors", not_on_meta)
    assert as_json(capsys, *SMALL) == expected
    monkeypatch.setattr(branches, "LARGEST_IN_MEMORY", 1000)
    record = as_json(capsys, *SMALL)
    assert record["totals"]["flops"] is None and "too large to try in memory" in record["totals"]["flops_note"]
