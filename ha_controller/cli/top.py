"""`ha-controller top`: a live board in the terminal. The same answers as `status`, `hosts`, `incidents` and `events`.

It only reads. A controller that does not answer is told on the board, and asked again.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ha_controller.cli import client, show
from ha_controller.cli.listings import HOSTS

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Json = Any

EVERY_S = 1.0
EVENTS_MAX, INCIDENTS_MAX = 8, 6
SQUARES_FROM = 24  #: with more hosts the well ones have one square each
COLOURS = {"ok": "green", "suspect": "yellow", "failed": "bold red", "fenced": "magenta", "recovered": "cyan"}
SHAPES = {"ok": "●", "suspect": "◐", "failed": "▲", "fenced": "■", "recovered": "◆"}
VERDICT_COLOURS = {0: "bold green", 1: "bold yellow", 4: "bold yellow", 5: "bold white on red"}
KEYS = "q ends   a all hosts / those that are not OK   space now"


@dataclass
class Board:
    """What is shown: the last answers, and why there are no newer ones."""

    status: Json = None
    hosts: list[Json] = field(default_factory=list)
    incidents: list[Json] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    trouble: str = ""
    answered_at: float = 0.0
    all_hosts: bool = False

    def ask(self) -> None:
        """Ask the controller for all of it; what it does not say stays as it was, with a word about it."""
        try:
            self.status = client.request("GET", "/api/v1/status")
            self.hosts = client.request("GET", "/api/v1/hosts")
            self.incidents = [each for each in client.request("GET", "/api/v1/incidents") if each["open"]]
            self.events = client.request("GET", f"/api/v1/events?limit={EVENTS_MAX}&newest=1")
        except client.Failure as failure:
            self.trouble = failure.text
        else:
            self.trouble, self.answered_at = "", time.time()

    def picture(self) -> RenderableType:
        """For rich."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [self._head()]
        if self.trouble:
            since = f" Shown is what it said at {show.clock(self.answered_at)}." if self.answered_at else ""
            parts.append(Text(f"{show.safe(self.trouble)}{since}", style="bold white on red"))
        if self.status is not None:
            parts += [self._counts(), Text(), self._squares(), self._table()]
            parts += [self._incident(each) for each in self.incidents[:INCIDENTS_MAX]]
            parts += [Text(), *map(_event, self.events)]
        return Group(*parts, Text(), Text(KEYS, style="dim"))

    def _head(self) -> RenderableType:
        from rich.text import Text

        if self.status is None:
            return Text("ha-controller: no answer yet", style="bold")
        return Text(show.safe(self.status["verdict"]), style=VERDICT_COLOURS.get(self.status["code"], "bold"))

    def _counts(self) -> RenderableType:
        from rich.text import Text

        answer, line = self.status, Text()
        lead = f"leads, term {answer['term']}" if answer["term"] is not None else "does not lead"
        line.append(f"mode {answer['mode']}   {lead}   ", style="dim")
        for state, shape in SHAPES.items():
            count = answer["hosts"][state]
            line.append(f"{shape} {count} {state}   ", style=COLOURS[state] if count else "dim")
        return line

    def _squares(self) -> RenderableType:
        """The well hosts of a large cloud: a shape each, for all to be seen at once."""
        from rich.text import Text

        if self.all_hosts or len(self.hosts) < SQUARES_FROM:
            return Text()
        line = Text(overflow="fold")
        for host in self.hosts:
            line.append(SHAPES[host["state"]], style=COLOURS[host["state"]])
        return line

    def _table(self) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        shown = self.hosts
        if not self.all_hosts and len(self.hosts) >= SQUARES_FROM:
            shown = [host for host in self.hosts if host["state"] != "ok"]
        columns = [column for column in HOSTS.columns if not column.wide]
        table = Table(*(column.title for column in columns), box=SIMPLE_HEAD, pad_edge=False)
        for host in shown:
            cells = [Text(show.safe(column.value(host))) for column in columns]  # Text: names are no markup
            table.add_row(*cells, style=COLOURS[host["state"]])
        return table

    @staticmethod
    def _incident(record: Json) -> RenderableType:
        from rich.text import Text

        running = sum(vm["stage"] == "running" for vm in record["vms"])
        line = Text(f"Incident {record['id']} {show.safe(record['host_name'])} ", style="bold")
        line.append(f"{record['state'].upper()}  ", style=COLOURS[record["state"]])
        line.append(f"{running} of {len(record['vms'])} VMs run again  ")
        return line.append(show.safe(record["stopped"] or record["hold"]), style="yellow")


def _event(line: Json) -> RenderableType:
    from rich.text import Text

    text = Text(f"{show.clock(line['at'])}  {line['kind']:<8}  {show.safe(line['text'])}", style="dim")
    text.truncate(200, overflow="ellipsis")
    return text


# --- the terminal -----------------------------------------------------------------------------------------------------


@click.command()
def top() -> None:
    """Live board: the verdict, the hosts, open incidents and the newest lines of the trail. Key q ends it."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise client.Failure(2, "This needs a terminal. Without one: ha-controller hosts -w")
    from rich.console import Console

    _run(Board(), Console())


def _run(board: Board, console: Console) -> None:
    from rich.live import Live

    with _single_keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            board.ask()
            live.update(board.picture(), refresh=True)
            deadline = time.monotonic() + EVERY_S
            while (key := _key(deadline - time.monotonic())) == "a":
                board.all_hosts = not board.all_hosts
                live.update(board.picture(), refresh=True)
            if key in ("q", "Q"):
                return


def _key(within_s: float) -> str:
    """The key that was pressed; empty when none was."""
    if within_s <= 0 or not select.select([sys.stdin], [], [], within_s)[0]:
        return ""
    import os

    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or "q"  # the terminal is gone: so are we


@contextmanager
def _single_keys() -> Iterator[None]:
    """Keys come one by one and are not echoed; Ctrl-C works; all is as before afterwards."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
