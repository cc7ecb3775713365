"""The live board of the demo on a terminal: every host's state, how far the incident is, and what waits for what.

Lines that are printed meanwhile scroll above it. Reads the controller's state and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ha_controller.core.incident import Incident, VmStage
from ha_controller.core.model import HostState
from ha_controller.core.state import State

_COLOURS = {
    HostState.OK: "green",
    HostState.SUSPECT: "yellow",
    HostState.FAILED: "bold red",
    HostState.FENCED: "magenta",
    HostState.RECOVERED: "cyan",
}
_PHASES = (HostState.SUSPECT, HostState.FAILED, HostState.FENCED, HostState.RECOVERED)


class Board:
    """Renders itself anew whenever the terminal is refreshed."""

    def __init__(self, state: State, victim: int) -> None:
        """Shows all hosts and the incident of `victim`."""
        self._state, self._victim = state, victim
        self._last: Incident | None = None

    def __rich__(self) -> Group:
        """The picture of now."""
        self._last = self._state.incidents.get(self._victim, self._last)
        rows = [Text(""), self._hosts()]
        if self._last is not None:
            return Group(*rows, self._phases(self._last), self._vms(self._last), self._waits_for(self._last))
        return Group(*rows, Text("  looking closely" if self._suspicious() else "  all hosts answer", style="dim"))

    def _suspicious(self) -> bool:
        return self._state.view(self._victim).state is not HostState.OK

    def _hosts(self) -> Text:
        line = Text("  ")
        for host in sorted(self._state.hosts.values(), key=lambda host: host.id):
            state = self._state.view(host.id).state
            line.append(f"{host.name} ", style="dim")
            line.append(f"{state.upper()}  ", style=_COLOURS[state])
        return line

    @staticmethod
    def _phases(incident: Incident) -> Text:
        line = Text("  ")
        reached = _PHASES.index(incident.state) if incident.state in _PHASES else -1
        for index, phase in enumerate(_PHASES):
            mark = "●" if index < reached else "◉" if index == reached else "○"
            line.append(f"{mark} {phase.upper()}  ", style=_COLOURS[phase] if index <= reached else "dim")
        return line

    @staticmethod
    def _vms(incident: Incident) -> Table:
        running = sum(vm.stage is VmStage.RUNNING for vm in incident.vms)
        row = Table.grid(padding=(0, 1))
        row.add_row(
            Text("  VMs"),
            ProgressBar(total=max(1, len(incident.vms)), completed=running, width=30),
            Text(f"{running} of {len(incident.vms)} run elsewhere"),
        )
        return row

    @staticmethod
    def _waits_for(incident: Incident) -> Text:
        if incident.stopped or incident.hold:
            return Text(f"  {incident.stopped or incident.hold}", style="yellow")
        waiting = {
            HostState.SUSPECT: "waits for enough evidence and for the guards",
            HostState.FAILED: "waits until off was read twice and no channel answers",
            HostState.FENCED: "waits until OpenNebula has noticed, then for each VM to be seen RUNNING",
        }
        return Text(f"  {waiting.get(incident.state, 'done')}", style="dim")


@contextmanager
def shown(state: State, victim: int) -> Iterator[None]:
    """Show the board as long as the block runs."""
    with Live(Board(state, victim), console=Console(), refresh_per_second=8, transient=True):
        yield
