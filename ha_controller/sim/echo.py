"""The `echo` channel of the embedded cloud: a pretended host lives while it sends datagrams back unchanged.

Real datagrams on the loopback network, so that the demo runs the production prober with nothing replaced. The prober
brings the targets and takes the readings; the other end is the embedded cloud. Never of use for real hosts.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from ha_controller.plugin import (
    Domain,
    Duration,
    Probe,
    ProbeConfig,
    ProbeContext,
    ProbeUnavailable,
    Reading,
    Signal,
    Target,
    duration_field,
    hookimpl,
)

_DATAGRAM = struct.Struct("!8sQ")  # a nonce of this process, the number of the question
_DRAIN_MAX = 4096  # datagrams read in one go: a flood must not hold up the loop


class EchoConfig(ProbeConfig):
    """Settings of `[channel.echo]`."""

    port: int
    timeout_s: Duration = duration_field("500ms", key="timeout")


class _Question(NamedTuple):
    host: int
    address: str
    sent_at: float


class EchoProbe(Probe[EchoConfig]):
    """Sends one datagram to each host's port and waits for it to come back."""

    kind = "echo"
    config_model = EchoConfig
    domain = Domain.MANAGEMENT

    def __init__(self, config: EchoConfig, context: ProbeContext) -> None:
        super().__init__(config, context)
        self._socket: socket.socket | None = None
        self._nonce = secrets.token_bytes(8)
        self._questions: dict[int, _Question] = {}  # by number, which is the order in which they left
        self._number = 0
        self._readings: list[Reading] = []

    async def open(self) -> str:
        """Open the socket.

        Raises:
            ProbeUnavailable: the system has no socket for us.
        """
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise ProbeUnavailable(f"no UDP socket: {error.strerror}") from error
        return f"UDP port {self.config.port} of pretended hosts"

    async def close(self) -> None:
        """Close the socket and forget the questions."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._questions.clear()
        self._readings.clear()

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Send one datagram to each target."""
        for target in targets:
            self._number += 1
            refusal = self._send(target.address)
            if refusal:
                self._tell(target.host, Signal.UNKNOWN, refusal, sent_at=now)
            else:
                self._questions[self._number] = _Question(target.host, target.address, now)

    def collect(self, now: float) -> list[Reading]:
        """Read what has come back, and only then call the overdue silent."""
        self._hear()
        overdue = []
        for number, question in self._questions.items():
            if now - question.sent_at < self.config.timeout_s:
                break
            overdue.append(number)
        for number in overdue:
            question = self._questions.pop(number)
            self._tell(question.host, Signal.SILENT, "timeout", sent_at=question.sent_at)
        readings, self._readings = self._readings, []
        return readings

    def _send(self, address: str) -> str:
        """Why it could not be sent; empty if it was."""
        if self._socket is None:
            return "the channel is closed"
        try:
            self._socket.sendto(_DATAGRAM.pack(self._nonce, self._number), (address, self.config.port))
        except OSError as error:
            return f"not sent: {error.strerror}"
        return ""

    def _hear(self) -> None:
        listener = self._socket
        if listener is None:
            return
        for _ in range(_DRAIN_MAX):
            try:
                self._hear_one(*listener.recvfrom(64))
            except OSError:  # nothing left
                return

    def _hear_one(self, datagram: bytes, source: tuple[str, int]) -> None:
        if len(datagram) != _DATAGRAM.size:
            return
        nonce, number = _DATAGRAM.unpack(datagram)
        question = self._questions.get(number)
        if nonce == self._nonce and question is not None and source == (question.address, self.config.port):
            del self._questions[number]
            self._tell(question.host, Signal.ALIVE, "", sent_at=question.sent_at)

    def _tell(self, host: int, signal: Signal, detail: str, *, sent_at: float) -> None:
        self._readings.append(Reading(host=host, signal=signal, sent_at=sent_at, detail=detail))


@hookimpl
def ha_controller_probes() -> Sequence[type[Probe[Any]]]:
    """Return the one channel of this module."""
    return [EchoProbe]
