"""Draw the pictures of docs/method.md, and fill its table, from a network that really runs each kind of iteration.

python docs/method_pictures.py            # writes docs/figures/method_*.svg and the table of docs/method.md
python docs/method_pictures.py --check    # exit code 1 if one of them is not what the network does

Hooks see which modules run, gradients which parameters learn, and hooks of autograd which bytes are kept for the
backward, and in which module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from cost_page import markdown_table
from markers import filled
from torch import Tensor, nn

from residualdroppath import ResidualDropPath
from residualdroppath.models.small_resnet import SmallResNet

ROOT = Path(__file__).parents[1]
FIGURES, PAGE = ROOT / "docs" / "figures", ROOT / "docs" / "method.md"
TRUNK = -1
RATE, SEED = 0.4, 3
SHAPE = (8, 3, 32, 32)
TITLES = {
    "plain": "plain",
    "drop_path": "`drop_path`",
    "parameters": '`dropped_part`, `freeze="parameters"`',
    "stop_gradient": '`dropped_part`, `freeze="stop_gradient"`',
}
LEARNS, FROZEN, NOTHING = "#0b6fb8", "#d9dde1", "#ffffff"
CELL, EDGE, HEIGHT = 79, 62, 168


@dataclass
class Seen:
    """What one iteration did: by branch, and for the trunk (-1)."""

    runs: set[int] = field(default_factory=set)
    learns: set[int] = field(default_factory=set)
    kept: dict[int, int] = field(default_factory=dict)  # bytes


@contextmanager
def watched(model: nn.Module, owners: dict[nn.Module, int]) -> Iterator[Seen]:
    """Which owners of leaf modules run meanwhile, and what each keeps for the backward; a storage counts once."""
    seen, running = Seen(), [TRUNK]
    given = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    held: dict[int, torch.UntypedStorage] = {}
    made: dict[int, tuple[int, Tensor]] = {}  # outputs by their address, with the owner; what is kept counts as its

    def begin(module: nn.Module, args: object) -> None:
        seen.runs.add(owners[module])
        running.append(owners[module])

    def end(module: nn.Module, args: object, output: Tensor) -> None:
        made.setdefault(output.untyped_storage().data_ptr(), (running.pop(), output))

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given | held.keys():
            held[storage.data_ptr()] = storage
            owner = made[storage.data_ptr()][0] if storage.data_ptr() in made else running[-1]
            seen.kept[owner] = seen.kept.get(owner, 0) + storage.nbytes()
        return tensor

    hooks = [module.register_forward_pre_hook(begin) for module in owners]
    hooks += [module.register_forward_hook(end) for module in owners]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield seen
    for hook in hooks:
        hook.remove()


def iteration(freeze: str, steps: int, rate: float = RATE) -> Seen:
    """The iteration after `steps` others of a ResNet14 with six residual branches."""
    torch.manual_seed(0)
    model = SmallResNet(14, 8)
    rdp = ResidualDropPath(model, rate, rate_over_depth="uniform", freeze=freeze, seed=SEED)
    branch_of = {module: i for i, found in enumerate(rdp.discovery.branches) for module in found.modules()}
    leaves = [module for module in model.modules() if not list(module.children())]
    owners = {module: branch_of.get(module, TRUNK) for module in leaves}
    for _ in range(steps):
        rdp.step()
    with watched(model, owners) as seen:
        loss = model(torch.randn(SHAPE)).square().mean()
    loss.backward()
    seen.learns = {
        owners[module] for module in leaves if any(each.grad is not None for each in module.parameters(recurse=False))
    }
    return seen


def draw(seen: Seen, plain: Seen) -> str:
    """Stem, blocks and head from left to right. The stream runs below, branches above it; bars are bytes kept."""
    count = len(plain.kept) - 1
    width = 2 * EDGE + count * CELL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="14" text-anchor="middle">',
        f'<rect width="{width}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
        f'<path d="M {EDGE - 8} 106 H {width - EDGE + 8}" stroke="#555555" stroke-width="2"/>',
    ]
    for name, left in (("stem", 6), ("head", width - EDGE + 8)):
        parts.append(_box(left, 84, EDGE - 14, 44, seen, TRUNK, name))
    for index in range(count):
        left = EDGE + index * CELL
        begin, end = left + 7, left + CELL - 5
        shade = "#555555" if index in seen.runs else "#b5bac0"
        dashes = "" if index in seen.runs else ' stroke-dasharray="4 3"'
        parts.append(
            f'<path d="M {begin} 106 V 62 H {end} V 98" fill="none" stroke="{shade}" stroke-width="2"{dashes}/>'
        )
        state = "learns" if index in seen.learns else "frozen" if index in seen.runs else "not run"
        parts.append(_box(left + 10, 42, CELL - 18, 40, seen, index, state))
        parts.append(f'<circle cx="{end}" cy="106" r="8" fill="#ffffff" stroke="#555555" stroke-width="2"/>')
        parts.append(f'<path d="M {end - 5} 106 h 10 M {end} 101 v 10" stroke="#555555" stroke-width="2"/>')
        share = seen.kept.get(index, 0) / plain.kept[index]
        parts.append(f'<rect x="{left + 10}" y="24" width="{CELL - 18}" height="10" fill="none" stroke="#8a9199"/>')
        parts.append(f'<rect x="{left + 10}" y="24" width="{share * (CELL - 18):.1f}" height="10" fill="#d98e04"/>')
        parts.append(f'<text x="{left + CELL / 2 + 1:g}" y="17" font-size="12" fill="#333333">{share:.0%}</text>')
    share = sum(seen.kept.values()) / sum(plain.kept.values())
    trunk = "learns" if TRUNK in seen.learns else "frozen"
    words = f"trunk {trunk}; kept for the backward in all: {share:.0%}"
    parts.append(f'<text x="{width / 2:g}" y="152" fill="#333333">{words}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _box(left: float, top: float, width: float, height: float, seen: Seen, owner: int, label: str) -> str:
    fill = LEARNS if owner in seen.learns else FROZEN if owner in seen.runs else NOTHING
    ink = "#ffffff" if fill == LEARNS else "#333333"
    dashes = "" if owner in seen.runs else ' stroke-dasharray="4 3"'
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="5" fill="{fill}" stroke="#555555"{dashes}/>'
        f'<text x="{left + width / 2:g}" y="{top + height / 2 + 5:g}" fill="{ink}">{label}</text>'
    )


def table(seen: dict[str, Seen]) -> str:
    """What the pictures show, in figures."""
    branches = range(len(seen["plain"].kept) - 1)
    whole = sum(seen["plain"].kept.values())
    rows = [
        [
            TITLES[name],
            f"{sum(index in own.runs for index in branches)} of {len(branches)} branches",
            f"{sum(index in own.learns for index in branches)} branches"
            + (", trunk" if TRUNK in own.learns else ", not the trunk"),
            f"{sum(own.kept.values()) / whole:.0%}",
        ]
        for name, own in seen.items()
    ]
    return markdown_table(["iteration", "runs", "learns", "kept for the backward"], rows)


def main() -> int:
    seen = {
        "plain": iteration("parameters", 0, rate=0.0),
        "drop_path": iteration("parameters", 0),
        "parameters": iteration("parameters", 1),
        "stop_gradient": iteration("stop_gradient", 1),
    }
    wanted = {FIGURES / f"method_{name}.svg": draw(own, seen["plain"]) for name, own in seen.items()}
    wanted[PAGE] = filled(PAGE.read_text(), {"table method": table(seen)}, "docs/method.md")
    if "--check" in sys.argv[1:]:
        return 0 if all(path.exists() and path.read_text() == text for path, text in wanted.items()) else 1
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
