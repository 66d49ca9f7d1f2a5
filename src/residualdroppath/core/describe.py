"""What `repr(rdp)` tells a person: branches found, and what was left aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .discovery.registry import registering_call

if TYPE_CHECKING:
    from .residual_drop_path import ResidualDropPath


def describe(rdp: ResidualDropPath) -> str:
    """A table of branches with their rates and parameters, then what is treated as trunk and why."""
    total = sum(parameter.numel() for parameter in rdp.model.parameters())
    in_branches = sum(branch.num_parameters for branch in rdp.branches)
    options = ", ".join(f"{name}={value!r}" for name, value in rdp.options.as_dict().items() if value is not None)
    blocks = len({id(branch.block) for branch in rdp.branches})
    plan = rdp.plan
    lines = [
        f"ResidualDropPath({options})",
        f"  iteration {plan.iteration}: {plan.kind}, {len(plan.dropped)} of {len(rdp.branches)} branches dropped",
        f"  {len(rdp.branches)} residual branches in {blocks} blocks, with {in_branches:,} of {total:,} parameters",
    ]
    width = max(len(branch.name) for branch in rdp.branches)
    lines.append(f"  {'branch':<{width}}  {'rate':>6}  {'effective':>9}  {'parameters':>10}  block")
    for branch in rdp.branches:
        mark = "*" if branch.name in plan.dropped else " "
        lines.append(
            f" {mark}{branch.name:<{width}}  {branch.drop_rate:6.3f}  {branch.effective_rate:9.3f}  "
            f"{branch.num_parameters:10,}  {type(branch.block).__name__}"
        )
    for title, reasons in (
        ("left aside", rdp.discovery.rejected_adds),
        ("not traced, taken as trunk", rdp.discovery.untraceable),
    ):
        if reasons:
            lines.append(f"  {title}:")
            lines += [f"    {name}: {reason}" for name, reason in reasons.items()]
    if rdp.discovery.untraceable:
        call = registering_call(rdp.discovery.likely_block(rdp.model))
        lines.append(f"  if one of these holds residual branches, register it: {call}")
    if rdp.shared_parameters:
        lines.append(f"  used in several places, taken as trunk: {', '.join(rdp.shared_parameters)}")
    return "\n".join(lines)
