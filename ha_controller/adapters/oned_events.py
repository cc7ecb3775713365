"""Hears oned's event publisher (ZeroMQ, `HM_MAD` in oned.conf): something happened to this host, to that VM.

A reason to look, and nothing more: PUB/SUB loses messages without a word, anybody could publish in oned's place, and a
body is never even read. It must never be needed: when nothing comes, everything goes on at the pace of the polls.
Bounded: messages of `MESSAGE_BYTES_MAX`, `WAITING_MAX` of them, `FRAMES_AT_ONCE` in a turn, and a rest after each turn.

Topics as observed on oned 7.4.0: `EVENT HOST 0/ERROR/ ` and `EVENT VM 5/ACTIVE/UNKNOWN `, each with a body as second
frame. Needs pyzmq, the extra `events`; it is imported by nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
import structlog
import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

log = structlog.get_logger(__name__)

TOPICS = (b"EVENT HOST ", b"EVENT VM ")  #: the others say the same once more, or are about calls
_TOPIC = re.compile(rb"EVENT (HOST|VM) ([0-9]{1,9})/")
MESSAGE_BYTES_MAX = 1 << 20  #: a longer one ends the connection; it is opened again
WAITING_MAX = 64  #: more are dropped by the publisher
FRAMES_AT_ONCE = 256
REST_S = 0.05
AGAIN_FIRST_S, AGAIN_LONGEST_S = 0.5, 30.0
_MS = 1000
_ENDS = frozenset(
    {
        zmq.EVENT_DISCONNECTED,
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    }
)


@dataclass(kw_only=True)
class Heard:
    """What became of the listening, for people."""

    connected: bool = False
    hosts: int = 0  #: events
    vms: int = 0
    strange: int = 0  #: messages that are no event
    trouble: str = ""


class EventListener:
    """Tells of each event whose it is. Runs until cancelled."""

    def __init__(
        self,
        address: str,
        *,
        host: Callable[[int], None],
        vm: Callable[[int], None],
        missed: Callable[[], None],
    ) -> None:
        """`host` and `vm` get ids. `missed`: events may have been lost. All return at once and do not raise."""
        self._address, self._host, self._vm, self._missed = address, host, vm, missed
        self.heard = Heard()

    async def run(self) -> None:
        """Listen; open the connection again, after a wait that grows, whenever it has ended.

        Raises:
            zmq.ZMQError: there is no way to this address.
        """
        pause_s = AGAIN_FIRST_S
        while True:
            began_at = anyio.current_time()
            try:
                await self._connection()
            finally:
                self.heard.connected = False
            lasted = anyio.current_time() - began_at >= AGAIN_LONGEST_S
            pause_s = AGAIN_FIRST_S if lasted else min(2 * pause_s, AGAIN_LONGEST_S)
            await anyio.sleep(pause_s)

    async def _connection(self) -> None:
        """One, to its end. The library itself waits for a publisher; it gives up for good on one that errs."""
        with _socket() as socket:
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, socket)
                monitor = socket.get_monitor_socket()
                socket.connect(self._address)
                await self._until_it_ends(monitor)
                group.cancel_scope.cancel()

    async def _until_it_ends(self, monitor: zmq.asyncio.Socket) -> None:
        while (event := (await recv_monitor_message(monitor))["event"]) not in _ENDS:
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                log.info("events of OpenNebula are heard", address=self._address)
                self.heard.connected, self.heard.trouble = True, ""
                self._missed()  # whatever happened before
        if self.heard.connected:
            log.warning("events of OpenNebula are not heard any more; it is polled as ever", address=self._address)
        self.heard.trouble = "the connection ended" if self.heard.connected else "what answers is no publisher"

    async def _listen(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            await socket.poll()
            frames = await self._drain(socket)
            if frames >= FRAMES_AT_ONCE:
                self._missed()  # it comes faster than we want to read: the publisher drops what we leave
            await anyio.sleep(REST_S)

    async def _drain(self, socket: zmq.asyncio.Socket) -> int:
        """Take what waits, within bounds; returns how many frames that were. Of a message only the first counts."""
        for frames in range(FRAMES_AT_ONCE):
            begins = not socket.rcvmore
            try:
                frame = await socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return frames
            if begins:
                self._take(frame)
        return FRAMES_AT_ONCE

    def _take(self, topic: bytes) -> None:
        found = _TOPIC.match(topic)
        if found is None:
            self.heard.strange += 1
        elif found[1] == b"HOST":
            self.heard.hosts += 1
            self._host(int(found[2]))
        else:
            self.heard.vms += 1
            self._vm(int(found[2]))


@contextmanager
def _socket() -> Iterator[zmq.asyncio.Socket]:
    context = zmq.asyncio.Context()
    try:
        socket = context.socket(zmq.SUB)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IPV6, 1),
            (zmq.RCVHWM, WAITING_MAX),
            (zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX),
            (zmq.CONNECT_TIMEOUT, 5 * _MS),
            (zmq.HANDSHAKE_IVL, 5 * _MS),
            (zmq.RECONNECT_IVL, int(AGAIN_FIRST_S * _MS)),
            (zmq.RECONNECT_IVL_MAX, int(AGAIN_LONGEST_S * _MS)),
            (zmq.HEARTBEAT_IVL, 10 * _MS),  # a publisher that vanished without a word is noticed
            (zmq.HEARTBEAT_TIMEOUT, 30 * _MS),
        ):
            socket.setsockopt(option, value)
        for topic in TOPICS:
            socket.subscribe(topic)
        yield socket
    finally:
        context.destroy(linger=0)
