"""`rdp branches MODEL`: the residual branches of any network, and what they cost."""

from __future__ import annotations

import json
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, Field
from torch import nn

from ..analysis.flops import Flops, count_flops_under
from ..core.discovery.found import NoResidualBranchError
from ..core.options import RateOverDepth
from ..core.residual_drop_path import ResidualDropPath
from ..errors import UserError, first_line
from ..models.find import find_model
from ..models.spec import Inputs, ModelSpec, quiet, tensors
from ..records.configuration import parse_yaml
from ..training.method_options import option
from ..training.recipe import checked
from .branches_table import WIDTH, branches_page
from .terminal import table_console

LARGEST_IN_MEMORY = 500_000_000  # parameters; 2 GB


class Setting(BaseModel):
    """The inputs that FLOPs are counted on, and the drop rates."""

    image_size: int | None = Field(default=None, ge=1, description="pixels a side; default: the network's own")
    sequence_length: int | None = Field(
        default=None, ge=1, description="tokens of a text, samples or frames of a sound; default: at most 128 tokens"
    )
    drop_path_rate: float = option("drop_path_rate", ge=0, lt=1)
    rate_over_depth: RateOverDepth = option("rate_over_depth")


class BranchesCommand(BaseModel):
    """Show the residual branches of a network, with rates, parameters, share of FLOPs, and what lies around the add."""

    model: Annotated[str, tyro.conf.Positional] = Field(
        description="small_resnet, NAME or timm/NAME, torchvision/NAME, or transformers/CLASS (made from its config)"
    )
    options: str = Field(
        default="{}", description="YAML or JSON mapping for what makes the network, such as '{num_hidden_layers: 2}'"
    )
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = Field(
        default=False, description="print one JSON object, and nothing else"
    )
    setting: Annotated[Setting, tyro.conf.arg(name="")] = Setting()


def branches(arguments: list[str]) -> None:
    """Parse the command line, and print the table or the JSON object."""
    command = checked(lambda: tyro.cli(BranchesCommand, prog="rdp branches", args=arguments), "the command line")
    record = branches_record(command)
    if command.as_json:
        print(json.dumps(record, indent=2))
    else:
        console = table_console(WIDTH)
        for part in branches_page(record):
            console.print(part)


def branches_record(command: BranchesCommand) -> dict[str, Any]:
    """All that is printed about the network, as plain values. Raises `UserError`."""
    options = _mapping(command.options)
    setting = command.setting
    network = find_model(command.model, options, image_size=setting.image_size, sequence_length=setting.sequence_length)
    model = network.build()
    rdp = _found(model, setting)
    flops, inputs, note = measure(network, rdp)
    own = flops.branches if flops else (None,) * len(rdp.branches)
    shares = flops.shares if flops else own
    if flops and (idle := own.count(None)):
        note = f"{idle} branches did not run on {_names(inputs)}; they have no share."
    rows = [
        {
            "name": branch.name,
            "block": type(branch.block).__name__,
            "block_path": found.block_path,
            "drop_rate": branch.drop_rate,
            "effective_rate": branch.effective_rate,
            "parameters": branch.num_parameters,
            "flops": branch_flops,
            "share_of_flops": share,
            "shortcut": found.shortcut,
            "follows": found.follows,
        }
        for branch, found, branch_flops, share in zip(rdp.branches, rdp.discovery.branches, own, shares, strict=True)
    ]
    in_branches = sum(count for count in own if count is not None) if flops else None
    return {
        "model": {
            "name": network.name,
            "class": type(model).__name__,
            "options": options,
            "inputs": {name: list(shape) for name, (shape, _) in inputs.items()} if inputs else None,
            "drop_path_rate": setting.drop_path_rate,
            "rate_over_depth": setting.rate_over_depth,
        },
        "totals": {
            "branches": len(rows),
            "blocks": len({id(branch.block) for branch in rdp.branches}),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "parameters_in_branches": sum(branch.num_parameters for branch in rdp.branches),
            "flops": flops.total if flops else None,
            "flops_in_branches": in_branches,
            "share_of_flops": in_branches / flops.total if flops and in_branches is not None and flops.total else None,
            "flops_note": note or None,
        },
        "branches": rows,
        "rejected_adds": rdp.discovery.rejected_adds,
        "untraceable": rdp.discovery.untraceable,
        "shared_parameters": list(rdp.shared_parameters),
    }


def measure(network: ModelSpec, rdp: ResidualDropPath) -> tuple[Flops | None, Inputs | None, str]:
    """FLOPs and the inputs they were counted on; or a note why there are none.

    On the meta device where the forward runs there, otherwise on a second network in memory.
    """
    if any(parameter.is_meta for parameter in rdp.model.parameters()):
        flops, inputs, note = _try_inputs(network, rdp, "meta")
        if flops or not network.inputs(rdp.model, 1):
            return flops, inputs, note
        if sum(parameter.numel() for parameter in rdp.model.parameters()) > LARGEST_IN_MEMORY:
            return None, None, f"{note} It is too large to try in memory."
        try:
            rdp = ResidualDropPath(network.build_on("cpu"), 0.0)
        except (UserError, NoResidualBranchError):
            return None, None, note
    return _try_inputs(network, rdp, "cpu")


def _try_inputs(network: ModelSpec, rdp: ResidualDropPath, device: str) -> tuple[Flops | None, Inputs | None, str]:
    note = f"No inputs are known for {type(rdp.model).__name__}, so its forward was not run."
    for rows in (1, 2):
        candidates = network.inputs(rdp.model, rows)
        first_error = ""
        for inputs in candidates:
            try:
                with quiet():
                    return count_flops_under(rdp, **tensors(inputs, device)), inputs, ""
            except Exception as error:  # each network fails in its own way
                first_error = first_error or first_line(error)
        if candidates:
            note = f"The forward does not run on {_names(candidates[0])} ({first_error})."
        if "more than 1 value per channel" not in first_error:  # batch norm
            break
    return None, None, note


def _found(model: nn.Module, setting: Setting) -> ResidualDropPath:
    try:
        with quiet():
            return ResidualDropPath(model, setting.drop_path_rate, rate_over_depth=setting.rate_over_depth)
    except NoResidualBranchError as error:
        raise UserError(str(error)) from error


def _mapping(text: str) -> dict[str, Any]:
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"`options` cannot be read ({first_line(error)}); give a YAML or JSON mapping.") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"`options` must be a YAML or JSON mapping such as '{{depth: 8}}', got {text!r}.")
    return values


def _names(inputs: Inputs | None) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, (shape, _) in (inputs or {}).items())
