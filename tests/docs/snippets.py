"""The code blocks of a Markdown page: what of it is run, and what is only parsed.

Comments of a page steer that, and no reader sees them:

    <!-- needs: timm, peft -->      the page is skipped without these packages
    <!-- slow -->                   the page takes over some seconds: full tier
    <!-- run first                  code in front of the page's own, up to the end of the comment
    <!-- not run: why -->           the next block cannot run here
    <!-- run -->                    the next shell block is run, not only parsed
    <!-- output -->                 the next block is what the one before prints; `...` stands for anything
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELLS = ("sh", "bash", "console")
_FENCE = re.compile(r"^( *)(`{3,})([\w{}-]*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_DECIMAL = r"-?\d+\.\d+(?:e[+-]?\d+)?"
_COMMENT = re.compile(r"<!-- (.*?) *-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: `line` is the number of its first line of code, `mark` the comment on the line before it."""

    language: str
    code: str
    line: int
    mark: str = ""


class Page:
    """A Markdown page."""

    def __init__(self, path: Path):
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        fences = list(_FENCE.finditer(self.text))
        self.comments = [
            found
            for found in _COMMENT.finditer(self.text)
            if not any(fence.start() < found.start() < fence.end() for fence in fences)
        ]
        setup = [
            Block("python", found[1].removeprefix("run first"), self._line(found.start()))
            for found in self.comments
            if found[1].startswith("run first\n")
        ]
        self.blocks = sorted([*setup, *map(self._block, fences)], key=lambda block: block.line)

    def _line(self, position: int) -> int:
        return self.text.count("\n", 0, position) + 1

    def _block(self, fence: re.Match[str]) -> Block:
        marks = [found[1] for found in self.comments if self.text[found.end() : fence.start()] == "\n"]
        code = "".join(line.removeprefix(fence[1]) for line in fence[4].splitlines(keepends=True))
        return Block(fence[3], code, self._line(fence.start()) + 1, marks[0] if marks else "")

    def needs(self) -> list[str]:
        """The packages without which the page is skipped."""
        named = [found[1].removeprefix("needs:") for found in self.comments if found[1].startswith("needs:")]
        return [name.strip() for names in named for name in names.split(",")]

    def is_slow(self) -> bool:
        return any(found[1] == "slow" for found in self.comments)

    def has_code(self) -> bool:
        return any(block.language == "python" or block.mark == "run" for block in self.blocks)

    def commands(self) -> Iterator[list[str]]:
        """The words of each call of `rdp` in a shell block, under launchers too, without the name of the program."""
        for block in self.blocks:
            if block.language in SHELLS and not block.mark.startswith("not run"):
                for line in command_lines(block):
                    words = shlex.split(line, comments=True)
                    for name in ("rdp", "residualdroppath"):
                        if name in words[:1] or (name in words and words[words.index(name) - 1] == "-m"):
                            rest = words[words.index(name) + 1 :]
                            yield rest[: rest.index(">")] if ">" in rest else rest
                            break


def command_lines(block: Block) -> list[str]:
    """The commands of a shell block; of a `console` block those after `$ `, where it has any."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console" and any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def run_page(page: Page, folder: Path) -> None:
    """Run the page from top to bottom in one namespace; the working directory is `folder`.

    Raises what a block raises, with the page and line in its traceback, and `AssertionError` for another output.
    """
    scope: dict[str, object] = {"__name__": "page"}
    printed = ""
    for block in page.blocks:
        place = f"{page.path.name}:{block.line}"
        if block.mark.startswith("not run"):
            continue
        if block.mark == "output":
            require_output(block.code, printed, place)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile("\n" * (block.line - 1) + block.code, str(page.path), "exec"), scope)
            printed = output.getvalue()
        elif block.mark == "run":
            printed = "".join(_shell(line, folder, place) for line in command_lines(block))


def require_output(expected: str, printed: str, place: str) -> None:
    """Raises `AssertionError` if `printed` is not `expected`.

    `...` stands for anything, any white space for any other. Decimals differ with the machine: here by up to 5 %.
    """
    parts = re.split(rf"(\.\.\.|{_DECIMAL}|\s+)", expected.strip())
    pattern = "".join(
        ".*?"
        if part == "..."
        else rf"({_DECIMAL})"
        if re.fullmatch(_DECIMAL, part)
        else r"\s+"
        if part.isspace()
        else re.escape(part)
        for part in parts
    )
    found = re.fullmatch(pattern, printed.strip(), re.DOTALL)
    decimals = [float(part) for part in parts if re.fullmatch(_DECIMAL, part)]
    if found is None or any(
        abs(float(shown) - own) > 0.05 * abs(own) for shown, own in zip(found.groups(), decimals, strict=True)
    ):
        raise AssertionError(f"{place} shows\n{expected}\nand printed is\n{printed}")


def _shell(line: str, folder: Path, place: str) -> str:
    """What a command prints. `rdp` and `python` are those of this interpreter."""
    words = shlex.split(line, comments=True)
    program = {"rdp": [sys.executable, "-m", "residualdroppath"], "python": [sys.executable]}
    words = [*program.get(words[0], words[:1]), *words[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{place}: `{line}` ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
