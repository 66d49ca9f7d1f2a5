"""`rdp doctor`: versions, devices, threads, and what is missing. It runs with torch alone, or without it."""

from __future__ import annotations

import argparse
import importlib
import json as json_module
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import Stopped, first_line
from ..records.extras import FOR_DEVELOPMENT, Requirement, pip_line, requirements

BROKEN = 1  # the exit code where the method cannot run


@dataclass
class DoctorCommand:
    """Show versions, devices and threads, and which optional packages are missing, with the line that gets them."""

    json: bool = False
    """print one JSON object, and nothing else"""


def doctor(arguments: list[str]) -> None:
    """Parse the command line, and print what was found. Raises `Stopped` where the method cannot run here."""
    parser = argparse.ArgumentParser("rdp doctor", description=DoctorCommand.__doc__)  # tyro may be missing
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    command = DoctorCommand(**vars(parser.parse_args(arguments)))
    found = diagnosis(requirements())
    print(json_module.dumps(found, indent=2) if command.json else "\n".join(lines(found)))
    if found["torch"]["broken"]:
        raise Stopped(f"error: {found['torch']['problem']}.", BROKEN)


def diagnosis(needed: list[Requirement]) -> dict[str, Any]:
    """What is installed and at hand, as plain values. Of all packages torch alone is imported."""
    extras = dict.fromkeys(each.extra for each in needed if each.extra and each.extra not in FOR_DEVELOPMENT)
    return {
        "residualdroppath": {"version": __version__, "folder": str(Path(__file__).parents[1])},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        **_of_torch(next((each for each in needed if each.name == "torch" and not each.extra), None)),
        "extras": {
            extra: {
                "problems": [problem for each in needed if each.extra == extra and (problem := each.problem)],
                "install": pip_line(extra),
            }
            for extra in extras
        },
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The diagnosis for a person to read."""
    torch = found["torch"]
    yield f"residualdroppath  {found['residualdroppath']['version']} in {found['residualdroppath']['folder']}"
    yield f"Python            {found['python']}, {found['platform']}, {found['cores']} cores"
    note = torch["problem"] or (f"in the tested range {torch['range']}" if torch["range"] else "")
    yield f"torch             {torch['version'] or 'none'}{note and f': {note}'}"
    if found["devices"]:
        yield f"devices           {'; '.join(found['devices'])}"
        yield f"threads           {found['threads']}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    if not found["extras"]:
        yield "extras            unknown: this package runs from its source; `pip install .` installs it"
        return
    yield "extras"
    width = max(map(len, found["extras"]))
    for extra, state in found["extras"].items():
        problems = ", ".join(state["problems"])
        yield f"  {extra:<{width}}  " + (f"{problems}: {state['install']}" if problems else "complete")


def _of_torch(needed: Requirement | None) -> dict[str, Any]:
    state: dict[str, Any] = {"version": None, "range": needed.range if needed else None}
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:  # a library that torch is linked to may be absent
        problem = f"torch cannot be imported ({first_line(error)}); install it by the line that pytorch.org gives"
        return {"torch": {**state, "problem": problem, "broken": True}, "devices": [], "threads": None}
    state.update(version=str(torch.__version__), problem=None, broken=False)
    if needed and needed.problem:
        state["problem"] = f"{needed.problem}, which are the versions tested"
    try:
        importlib.import_module("..core.torch_internals", __package__)
    except (ImportError, AttributeError) as error:
        state["problem"] = f"torch {torch.__version__} lacks what the method uses ({first_line(error)})"
        state["broken"] = True
    return {"torch": state, "devices": _devices(torch), "threads": torch.get_num_threads()}


def _devices(torch: Any) -> list[str]:
    devices = [f"cpu ({platform.machine()})"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            devices.append(f"cuda:{index} ({torch.cuda.get_device_name(index)}, {memory:.0f} GiB)")
    elif torch.version.cuda:
        devices.append(f"no cuda device, though torch is built for CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices
