"""The residual branches that reading the sources of a library says there are, one YAML file per model file.

models:
  - name: resnet18
    options: {img_size: 64}        # keyword arguments that make the model small
    input: [3, 64, 64]             # shape of one sample
    branches:
      - block: layer{1..4}.{0..1}  # module paths; {a..b} and {a,b} expand
        branch: [conv1, bn1, conv2, bn2]
none: why the file has no residual add   # instead of models

Libraries beyond timm, torchvision and transformers have folders by the names of their packages, and models with

  - make: x_transformers.Encoder   # a class or function, called with the options
    options: {dim: 16, net: {make: torch.nn.Linear, options: {...}}}   # values may be made likewise
    inputs:                        # keyword arguments of the forward
      x: [10, 16]                  # noise of this shape, for each row of the batch
      ids: {shape: [10], below: 40, from: 1}                 # integers in [from, below); from is 0 by default
      edge_index: {shape: [2, 8], below: 4, whole: true}     # not for each row, but one for the batch
      padded: {value: [[true, false], [true, true]]}         # a tensor of these values
      batch: {of: {past: [10, 1], scale: [2]}}               # a dictionary or a list of inputs
      flag: true                   # anything else is passed on as it is
    dtype: float32                 # where the model cannot be of the default, float64
    none: why there is no residual add     # instead of branches

`inputs`, `dtype` and `none` may stand in a model of transformers too.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from torch import nn

EXPECTED = Path(__file__).parent / "expected"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
OPEN = Path(__file__).parent / "open.yaml"
WITH_THE_PROJECT = ("timm", "torchvision", "transformers")  # the others are optional
KEYS = {"name", "make", "options", "input", "inputs", "dtype", "branches", "none", "note"}  # of a model
BRACES = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class ExpectedBranch:
    """One branch: the path of its block, and the children and parameters of the block that only it uses."""

    block: str
    members: tuple[str, ...]

    def parameters(self, model: nn.Module) -> frozenset[str]:
        """Names of the parameters of `model` that belong to the branch."""
        roots = [f"{self.block}.{member}" if self.block else member for member in self.members]
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        for root in roots:
            if not any(_below(name, root) for name in names):
                raise ValueError(f"`{root}` holds no parameter of {type(model).__name__}")
        return frozenset(name for name in names if any(_below(name, root) for root in roots))


@dataclass(frozen=True)
class ExpectedModel:
    """One model of a library and its branches."""

    library: str
    file: str
    name: str
    branches: tuple[ExpectedBranch, ...]
    options: dict[str, Any] = field(default_factory=dict)
    input: tuple[int, ...] = (3, 64, 64)
    make: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float64"
    none: str = ""
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.library}-{self.file}-{self.name}"


@dataclass(frozen=True)
class ExpectedFile:
    """One model file of a library: the models that together use all its residual blocks, or why it has none."""

    library: str
    file: str
    models: tuple[ExpectedModel, ...]
    none: str = ""


def libraries() -> list[str]:
    """All libraries that expectations are written for: those the project comes with, then the optional ones."""
    return [*WITH_THE_PROJECT, *sorted({folder.name for folder in EXPECTED.iterdir()} - set(WITH_THE_PROJECT))]


def why_absent(library: str) -> str:
    """The reason to skip a library, empty where the pinned version is installed."""
    if library in WITH_THE_PROJECT:
        return ""
    pinned = dict(word.split("==") for word in REQUIREMENTS.read_text().split() if "==" in word)[library]
    if not (version := version_of(library)):
        return f"{library} is not installed; `make coverage-libraries` installs it"
    return "" if version == pinned else f"{library} is {version}, expectations are for {pinned}"


def version_of(library: str) -> str:
    """Empty where it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def open_files(what: str = "branches") -> dict[str, str]:
    """Files, by `library/file`, whose branches or contracts are not as they should be yet, and why."""
    return {file: reason for reason, files in yaml.safe_load(OPEN.read_text())[what].items() for file in files}


def load_expected(library: str) -> list[ExpectedFile]:
    """All files written for `library`, by name."""
    return [load_file(path) for path in sorted((EXPECTED / library).glob("*.yaml"))]


def load_file(path: Path) -> ExpectedFile:
    content = yaml.safe_load(path.read_text())
    if unknown := content.keys() - {"models", "none"}:
        raise ValueError(f"{path.name}: unknown keys {sorted(unknown)}")
    library, file = path.parent.name, path.stem
    models = tuple(_model(library, file, entry) for entry in content.get("models", ()))
    return ExpectedFile(library, file, models, content.get("none", ""))


def _model(library: str, file: str, entry: dict[str, Any]) -> ExpectedModel:
    if unknown := entry.keys() - KEYS:
        raise ValueError(f"{file}: unknown keys {sorted(unknown)} of a model")
    if ("branches" in entry) == ("none" in entry):
        raise ValueError(f"{file}: a model has either `branches` or `none`, got the keys {sorted(entry)}")
    branches = []
    for branch in entry.get("branches", ()):
        if branch.keys() != {"block", "branch"}:
            raise ValueError(f"{file}: a branch has the keys `block` and `branch`, got {sorted(branch)}")
        branches += [ExpectedBranch(block, tuple(branch["branch"])) for block in expand(branch["block"])]
    return ExpectedModel(
        library=library,
        file=file,
        name=entry.get("name") or entry["make"].rpartition(".")[2],
        branches=tuple(branches),
        options=entry.get("options", {}),
        input=tuple(entry.get("input", (3, 64, 64))),
        make=entry.get("make", ""),
        inputs=entry.get("inputs", {}),
        dtype=entry.get("dtype", "float64"),
        none=entry.get("none", ""),
        note=entry.get("note", ""),
    )


def expand(pattern: str) -> list[str]:
    """`a{0..1}.{x,y}` as `a0.x a0.y a1.x a1.y`."""
    parts = BRACES.split(pattern)
    choices = [[part] if index % 2 == 0 else _choices(part) for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(braces: str) -> list[str]:
    if ".." in braces:
        first, last = braces.split("..")
        return [str(number) for number in range(int(first), int(last) + 1)]
    return braces.split(",")


def _below(name: str, root: str) -> bool:
    return name == root or name.startswith(f"{root}.")
