"""Writes a manual page for each command, from the command tree: python packaging/man_pages.py FOLDER

Ours, not click-man: that one (0.6.0) cuts the line by which `apropos` finds a page, runs examples together into one
paragraph, leaves out defaults, escapes nothing, and knows neither exit codes nor files. With SOURCE_DATE_EPOCH set,
the same version gives the same pages.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from ha_controller import __version__
from ha_controller.cli.client import DEFAULT_SOCKET
from ha_controller.cli.common import DEFAULT_CONFIG
from ha_controller.cli.main import commands

PROGRAM = "ha-controller"
NAMES = {"help_option_names": ["-h", "--help"]}
EXIT_CODES = {
    "0": "Done; of status: all is well.",
    "1": "Tried and failed; of status: degraded; of a listing: something in it is not as it should be.",
    "2": "Wrong usage.",
    "3": "There is no such host, VM, incident, plugin or token.",
    "4": "Refused for safety, by what is said; of status: a guard holds something.",
    "5": "A decision waits for a person.",
    "6": "No answer in time: look before it is ordered again.",
    "7": "The controller, or OpenNebula, is not reachable.",
    "8": "Not logged in, or not allowed.",
    "9": "This controller does not lead; the one that does is named.",
    "78": "The configuration is bad.",
    "130": "Interrupted.",
}
ENVIRONMENT = {
    "HA_SOCKET": "The controller's socket, like --socket.",
    "HA_CONFIG": "The configuration file, like --config.",
    "HA_TABLE__KEY": "One setting of the configuration; goes before the files.",
    "NO_COLOR": "No colours.",
}
FILES = {
    DEFAULT_CONFIG: "The configuration; then the files of conf.d/ beside it, in the order of their names.",
    DEFAULT_SOCKET: "Where the running controller is asked.",
    "/var/lib/ha-controller/journal.db": "The durable record: incidents, the trail.",
    "/usr/share/doc/ha-controller/docs": "The documentation.",
}
#: what roff would take for an escape, or print as another sign
SIGNS = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", '"': "\\(dq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"})


def write(folder: Path) -> list[Path]:
    """Write all pages; returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for words, command, context in _tree(commands, click.Context(commands, info_name=PROGRAM, **NAMES), ()):
        path = folder / f"{'-'.join((PROGRAM, *words))}.1"
        path.write_text("\n".join(_page(words, command, context)) + "\n", encoding="ascii")
        written.append(path)
    return written


def _tree(
    command: click.Command, context: click.Context, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    yield words, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.commands[name]
            yield from _tree(inner, click.Context(inner, info_name=name, parent=context, **NAMES), (*words, name))


def _page(words: tuple[str, ...], command: click.Command, context: click.Context) -> Iterator[str]:
    name, told = "-".join((PROGRAM, *words)), inspect.cleandoc(command.help or "").split("\n\n")
    first = " ".join(told[0].split())
    yield f'.TH "{_roff(name.upper())}" 1 "{_date()}" "{PROGRAM} {__version__}" "{PROGRAM}"'
    yield ".SH NAME"
    yield f"{_roff(name)} \\- {_roff(first.rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_roff(' '.join((PROGRAM, *words)))}"
    yield _text(" ".join(command.collect_usage_pieces(context)))
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(told):
        yield from [".PP"] if number else []
        yield from _paragraph(paragraph)
    yield from _listed("OPTIONS", dict(_options(command, context)))
    if isinstance(command, click.Group):
        inner = [command.commands[each] for each in command.list_commands(context)]
        yield from _listed("COMMANDS", {str(each.name): " ".join(_first(each).split()) for each in inner})
    if not words:
        yield from _listed("EXIT STATUS", EXIT_CODES)
        yield from _listed("ENVIRONMENT", ENVIRONMENT)
        yield from _listed("FILES", FILES)
    yield from _see_also(words, command, context)


def _first(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0]


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            yield record


def _see_also(words: tuple[str, ...], command: click.Command, context: click.Context) -> Iterator[str]:
    """The page above, and those below."""
    near = ["-".join((PROGRAM, *words[:-1]))] if words else []
    if isinstance(command, click.Group):
        near += ["-".join((PROGRAM, *words, each)) for each in command.list_commands(context)]
    if near:
        yield ".SH SEE ALSO"
        yield ",\n".join(f".BR {_roff(each)} (1)" for each in near).replace(",\n", " ,\n")


def _listed(title: str, rows: dict[str, str]) -> Iterator[str]:
    if not rows:
        return
    yield f".SH {title}"
    for term, text in rows.items():
        yield ".TP"
        yield f"\\fB{_roff(term)}\\fR"
        yield _text(text)


def _paragraph(text: str) -> Iterator[str]:
    r"""One that begins with \b stays as it is written, line by line."""
    if text.startswith("\b"):
        yield ".nf"
        yield from (_text(line) for line in text.splitlines()[1:])
        yield ".fi"
    else:
        yield _text(" ".join(text.split()))


def _text(text: str) -> str:
    """A line of text: never taken for a request, and never empty, which would be a blank line."""
    shown = _roff(text) or "\\&"
    return f"\\&{shown}" if shown[0] in ".'" else shown


def _roff(text: str) -> str:
    """Text that roff prints as it is: options can be copied, and nothing in it is an escape."""
    shown = text.translate(SIGNS)
    return re.sub(r"[^\x20-\x7e]", lambda found: f"\\[u{ord(found[0]):04X}]", shown)


def _date() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    return f"{moment:%Y-%m-%d}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    sys.stdout.write(f"{len(write(Path(sys.argv[1])))} pages in {sys.argv[1]}\n")
