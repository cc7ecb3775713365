"""The code blocks of pages as commands, so that a page is tried as it stands, and cannot say what does not work.

A block is what is indented by four spaces behind an empty line, or fenced without naming another language than sh. It
is run as it stands, in bash. What is not run says why, in a comment above it, which no reader of the built page sees:

    <!-- not run: REASON -->

Fences in another language (toml, json) are no commands. Words that stand for the reader's own are replaced: see
`Block.text`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MARK = re.compile(r"<!-- not run: (.+) -->")
_FENCE = re.compile(r"```(\w*)")
#: `command` in the first column of a table
_ROW = re.compile(r"\| `([^`]+)` \|")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some lines of one page."""

    page: str  #: from the root of the checkout
    line: int  #: of its first command, from 1
    heading: str  #: the nearest above it
    lines: tuple[str, ...]
    not_run: str = ""  #: why, for a block that is marked so

    def text(self, words: Mapping[str, str] | None = None) -> str:
        """The commands, with the reader's own words in their places: {"HOST": "kvm-01"}. Each must be there."""
        text = "\n".join(self.lines)
        for theirs, ours in (words or {}).items():
            if not re.search(rf"(?<![\w-]){re.escape(theirs)}(?![\w-])", text):
                raise ValueError(f"{self}: there is no {theirs} in it")
            text = re.sub(rf"(?<![\w-]){re.escape(theirs)}(?![\w-])", ours, text)
        return text

    def __str__(self) -> str:
        """Where it is."""
        return f"{self.page}:{self.line}"


def blocks(page: str, heading: str | None = None) -> list[Block]:
    """All command blocks of a page, or those of a section, in their order."""
    found: list[Block] = []
    lines = (ROOT / page).read_text().splitlines()
    above, mark, number = "", "", 0
    while number < len(lines):
        line = lines[number]
        first, taken, language = number, 1, ""
        commands: list[str] = []
        if line.startswith("#"):
            above = line.lstrip("# ")
        if fence := _FENCE.match(line):
            end = lines.index("```", number + 1)
            commands, taken, language = lines[number + 1 : end], end - number + 1, fence[1]
            first += 1
        elif line.startswith("    ") and not lines[number - 1].strip():
            while number + taken < len(lines) and (
                lines[number + taken].startswith("    ") or not lines[number + taken]
            ):
                taken += 1
            commands = [each[4:] for each in lines[number : number + taken]]
            while not commands[-1]:
                commands.pop()
        if commands and language in ("", "sh"):
            found.append(Block(page=page, line=first + 1, heading=above, lines=tuple(commands), not_run=mark))
        if line.strip():
            marked = _MARK.fullmatch(line.strip())
            mark = marked[1] if marked else ""
        number += taken
    return [block for block in found if heading is None or block.heading == heading]


def commands(page: str, heading: str) -> list[Block]:
    """The blocks of a section that are to be run. Raises ValueError: there is none, so the page has changed."""
    found = [block for block in blocks(page, heading) if not block.not_run]
    if not found:
        raise ValueError(f"{page} has no commands below {heading!r}")
    return found


def fence(page: str, language: str) -> str:
    """The one fenced text of a page in a language. Raises ValueError: there is none, or more."""
    [found] = re.findall(rf"(?ms)^```{language}\n(.*?)^```$", (ROOT / page).read_text())
    return str(found)


def table(page: str, heading: str) -> list[str]:
    """The commands in the first column of a section's table. Raises ValueError: there is none."""
    text = (ROOT / page).read_text().split(f"## {heading}\n", 1)[-1].split("\n## ", 1)[0]
    if not (found := _ROW.findall(text)):
        raise ValueError(f"{page} has no table of commands below {heading!r}")
    return found
