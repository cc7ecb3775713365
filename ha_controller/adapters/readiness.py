"""Asks VMs whether they are ready: a port by a TCP handshake, or the guest agent through their host's libvirt.

Nothing is sent to a port. Addresses are literal and come from OpenNebula. Each question has its deadline, and so has
the waiting for its turn; a host that hangs holds up its own VMs only. Posts one `ReadyRead` for each `AskReady`.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Callable, Sequence

import anyio
import structlog

from ha_controller.adapters.ssh_login import LoginFailed, SshLogin, run_command
from ha_controller.core.effects import AskReady
from ha_controller.core.events import Event, Readiness, ReadyRead
from ha_controller.core.resources import ReadyBy, ReadyGate
from ha_controller.plugin import Target, one_line

log = structlog.get_logger(__name__)

#: first come, first asked: who loses its place too soon is never asked, however many answer (the core waits longer)
TURN_MAX_S = 120.0
CONNECT_MAX_S = 3.0
AGENT_MAX_S = 8.0  #: the login included
AGENT_ANSWERS_WITHIN_S = 3
PORTS_AT_ONCE = 200  #: nearly all of the time of one that does not answer is waiting
AGENTS_AT_ONCE = 4  #: of one host; sshd takes ten logins at once at the most

#: what libvirt writes, and what that means (src/qemu/qemu_domain.c); the first that fits
_ANSWERS = (
    ('{"return":{}}', Readiness.READY, ""),
    ("not configured", Readiness.UNKNOWN, "it has no channel for a guest agent"),
    ("agent is not", Readiness.NOT_YET, "its guest agent does not answer"),
    ("domain is not running", Readiness.NOT_YET, "its domain does not run"),
    ("failed to get domain", Readiness.UNKNOWN, "its host has no such domain"),
)

Answer = tuple[Readiness, str]


def command_for(vm: int) -> str:
    """What is run on the host. The domain's name is made of a number: nothing of it comes from outside."""
    ask = f"qemu-agent-command --timeout {AGENT_ANSWERS_WITHIN_S} one-{vm:d}"
    return f'LC_ALL=C virsh --connect qemu:///system {ask} \'{{"execute":"guest-ping"}}\' 2>&1'


class ReadinessAsker:
    """Carries out `AskReady`."""

    def __init__(
        self,
        login: SshLogin | None,
        *,
        targets: Callable[[], Sequence[Target]],
        report: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        """`login` None: no host may be asked for a guest agent, and every answer says so."""
        self._login, self._targets, self._report, self._clock = login, targets, report, clock
        self._ports = anyio.CapacityLimiter(PORTS_AT_ONCE)
        self._agents: dict[int | None, anyio.CapacityLimiter] = {}

    async def ask(self, order: AskReady) -> None:
        """Ask once, and report exactly one answer."""
        asked_at = self._clock()
        readiness, detail = Readiness.UNKNOWN, f"{order.gate}: its turn did not come within {TURN_MAX_S:g} s"
        with anyio.move_on_after(TURN_MAX_S) as waiting:
            async with self._turns_of(order):
                waiting.deadline = math.inf  # the question has its own
                match order.gate.by:
                    case ReadyBy.TCP:
                        readiness, detail = await self._ask_port(order.gate)
                    case ReadyBy.AGENT:
                        readiness, detail = await self._ask_agent(order)
        log.debug("a VM was asked whether it is ready", vm=order.vm, readiness=readiness.value, detail=detail)
        self._report(
            ReadyRead(vm=order.vm, incident=order.incident, asked_at=asked_at, readiness=readiness, detail=detail)
        )

    def _turns_of(self, order: AskReady) -> anyio.CapacityLimiter:
        if order.gate.by is ReadyBy.TCP:
            return self._ports
        return self._agents.setdefault(order.host, anyio.CapacityLimiter(AGENTS_AT_ONCE))

    async def _ask_port(self, gate: ReadyGate) -> Answer:
        if not gate.address:
            return Readiness.UNKNOWN, f"{gate} cannot be asked: OpenNebula knows no address of the VM"
        try:
            with anyio.fail_after(CONNECT_MAX_S):
                code = await _connect(gate.address, gate.port)
        except TimeoutError:
            return Readiness.NOT_YET, f"{gate} does not answer"
        except OSError as error:
            code = error.errno or errno.EIO
        match code:
            case 0:
                return Readiness.READY, ""
            case errno.ECONNREFUSED | errno.ECONNRESET:
                return Readiness.NOT_YET, f"{gate} refuses connections"
            case _:
                return Readiness.UNKNOWN, f"{gate} cannot be asked: {os.strerror(code).lower()}"

    async def _ask_agent(self, order: AskReady) -> Answer:
        address = next((target.address for target in self._targets() if target.host == order.host), "")
        if self._login is None:
            why = "nobody may log in to hosts: identity.username is not set"
        elif order.host is None or not address:
            why = "the address of its host is not known"
        else:
            try:
                output = await run_command(self._login, address, command_for(order.vm), timeout_s=AGENT_MAX_S)
                return agent_says(output.text)
            except LoginFailed as error:
                why = one_line(str(error))
        return Readiness.UNKNOWN, f"{order.gate} cannot be asked: {why}"


def agent_says(output: str) -> Answer:
    """What the output of `command_for` means; nothing of it is shown."""
    for words, readiness, detail in _ANSWERS:
        if words in output:
            return readiness, detail
    return Readiness.UNKNOWN, "virsh on its host says neither yes nor no (is the key bound to another command?)"


async def _connect(address: str, port: int) -> int:
    """A handshake, and its end at once; returns an errno, 0 if it was answered."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as client:
        code = client.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            await anyio.wait_writable(client)
            code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return code
