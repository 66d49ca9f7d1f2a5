"""What `repr(rdp)` shows a person: branches found, and what was rejected."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .branch import Branch
from .discovery.found import Discovery
from .discovery.own_drop_path import OwnDropPath
from .discovery.registry import how_to_register
from .options import OF_DROPPED_PART, Options
from .planning.plan import Plan


def describe(
    title: str,
    model: nn.Module,
    options: Options,
    plan: Plan,
    branches: Sequence[Branch],
    discovery: Discovery,
    shared_parameters: Sequence[str],
    own_drop_path: Sequence[OwnDropPath],
) -> str:
    """A table of branches with their rates and parameters, then what is treated as trunk and why."""
    total = sum(parameter.numel() for parameter in model.parameters())
    in_branches = sum(branch.num_parameters for branch in branches)
    hidden = () if options.trains_dropped else OF_DROPPED_PART
    shown = {
        name: value for name, value in options.as_dict().items() if value not in (None, [], {}) and name not in hidden
    }
    effect = "dropped" if plan.kind == "drop_path" or options.trains == "last" else "learn"
    if options.granularity == "sample":
        effect += ", row by row"
    blocks = len({id(branch.block) for branch in branches})
    lines = [
        f"{title}({', '.join(f'{name}={value!r}' for name, value in shown.items())})",
        f"  iteration {plan.iteration}: {plan.kind}, {len(plan.dropped)} of {len(branches)} branches {effect}",
        f"  {len(branches)} residual branches in {blocks} blocks, with {in_branches:,} of {total:,} parameters",
    ]
    width = max(len("branch"), *(len(branch.name) for branch in branches))
    lines.append(f"  {'branch':<{width}}  {'rate':>6}  {'effective':>9}  {'parameters':>10}  block")
    for branch in branches:
        mark = "*" if branch.name in plan.dropped else " "
        lines.append(
            f" {mark}{branch.name:<{width}}  {branch.drop_rate:6.3f}  {branch.effective_rate:9.3f}  "
            f"{branch.num_parameters:10,}  {type(branch.block).__name__}"
        )
    for heading, reasons in (
        ("not residual", discovery.rejected_adds),
        ("cut off from branches, taken as trunk", discovery.cut_off),
        ("not traced, taken as trunk", discovery.untraceable),
    ):
        if reasons:
            lines.append(f"  {heading}:")
            lines += [f"    {name}: {reason}" for name, reason in reasons.items()]
    if (block := discovery.likely_block(model)) is not None:
        lines.append(f"  {how_to_register(block)}")
    if shared_parameters:
        lines.append(f"  used in several places, taken as trunk: {', '.join(shared_parameters)}")
    if own_drop_path:
        lines.append("  drop path of the model's own, off while this one is on:")
        lines += [f"    {_title(own)}: {own.rate:g}" for own in own_drop_path]
    return "\n".join(lines)


def _title(own: OwnDropPath) -> str:
    return f"{own.path or 'the model'} ({type(own.holder).__name__}.{own.attribute})"
