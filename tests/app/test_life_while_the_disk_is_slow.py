"""A commit takes seconds, and a host answers again meanwhile: it is not powered off by what was known before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from world import seen

from ha_controller.core import life
from ha_controller.core.effects import Effect, Fence, ReadHost, ReadPower
from ha_controller.core.events import DrillReported
from ha_controller.core.incident import Incident
from ha_controller.core.model import HostState, Signal
from ha_controller.engine import Commit, Engine

HOST = 3
PROBED_EVERY_S = 0.2
CONDEMNED_AFTER_S = 10.0


class Rig:
    """A production engine around the core of a pretended cloud, and a disk that can be made to stand still."""

    def __init__(self) -> None:
        self.cloud = seen()
        self.fences: list[Fence] = []
        self._disk = anyio.Event()
        self._disk.set()
        self.engine = Engine(
            self.cloud.controller,
            journal=self,
            dispatch=self._dispatch,
            record=lambda events, effects, now: None,
            clock=lambda: self.cloud.now,
        )

    async def commit(self, commit: Commit) -> None:
        await self._disk.wait()

    def stall(self) -> None:
        """From now on a commit does not end."""
        self._disk = anyio.Event()

    def go_on(self) -> None:
        self._disk.set()

    @contextmanager
    def _by_post(self) -> Iterator[None]:
        """What the pretended adapters say comes into the engine's inbox."""
        feed, self.cloud.feed = self.cloud.feed, self.engine.post
        yield
        self.cloud.feed = feed

    def _dispatch(self, effect: Effect) -> None:
        if isinstance(effect, Fence):
            self.fences.append(effect)
        elif isinstance(effect, ReadHost | ReadPower):
            with self._by_post():
                self.cloud._do(effect)

    async def probe(self, *, silent: bool, times: int = 1) -> None:
        """The host is silent on every channel, or answers on each."""
        for _ in range(times):
            if silent:
                self.cloud.dead[HOST] = "on"
            else:
                self.cloud.dead.pop(HOST, None)
            for channel in ("neighbours", "heartbeat"):
                self.cloud.elsewhere[channel][HOST] = Signal.SILENT if silent else Signal.ALIVE
            with self._by_post():
                self.cloud._probe()
            await self.settle()
            self.cloud.now = round(self.cloud.now + PROBED_EVERY_S, 3)

    async def settle(self) -> None:
        """Let the engine do all that it can."""
        for _ in range(50):
            await anyio.lowlevel.checkpoint()


def _rounds(seconds: float) -> int:
    return round(seconds / PROBED_EVERY_S)


async def test_silence_of_which_the_end_waits_in_the_inbox_condemns_nobody():
    rig = Rig()
    async with anyio.create_task_group() as group:
        group.start_soon(rig.engine.run)
        await rig.settle()
        await rig.probe(silent=True, times=_rounds(CONDEMNED_AFTER_S - 3))
        rig.stall()
        rig.engine.post(DrillReported(host=5, request=1, results=(), is_back=True))  # another host's, worth a record
        await rig.settle()
        await rig.probe(silent=True)
        await rig.probe(silent=False, times=_rounds(4.0))
        rig.go_on()
        await rig.settle()
        assert rig.fences == []
        assert rig.cloud.controller.state.view(HOST).state is HostState.OK
        group.cancel_scope.cancel()


@pytest.mark.parametrize("answers", [True, False])
async def test_a_power_off_is_taken_back_if_the_host_answers_while_it_is_put_on_record(answers):
    rig = Rig()
    async with anyio.create_task_group() as group:
        group.start_soon(rig.engine.run)
        await rig.settle()
        await rig.probe(silent=True, times=_rounds(CONDEMNED_AFTER_S - 0.2))
        assert rig.cloud.controller.state.incidents == {}
        rig.stall()
        await rig.probe(silent=True, times=_rounds(1.0))
        incident = rig.cloud.controller.state.incidents[HOST]
        assert incident.attempts  # decided, and not yet on record
        await rig.probe(silent=not answers, times=_rounds(1.0))
        rig.go_on()
        await rig.settle()
        assert bool(rig.fences) is not answers
        assert (HOST in rig.cloud.controller.state.incidents) is not answers
        group.cancel_scope.cancel()


@pytest.mark.parametrize(("verdict", "against"), [("hung", ["ssh"]), ("dead", ["icmp", "ssh"])])
def test_life_that_the_verdict_expects_takes_nothing_back(verdict, against):
    """The kernel of a hung host answers all the time."""
    cloud = seen()
    incident = Incident(
        id=1, host=HOST, host_name="kvm-03", opened_at=cloud.now, state=HostState.FAILED, verdict=verdict
    )
    assert life.unexpected(cloud.controller.state, HOST, incident, ["icmp", "ssh"]) == against
