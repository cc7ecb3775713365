"""Asks a host over SSH which VMs are on it: libvirt's own list, read-only.

A VM may run at the other end of a migration whose one end is dead, or where its start failed in OpenNebula's eyes. Only
a complete list says that one is not there; everything else is "could not be asked". Posts `DomainsRead`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import structlog

from ha_controller.adapters.ssh_login import LoginFailed, SshLogin, run_command
from ha_controller.core.effects import AskDomains
from ha_controller.core.events import DomainsRead, Event
from ha_controller.plugin import Target, one_line

log = structlog.get_logger(__name__)

END = "end of list"
COMMAND = f"LC_ALL=C virsh --readonly --connect qemu:///system list --all && echo {END}"
ASK_TIMEOUT_S = 8.0
_ROW = re.compile(r"(?:-|[0-9]+)\s+one-([0-9]{1,10})\s+(\S.*)")  #: of a stripped line
_HEAD = re.compile(r"\s*Id\s+Name\s+State\s*")
GONE = "shut off"  #: no process is left; in every other state it may go on


class NoList(ValueError):
    """What a host wrote is no complete list of domains."""


class DomainReader:
    """Asks hosts for their domains."""

    def __init__(
        self,
        login: SshLogin | None,
        *,
        targets: Callable[[], Sequence[Target]],
        report: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        """`login` None: nobody may be asked, and every answer says so."""
        self._login, self._targets, self._report, self._clock = login, targets, report, clock

    async def read(self, order: AskDomains) -> None:
        """Ask one host and report exactly one answer."""
        asked_at = self._clock()
        try:
            running, others = await self._ask(order.host)
        except (LoginFailed, NoList) as error:
            log.info("a host does not say which VMs are on it", host=order.host, error=str(error))
            self._report(DomainsRead(host=order.host, asked_at=asked_at, failure=one_line(str(error))))
            return
        self._report(DomainsRead(host=order.host, asked_at=asked_at, running=running, others=others))

    async def _ask(self, host: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self._login is None:
            raise LoginFailed("nobody may log in to hosts: identity.username is not set")
        address = next((target.address for target in self._targets() if target.host == host), "")
        if not address:
            raise LoginFailed("its address is not known")
        output = await run_command(self._login, address, COMMAND, timeout_s=ASK_TIMEOUT_S)
        if output.status != 0:
            raise NoList(f"virsh list ended with exit code {output.status}")
        return domains_in(output.text)


def domains_in(output: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The VMs in the output of `COMMAND`: those that run, and those that are there and do not.

    Raises:
        NoList: it is not complete, or holds a line that cannot be read.
    """
    lines = [line for line in output.splitlines() if line.strip()]
    if len(lines) < 2 or not _HEAD.fullmatch(lines[0]) or lines[-1].strip() != END:
        raise NoList("it gave no complete list of domains (is the key bound to another command?)")
    running, others = [], []
    for line in lines[1:-1]:
        row = _ROW.fullmatch(line.strip())
        if row is None:
            if "one-" in line:
                raise NoList("it gave a list of domains that cannot be read")
            continue  # a domain that is not OpenNebula's, or the ruler below the heading
        if row[2] == "running":
            running.append(int(row[1]))
        elif row[2] != GONE:
            others.append(int(row[1]))
    return tuple(sorted(running)), tuple(sorted(others))
