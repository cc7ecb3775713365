"""Looks at what could make us wrong: our own witnesses (are *we* cut off?), second masters (does somebody else act?).

Reports `SelfChecked` and `SecondMasterLooked`; decides nothing. What cannot be told is reported as None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import anyio
import structlog

from ha_controller.adapters.opennebula import Client, OnedHook, OnedUser, OpenNebulaError
from ha_controller.core.events import Event, SecondMasterLooked, SelfChecked
from ha_controller.plugin import Reading, Signal, Target

log = structlog.get_logger(__name__)

HEARTBEAT = "HA_CONTROLLER"  #: attribute of our own OpenNebula user: instance id and a counter
LOOK_EVERY_S = 15.0  #: also how often a heartbeat is written
WATCH_EVERY_S = 1.5  #: while it is open whether somebody else acts
QUIET_LOOKS_MIN = math.ceil(1.5 * LOOK_EVERY_S / WATCH_EVERY_S)  #: a rival is gone when it missed a beat and a half
WITNESS_TTL_S = 3.0


@dataclass
class Witnesses:
    """Addresses that answer as long as we are connected; probed like hosts, under negative ids."""

    addresses: Sequence[str]
    report: Callable[[Event], None]
    clock: Callable[[], float]
    _alive_at: dict[int, float] = field(default_factory=dict)
    _reported: tuple[bool | None, str] | None = None

    def targets(self) -> list[Target]:
        """The witnesses as probe targets."""
        return [
            Target(host=-1 - index, name=f"witness {address}", address=address)
            for index, address in enumerate(self.addresses)
        ]

    def note(self, readings: Iterable[Reading]) -> None:
        """Take in readings of witnesses."""
        for reading in readings:
            if reading.signal is Signal.ALIVE:
                self._alive_at[reading.host] = max(self._alive_at.get(reading.host, 0.0), reading.sent_at)

    def look(self) -> None:
        """Report a change: a majority of the witnesses must have answered lately."""
        if not self.addresses:
            return
        now = self.clock()
        answering = sum(now - at <= WITNESS_TTL_S for at in self._alive_at.values())
        needed = len(self.addresses) // 2 + 1
        detail = f"{answering} of {len(self.addresses)} witnesses answer (need {needed})"
        found = (answering >= needed, detail)
        if found != self._reported:
            self._reported = found
            self.report(SelfChecked(ok=found[0], detail=detail))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await anyio.sleep(0.2)


@dataclass
class SecondMaster:
    """Looks for active failure hooks of OpenNebula and for other controllers that write their heartbeat."""

    client: Client
    instance: str
    acts: Callable[[], bool]  #: False in mode observe: then nothing is written
    report: Callable[[Event], None]
    peers: Callable[[], Collection[str]] = tuple  #: instances of the same election: they are no rivals
    last: SecondMasterLooked = field(default_factory=lambda: SecondMasterLooked(present=None, detail="not looked yet"))
    _counter: int = 0
    _peers: set[str] = field(default_factory=set)  #: all that were ever seen
    _foreign: str | None = None  #: heartbeat of another instance as last seen
    _quiet_looks: int = 0  #: how often it was seen unchanged

    async def run(self) -> None:
        """Look until cancelled; often, while a dead predecessor has to be told from a living rival."""
        while True:
            await self.look()
            await anyio.sleep(LOOK_EVERY_S if self.last.present is False else WATCH_EVERY_S)

    async def look(self) -> None:
        """Look once and report."""
        try:
            user = await self.client.user()
            hooks = await self.client.hooks()
            found = self._judge(user, hooks)
            if found.present is False and self.acts():
                self._counter += 1
                await self.client.update_user(user.id, {HEARTBEAT: f"{self.instance} {self._counter}"})
        except OpenNebulaError as error:
            found = SecondMasterLooked(present=None, detail=str(error))
        self.last = found
        self.report(found)

    def _judge(self, user: OnedUser, hooks: Sequence[OnedHook]) -> SecondMasterLooked:
        if acting := [hook for hook in hooks if restarts_vms(hook)]:
            names = ", ".join(f"{hook.name} (id {hook.id}, {hook.command})" for hook in acting)
            detail = f"active hook in OpenNebula: {names}. Remove it: onehook delete {acting[0].id}"
            return SecondMasterLooked(present=True, detail=detail)
        rival = self._rival(user)
        if rival is not None:
            return rival
        if not user.in_oneadmin and not hooks:
            detail = (
                f"user {user.name} is not in the group oneadmin and sees no hooks, so a failure hook cannot be "
                'excluded; if there is none, set guard.second_master = "none"'
            )
            return SecondMasterLooked(present=None, detail=detail)
        return SecondMasterLooked(present=False, detail="no failure hook and no other controller")

    def _rival(self, user: OnedUser) -> SecondMasterLooked | None:
        """Another instance is alive if its counter moves; None if there is none."""
        beat = user.template.get(HEARTBEAT, "")
        self._peers.update(self.peers())
        if not beat or beat.split()[0] in (self.instance, *self._peers):
            self._foreign, self._quiet_looks = None, 0
            return None
        before, self._foreign = self._foreign, beat
        if before is None or before.split()[0] != beat.split()[0]:
            self._quiet_looks = 0
            detail = f"another controller ({beat.split()[0]}) was here; watching it"
            return SecondMasterLooked(present=None, detail=detail)
        if before != beat:
            self._quiet_looks = 0
            return SecondMasterLooked(present=True, detail=f"another controller is active: {beat.split()[0]}")
        return self._silent_rival(beat)

    def _silent_rival(self, beat: str) -> SecondMasterLooked | None:
        self._quiet_looks += 1
        if self._quiet_looks < QUIET_LOOKS_MIN:
            return SecondMasterLooked(present=None, detail=f"waiting whether controller {beat.split()[0]} still lives")
        return None


def restarts_vms(hook: OnedHook) -> bool:
    """Whether a hook acts on failed hosts or starts VMs by itself (stock: ft/host_error.rb, autostart)."""
    on_failure = hook.resource.upper() == "HOST" and hook.state.upper() == "ERROR"
    return on_failure or "host_error" in hook.command or "autostart" in hook.command
