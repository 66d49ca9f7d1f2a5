"""Optional packages: which extra of this package brings them, and what of each is missing or out of range."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

PACKAGE = "residualdroppath"
FOR_DEVELOPMENT = ("dev", "docs")
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}  # where the name imported is another
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)\s*(\[[^]]*\])?\s*\(?(?P<range>[^;()]*)\)?\s*(;(?P<marker>.*))?")
_COMPARISONS = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


@dataclass(frozen=True)
class Requirement:
    """A package that this one needs, of itself (`extra` is empty) or for an extra."""

    name: str
    range: str
    extra: str = ""

    @property
    def installed(self) -> str | None:
        """The version installed; None if there is none."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def problem(self) -> str | None:
        """What is wrong with what is installed, in a few words; None if nothing is."""
        version = self.installed
        if version is None:
            return f"{self.name} is missing"
        return None if in_range(version, self.range) else f"{self.name} {version} is not {self.range}"


def requirements() -> list[Requirement]:
    """All that the installed package declares; nothing where it runs from its source, not installed."""
    try:
        declared = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [found for line in declared if (found := as_requirement(line)).name != PACKAGE]


def as_requirement(line: str) -> Requirement:
    """A line of package metadata, such as `tyro>=0.9; extra == "train"`. Raises `ValueError` for anything else."""
    if (match := _REQUIREMENT.fullmatch(line.strip())) is None:
        raise ValueError(f"`line` must be a requirement such as 'tyro>=0.9; extra == \"train\"', got {line!r}.")
    extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", match["marker"] or "")
    return Requirement(match["name"].lower(), match["range"].strip(), extra[1] if extra else "")


def in_range(version: str, range: str) -> bool:
    """Whether a version satisfies all comparisons of a range such as `>=2.6,<3`; local parts (`+cpu`) do not count."""
    for part in filter(None, map(str.strip, range.split(","))):
        if (match := re.fullmatch(r"(>=|<=|==|!=|>|<)\s*([\w.]+)", part)) is None:
            raise ValueError(f"`range` must be comparisons such as '>=2.6,<3', got {range!r}.")
        if not _COMPARISONS[match[1]](_numbers(version), _numbers(match[2])):
            return False
    return True


def extra_of(module: str) -> str | None:
    """The extra that brings the package imported as `module`; None if none does."""
    name = _DISTRIBUTIONS.get(module, module).lower().replace("_", "-")
    return next((each.extra for each in requirements() if each.extra and each.name.replace("_", "-") == name), None)


def pip_line(extra: str) -> str:
    return f"pip install '{PACKAGE}[{extra}]'"


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    return tuple([*numbers, 0, 0, 0, 0][:4])
