r"""What discovery costs, this build against that of a named commit: CPU time, in turn in one run, on one thread each.

A model's cost is that of construction and of what its first training forward takes beyond a plain one. The overhead
of an acting block is what its forward takes beyond the same operations written by hand.

.venv/bin/python benchmarks/discovery_cost.py --commit 9382a5f --out results/discovery/cost-9382a5f.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builds import HERE, Build, in_turn, ratio, served, source_of, write

SEED = 0
MODELS = {
    "vit_small": "vit_small_patch16_224",
    "eva02_tiny": "eva02_tiny_patch14_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "maxvit_tiny": "maxvit_tiny_rw_224",
}
VIT = {"vit_12_blocks": 12, "vit_40_blocks": 40}
TRANSFORMERS = ("qwen3_24_layers", "mt5_12_layers")
REPEATS = 50  # of each block's forward


def serve(network: str, options: dict[str, Any]) -> None:
    import torch

    from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    ensure_torchvision_ops()
    answer = acting_blocks() if network == "acting_blocks" else first_use(*model_and_batch(network))
    for _ in sys.stdin:
        print(json.dumps(answer()), flush=True)


def model_and_batch(network: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    import torch

    if network in TRANSFORMERS:
        from transformers import MT5Config, MT5ForConditionalGeneration, Qwen3Config, Qwen3ForCausalLM

        tokens = torch.randint(0, 100, (1, 8))
        if network == "qwen3_24_layers":
            small = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "vocab_size": 100}
            qwen = Qwen3Config(**small, num_hidden_layers=24, num_attention_heads=4, num_key_value_heads=2)
            return lambda: Qwen3ForCausalLM(qwen), {"input_ids": tokens}
        small = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "vocab_size": 100}
        mt5 = MT5Config(**small, num_layers=12, decoder_start_token_id=0)
        return lambda: MT5ForConditionalGeneration(mt5), {"input_ids": tokens, "decoder_input_ids": tokens}
    import timm

    if network in VIT:
        sizes = {"depth": VIT[network], "embed_dim": 192, "num_heads": 3}
        return lambda: timm.create_model(MODELS["vit_small"], **sizes), {"x": torch.randn(1, 3, 224, 224)}
    return lambda: timm.create_model(MODELS[network]), {"x": torch.randn(1, 3, 224, 224)}


def first_use(make: Callable[[], Any], batch: dict[str, Any]) -> Callable[[], dict[str, float]]:
    """Measures construction, and the first training forward less the faster of two plain ones."""
    from residualdroppath import ResidualDropPath

    def seconds(function: Callable[[], Any]) -> float:
        start = time.process_time_ns()
        function()
        return (time.process_time_ns() - start) / 1e9

    def answer() -> dict[str, float]:
        model, plain = make().train(), make().train()
        without = min(seconds(lambda: plain(**batch)) for _ in range(2))
        construction = seconds(lambda: ResidualDropPath(model, 0.1, seed=SEED))
        forward = seconds(lambda: model(**batch))
        return {"seconds": construction + forward - without, "construction": construction}

    for _ in range(2):
        answer()
    return answer


def acting_blocks() -> Callable[[], dict[str, float]]:
    """Measures, per block, an acting forward less the same operations by hand; half of the blocks are dropped."""
    import torch
    from torch import Tensor, nn

    from residualdroppath import ResidualDropPath
    from residualdroppath.models.small_resnet import SmallResNet

    taken: list[int] = []

    class Timed(nn.Module):
        """Blocks one after the other, each called several times."""

        def __init__(self) -> None:
            super().__init__()
            self.blocks = SmallResNet(20, 16, in_channels=3, num_classes=10).blocks

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                start = time.process_time_ns()
                for _ in range(repeats):
                    y = block(x)
                taken.append(time.process_time_ns() - start)
                x = y
            return x

    def by_hand(dropped: bool, block: Any) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            if dropped:
                return torch.relu(block.downsample(x))
            branch = block.bn2(block.conv2(block.act1(block.bn1(block.conv1(x)))))
            return block.act2(torch.add(block.downsample(x), branch, alpha=2.0))

        return forward

    repeats = 1
    torch.manual_seed(SEED)
    network, hand = Timed().train(), Timed().train()
    rdp = ResidualDropPath(network, 0.5, rate_over_depth="uniform", seed=SEED)
    for block, branch in zip(hand.blocks, rdp.branches, strict=True):
        block.forward = by_hand(branch.name in rdp.plan.dropped, block)
    x = torch.randn(1, 16, 8, 8)  # small, so that operations hide little of what is measured
    network(x)
    repeats = REPEATS

    def seconds(timed: nn.Module) -> float:
        taken.clear()
        timed(x)
        return sum(taken) / len(taken) / REPEATS / 1e9

    def answer() -> dict[str, float]:
        pairs = [(seconds(network), seconds(hand)) for _ in range(9)]
        acting, plain = (min(times) for times in zip(*pairs, strict=True))
        return {"seconds": acting - plain}

    answer()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="9382a5f", help="the other build")
    parser.add_argument("--rounds", type=int, default=5, help="models made by each build")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    record: dict[str, Any] = {
        "config": {"commit": arguments.commit, "rounds": arguments.rounds, "batch_size": 1, "seed": SEED},
        "first_use_other_over_this": {},
        "median_seconds": {},
    }
    with source_of(arguments.commit) as other:
        sources = {"this": HERE / "src", "other": other}
        for network in (*MODELS, *TRANSFORMERS, *VIT, "acting_blocks"):
            builds = {name: Build(__file__, source, network) for name, source in sources.items()}
            answers = in_turn(builds, "again", arguments.rounds)
            [build.close() for build in builds.values()]
            record["median_seconds"][network] = {
                name: {key: statistics.median(answer[key] for answer in own) for key in own[0]}
                for name, own in answers.items()
            }
            where = record if network == "acting_blocks" else record["first_use_other_over_this"]
            where[network] = ratio(answers, "other", "this")
            print(network, json.dumps(record["median_seconds"][network]), flush=True)
    medians = record["median_seconds"]
    summed = {name: sum(medians[network][name]["seconds"] for network in (*MODELS, *TRANSFORMERS)) for name in sources}
    record["sum_of_medians_other_over_this"] = summed["other"] / summed["this"]
    record["construction_of_40_blocks_over_12"] = {
        name: medians["vit_40_blocks"][name]["construction"] / medians["vit_12_blocks"][name]["construction"]
        for name in sources
    }
    write(record, arguments.out)


if __name__ == "__main__":
    served(main, serve)
