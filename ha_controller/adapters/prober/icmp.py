"""The `icmp` channel: one echo request per host and turn, all hosts over one socket per address family.

An answer proves that the host's kernel runs, and no more. Sockets are read only when the prober calls, so nothing here
runs in between. Requests carry a random nonce and a number in their payload: a reply counts only if both are ours, it
comes from the address that was asked, and the question is still open. (Sequence numbers alone would not do: with 16
bits fping 5.1 runs out at 6,553 hosts per second, schweikert/fping #385.)

It must never take somebody's "unreachable" for the host's silence: what routers and our own kernel tell is read from
the socket's error queue and becomes UNKNOWN.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import repeat

from ha_controller.adapters.prober.ping_socket import BATCH, ICMP, ICMPV6, Family, PingSocket, without_zone
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
)

_ALIVE = Signal.ALIVE  #: looked up once
_REMEDY = (
    "allow unprivileged ping to the controller's group with "
    '`sysctl -w net.ipv4.ping_group_range="0 2147483647"` (for IPv6, too), or give the service CAP_NET_RAW'
)


class IcmpConfig(ProbeConfig):
    """Settings of `[channel.icmp]`."""

    timeout_s: Duration = duration_field("500ms", key="timeout", longest="10s")


_Question = tuple[Target, float, bytes]  #: who was asked, when, and the address that must answer


class IcmpProbe(Probe[IcmpConfig]):
    """Pings hosts. A host may have several questions under way."""

    kind = "icmp"
    config_model = IcmpConfig
    domain = Domain.MANAGEMENT
    proves_userland = False

    def __init__(self, config: IcmpConfig, context: ProbeContext) -> None:
        super().__init__(config, context)
        self._sockets: dict[Family, PingSocket] = {}
        self._refusals: dict[Family, str] = {}
        self._pending: dict[int, _Question] = {}  # by number: in the order in which they left
        self._readings: list[Reading] = []
        self._number = 0

    async def open(self) -> str:
        """Open one socket per address family: unprivileged where allowed, else raw.

        Raises:
            ProbeUnavailable: neither is allowed.
        """
        for family in (ICMP, ICMPV6):
            try:
                self._sockets[family] = PingSocket(family)
            except OSError as error:
                self._refusals[family] = f"{family.title}: {error.strerror}"
        if not self._sockets:
            raise ProbeUnavailable(f"no ICMP socket ({'; '.join(self._refusals.values())}): {_REMEDY}")
        return "; ".join([*(ping.description for ping in self._sockets.values()), *self._refusals.values()])

    async def close(self) -> None:
        """Close the sockets and forget the questions."""
        for ping in self._sockets.values():
            ping.close()
        self._sockets.clear()
        self._refusals.clear()
        self._pending.clear()
        self._readings.clear()

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Send one echo request to each target."""
        sixes = [target for target in targets if ":" in target.address]
        fours = [target for target in targets if ":" not in target.address] if sixes else targets
        for family, asked in ((ICMP, fours), (ICMPV6, sixes)):
            for start in range(0, len(asked), BATCH):
                self._ask(family, asked[start : start + BATCH], now)
                self._hear()

    def collect(self, now: float) -> list[Reading]:
        """Read what has come in, and only then call the overdue silent: a late look must not make a host late."""
        self._hear()
        overdue = []
        for number, (_, sent_at, _) in self._pending.items():
            if now - sent_at < self.config.timeout_s:
                break
            overdue.append(number)
        for number in overdue:
            self._end(number, Signal.SILENT, "timeout")
        readings, self._readings = self._readings, []
        return readings

    def _ask(self, family: Family, targets: Sequence[Target], now: float) -> None:
        """Send a batch. All are pending at first; about those that could not be asked it is told at once."""
        ping = self._sockets.get(family)
        if ping is None:
            for target in targets:
                self._tell(target.host, Signal.UNKNOWN, self._refusals.get(family, "the channel is closed"), now)
            return
        try:
            names = [ping.name_of(target.address) for target in targets]
        except OSError:
            targets, names = self._those_with_names(ping, targets, now)
        first = self._number + 1
        self._number += len(targets)
        questions = zip(targets, repeat(now), map(ping.address_in, names), strict=False)
        self._pending.update(zip(range(first, self._number + 1), questions, strict=True))
        for index, error in ping.send(names, first):
            self._end(first + index, Signal.UNKNOWN, f"not sent: {error.strerror}")

    def _those_with_names(
        self, ping: PingSocket, targets: Sequence[Target], now: float
    ) -> tuple[list[Target], list[bytes]]:
        found: dict[Target, bytes] = {}
        for target in targets:
            try:
                found[target] = ping.name_of(target.address)
            except OSError as error:
                self._tell(target.host, Signal.UNKNOWN, f"not sent: {error.strerror or error}", now)
        return [*found], [*found.values()]

    def _hear(self) -> None:
        """The hot path: every answer comes by."""
        pending, readings = self._pending, self._readings
        for ping in self._sockets.values():
            for address, number in ping.replies():
                question = pending.get(number)
                if question is not None and question[2] == address:
                    del pending[number]
                    readings.append(Reading(host=question[0].host, signal=_ALIVE, sent_at=question[1]))
            for asked, sequence, code in ping.errors():
                self._hear_error(asked, sequence, code)

    def _hear_error(self, asked: str, sequence: int, code: int) -> None:
        """A short quote in an "unreachable" still shows the low 16 bits of the number: the last that fits is meant."""
        number, oldest = (
            self._number - ((self._number - sequence) & 0xFFFF),
            next(iter(self._pending), self._number + 1),
        )
        while number >= oldest:
            question = self._pending.get(number)
            if question is not None and without_zone(question[0].address) == asked:
                self._end(number, Signal.UNKNOWN, os.strerror(code).lower())
                return
            number -= 1 << 16

    def _end(self, number: int, signal: Signal, detail: str) -> None:
        target, sent_at, _ = self._pending.pop(number)
        self._tell(target.host, signal, detail, sent_at)

    def _tell(self, host: int, signal: Signal, detail: str, sent_at: float) -> None:
        self._readings.append(Reading(host=host, signal=signal, sent_at=sent_at, detail=detail))
