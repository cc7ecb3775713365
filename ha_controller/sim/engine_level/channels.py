"""Channels as a plugin brings them, for the pretended hosts: what each shows is the truth about the way to it.

Answers are there at the next look, silence after its time-out only. The channels `bmc` and `oned` are the real ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ha_controller.plugin import Domain, Probe, ProbeConfig, Reading, Signal, SlowProbeConfig, Target

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Life

TIMEOUT_S = 0.5


class _Channel(Probe[ProbeConfig]):
    """Asks the truth."""

    config_model: ClassVar[type[ProbeConfig]] = ProbeConfig
    life: ClassVar[Life]
    timeout_s: ClassVar[float] = TIMEOUT_S

    def __init__(self, config: ProbeConfig, context: Any) -> None:
        super().__init__(config, context)
        self._heard: list[Reading] = []
        self._silent: deque[tuple[float, Reading]] = deque()

    async def open(self) -> str:
        """Nothing to open."""
        return "pretended"

    async def close(self) -> None:
        """Nothing to close."""

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Ask."""
        life = self.life
        life.here()
        if life.world.trouble.strikes("channel-raises"):
            raise LookupError(f"bug in the channel {self.kind}")
        for target in targets:
            life.world.judge.host_asked(life.process, self.kind, target.host)
            reading = self._ask(target.host, now)
            if reading.signal is Signal.ALIVE:
                self._heard.append(reading)
            else:
                self._silent.append((now + self.timeout_s, reading))

    def collect(self, now: float) -> list[Reading]:
        """What is known by now."""
        heard, self._heard = self._heard, []
        if heard and self.life.world.trouble.strikes("channel-nonsense"):
            return cast(list[Reading], self.life.world.dice.choice((None, [None], ["alive"])))
        while self._silent and self._silent[0][0] <= now:
            heard.append(self._silent.popleft()[1])
        return heard

    def _ask(self, host: int, now: float) -> Reading:
        raise NotImplementedError

    def _reaches(self, host: int) -> bool:
        return self.life.world.sight.reaches_host(self.life.process, host)

    def _answers(self, host: int, answers: bool, now: float) -> Reading:
        world = self.life.world
        loss = world.truth.lossy.get(host, 0.0)
        is_heard = answers and self._reaches(host) and not (loss and world.dice.random() < loss)
        return Reading(host=host, signal=Signal.ALIVE if is_heard else Signal.SILENT, sent_at=now)


class _Icmp(_Channel):
    kind = "icmp"
    domain = Domain.MANAGEMENT
    proves_userland = False

    def _ask(self, host: int, now: float) -> Reading:
        if host < 0:  # the gateway
            return Reading(host=host, signal=Signal.ALIVE, sent_at=now)
        return self._answers(host, self.life.world.truth.kernel_answers(host), now)


class _Ssh(_Channel):
    kind = "ssh"
    domain = Domain.MANAGEMENT

    def _ask(self, host: int, now: float) -> Reading:
        return self._answers(host, host >= 0 and self.life.world.truth.answers(host), now)


class _Neighbours(_Channel):
    kind = "neighbours"
    domain = Domain.VANTAGE
    suspects_only = True
    proves_userland = False
    watched_every_s = 1.0
    timeout_s = 1.0

    def _ask(self, host: int, now: float) -> Reading:
        truth = self.life.world.truth
        able = [each.host for each in self.context.neighbours(host) if truth.answers(each.host)]
        signal = Signal.ALIVE if truth.neighbours_see(host) else Signal.SILENT
        return Reading(host=host, signal=signal if len(able) > 1 else Signal.UNKNOWN, sent_at=now)


class _Storage(_Channel):
    kind = "storage"
    domain = Domain.STORAGE

    def _ask(self, host: int, now: float) -> Reading:
        beats = host >= 0 and self.life.world.truth.beats(host)
        return Reading(host=host, signal=Signal.ALIVE if beats else Signal.SILENT, sent_at=now)


class _BootId(_Channel):
    kind = "boot-id"
    domain = Domain.SELF
    config_model = SlowProbeConfig
    watched_every_s = 1.0
    timeout_s = 5.0

    def _ask(self, host: int, now: float) -> Reading:
        world = self.life.world
        if host < 0 or not (world.truth.answers(host) and self._reaches(host)):
            return Reading(host=host, signal=Signal.UNKNOWN, sent_at=now, detail="no login")
        boot, booted_at = f"boot {host}.{world.truth.machines[host].boots}", world.booted_at[host]
        return Reading(host=host, signal=Signal.ALIVE, sent_at=now, boot_id=boot, booted_at=booted_at)


def channels_of(life: Life) -> dict[str, type[Probe[ProbeConfig]]]:
    """The classes that one life of a controller finds, by their kinds."""
    made: dict[str, Any] = {
        each.kind: type(each.__name__, (each,), {"life": life})
        for each in (_Icmp, _Ssh, _Neighbours, _Storage, _BootId)
    }
    return made
