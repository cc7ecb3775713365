"""The conformance suite for channels itself: good channels pass all checks, and each check catches one made to fail it.

Hosts are pretended here, in memory, since what is under test is the suite.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import anyio
import pytest
from pydantic import ConfigDict, SecretStr

from ha_controller.plugin import (
    Domain,
    PowerState,
    Probe,
    ProbeConfig,
    ProbeContext,
    ProbeUnavailable,
    Reading,
    Signal,
    Target,
)
from ha_controller.testing import PROBE_CHECKS, ConformanceFailure, ProbeCheck, probe_checks, probe_tools

PASSWORD = "right-password-1"
ANSWERS_AFTER_S = 0.02
TIMEOUT_S = 0.5


class Cloud:
    """Hosts in memory, and what is broken."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self.babbling: set[int] = set()
        self.broken = False


class GoodConfig(ProbeConfig):
    password: SecretStr
    timeout_s: float = TIMEOUT_S


@dataclass
class Question:
    target: Target
    sent_at: float
    asked_at: float


class GoodProbe(Probe[Any]):
    """Keeps the contract; the others below break it in one point each."""

    kind: ClassVar[str] = "pretended"
    config_model: ClassVar[type[ProbeConfig]] = GoodConfig
    domain = Domain.MANAGEMENT
    cloud: Cloud

    def __init__(self, config: Any, context: ProbeContext) -> None:
        super().__init__(config, context)
        self.under_way: list[Question] = []

    def password(self) -> str:
        return str(self.config.password.get_secret_value())

    async def open(self) -> str:
        return "in memory"

    async def close(self) -> None:
        self.under_way.clear()

    def launch(self, targets: Sequence[Target], now: float) -> None:
        self.under_way += [Question(target, now, time.monotonic()) for target in targets]

    def collect(self, now: float) -> list[Reading]:
        judged = [(question, self.judge(question)) for question in self.under_way]
        self.under_way = [question for question, said in judged if said is None]
        return [
            Reading(host=question.target.host, signal=said[0], sent_at=question.sent_at, detail=said[1])
            for question, said in judged
            if said is not None
        ]

    def judge(self, question: Question) -> tuple[Signal, str] | None:
        age_s, host = time.monotonic() - question.asked_at, question.target.host
        if self.cloud.broken:
            return self.own_fault()
        if host in self.cloud.dead:
            return None if age_s < TIMEOUT_S else (Signal.SILENT, "timeout")
        if age_s < ANSWERS_AFTER_S:
            return None
        return self.nonsense() if host in self.cloud.babbling else (Signal.ALIVE, "")

    def own_fault(self) -> tuple[Signal, str]:
        return Signal.UNKNOWN, "no socket"

    def nonsense(self) -> tuple[Signal, str]:
        return Signal.UNKNOWN, "that makes no sense"


class PowerProbe(GoodProbe):
    """A good channel that sees power, of suspects only, and says in `open` when it cannot work."""

    domain = Domain.POWER
    suspects_only = True

    async def open(self) -> str:
        if self.cloud.broken:
            raise ProbeUnavailable("no port: use another")
        return "in memory"

    def launch(self, targets: Sequence[Target], now: float) -> None:
        assert all(target.close_watch for target in targets)
        super().launch(targets, now)

    def judge(self, question: Question) -> tuple[Signal, str] | None:
        said = super().judge(question)
        words = {Signal.ALIVE: Signal.ON, Signal.SILENT: Signal.OFF}
        return said and (words.get(said[0], said[0]), said[1])


class OddKind(GoodProbe):
    kind = "Odd Kind"


class WithoutDomain(GoodProbe):
    domain = "network"  # type: ignore[assignment]


class OpensWithoutAWord(GoodProbe):
    async def open(self) -> str:
        return ""


class RaisesWhenItCannotWork(GoodProbe):
    async def open(self) -> str:
        if self.cloud.broken:
            raise OSError(98, "Address already in use")
        return "in memory"


class LooseConfig(GoodConfig):
    model_config = ConfigDict(extra="allow")


class LooseSettings(GoodProbe):
    config_model = LooseConfig


class OpenConfig(ProbeConfig):
    password: str
    timeout_s: float = TIMEOUT_S


class OpenPassword(GoodProbe):
    config_model = OpenConfig

    def password(self) -> str:
        return str(self.config.password)


class SeesNoDeath(GoodProbe):
    """Asks a cache."""

    def judge(self, question: Question) -> tuple[Signal, str] | None:
        return Signal.ALIVE, "as before"


class CallsTheLivingDead(GoodProbe):
    asked = 0

    def judge(self, question: Question) -> tuple[Signal, str] | None:
        said = super().judge(question)
        self.asked += said is not None
        return (Signal.SILENT, "timeout") if said and self.asked == 1 else said


class TakesTheFirstAnswerForAnybodys(GoodProbe):
    def collect(self, now: float) -> list[Reading]:
        readings = super().collect(now)
        return readings + [replace(reading, host=reading.host + 1) for reading in readings]


class ForgetsTheDead(GoodProbe):
    def judge(self, question: Question) -> tuple[Signal, str] | None:
        return None if question.target.host in self.cloud.dead else super().judge(question)


class AnswersTwice(GoodProbe):
    def collect(self, now: float) -> list[Reading]:
        return super().collect(now) * 2


class NeverAnswersAgain(GoodProbe):
    known: frozenset[int] = frozenset()

    def launch(self, targets: Sequence[Target], now: float) -> None:
        super().launch([target for target in targets if target.host not in self.known], now)
        self.known |= {target.host for target in targets}


class SleepsInLaunch(GoodProbe):
    def launch(self, targets: Sequence[Target], now: float) -> None:
        time.sleep(0.08)
        super().launch(targets, now)


class SleepsInCollect(GoodProbe):
    def collect(self, now: float) -> list[Reading]:
        if self.under_way:
            time.sleep(0.08)
        return super().collect(now)


class AsksOneAfterTheOther(GoodProbe):
    def collect(self, now: float) -> list[Reading]:
        later, self.under_way = self.under_way[1:], self.under_way[:1]
        readings = super().collect(now)
        self.under_way += later
        return readings


class BlamesTheHosts(GoodProbe):
    def own_fault(self) -> tuple[Signal, str]:
        return Signal.SILENT, "timeout"


class GivesNoReason(GoodProbe):
    def own_fault(self) -> tuple[Signal, str]:
        return Signal.UNKNOWN, ""


class StumblesOverNonsense(GoodProbe):
    def nonsense(self) -> tuple[Signal, str]:
        raise ValueError("unpack requires a buffer of 8 bytes")


class TakesNonsenseForSilence(GoodProbe):
    def nonsense(self) -> tuple[Signal, str]:
        return Signal.SILENT, "no answer"


class DatesWhatItCollects(GoodProbe):
    def collect(self, now: float) -> list[Reading]:
        return [replace(reading, sent_at=now) for reading in super().collect(now)]


class DatesByItsOwnClock(GoodProbe):
    def collect(self, now: float) -> list[Reading]:
        return [replace(reading, sent_at=time.time()) for reading in super().collect(now)]


class DatesSilenceBack(GoodProbe):
    def collect(self, now: float) -> list[Reading]:
        return [
            replace(reading, sent_at=reading.sent_at - 5) if reading.signal is Signal.SILENT else reading
            for reading in super().collect(now)
        ]


class TellsThePassword(GoodProbe):
    def nonsense(self) -> tuple[Signal, str]:
        return Signal.UNKNOWN, f"it does not take {self.password()}"


class LogsThePassword(GoodProbe):
    def own_fault(self) -> tuple[Signal, str]:
        logging.getLogger(__name__).debug("tried %s", self.password())
        return super().own_fault()


class ShowsThePassword(GoodProbe):
    def __repr__(self) -> str:
        return f"ShowsThePassword({self.password()})"


class LeavesATask(GoodProbe):
    async def open(self) -> str:
        self.left = asyncio.get_running_loop().create_task(anyio.sleep(60))
        return "in memory"


class LeavesAProcess(GoodProbe):
    async def open(self) -> str:
        nothing = subprocess.DEVNULL
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        self.left = subprocess.Popen(sleep, stdin=nothing, stdout=nothing, stderr=nothing)  # noqa: ASYNC220
        return "in memory"


class TakesItsTimeToClose(GoodProbe):
    async def close(self) -> None:
        await anyio.sleep(5)


class OpensOnce(GoodProbe):
    closed = False

    async def close(self) -> None:
        self.closed = True

    def launch(self, targets: Sequence[Target], now: float) -> None:
        if not self.closed:
            super().launch(targets, now)


class LetsServeFail(GoodProbe):
    async def serve(self) -> None:
        raise OSError("bad file descriptor")


class BlocksTheLoop(GoodProbe):
    async def serve(self) -> None:
        while True:
            time.sleep(0.15)  # noqa: ASYNC251  # this channel is meant to be bad
            await anyio.sleep(0.05)


CAUGHT: tuple[tuple[ProbeCheck, type[Probe[Any]], str], ...] = (
    (probe_checks.describes_itself, OddKind, "is no name"),
    (probe_checks.describes_itself, WithoutDomain, "domain is no Domain"),
    (probe_checks.describes_itself, OpensWithoutAWord, "one line"),
    (probe_checks.has_strict_settings, LooseSettings, "take unknown keys"),
    (probe_checks.has_strict_settings, OpenPassword, "settings show a secret"),
    (probe_checks.tells_the_dead_from_the_living, SeesNoDeath, "should have said silent, and said alive"),
    (probe_checks.tells_the_dead_from_the_living, CallsTheLivingDead, "calls a living host silent"),
    (probe_checks.speaks_only_of_those_that_were_asked_about, TakesTheFirstAnswerForAnybodys, "spoke of \\[2\\]"),
    (probe_checks.answers_every_question_once, ForgetsTheDead, "no word about host \\[1\\]"),
    (probe_checks.answers_every_question_once, AnswersTwice, "more than once"),
    (probe_checks.answers_every_question_once, NeverAnswersAgain, "a second question"),
    (probe_checks.answers_every_question_once, LetsServeFail, "serve raised OSError"),
    (probe_checks.returns_at_once, SleepsInLaunch, "launch took"),
    (probe_checks.returns_at_once, SleepsInCollect, "collect took"),
    (probe_checks.is_not_delayed_by_a_dead_host, AsksOneAfterTheOther, "beside a dead host"),
    (probe_checks.calls_its_own_faults_unknown, BlamesTheHosts, "says silent"),
    (probe_checks.calls_its_own_faults_unknown, GivesNoReason, "must say why"),
    (probe_checks.calls_its_own_faults_unknown, RaisesWhenItCannotWork, "open raised OSError"),
    (probe_checks.survives_nonsense, StumblesOverNonsense, "collect raised ValueError"),
    (probe_checks.survives_nonsense, TakesNonsenseForSilence, "is called silent"),
    (probe_checks.stamps_the_moment_of_sending, DatesWhatItCollects, "after it was asked"),
    (probe_checks.stamps_the_moment_of_sending, DatesByItsOwnClock, "after it was asked"),
    (probe_checks.stamps_the_moment_of_sending, DatesSilenceBack, "before it was asked for"),
    (probe_checks.keeps_its_secrets, TellsThePassword, "a detail"),
    (probe_checks.keeps_its_secrets, LogsThePassword, "a log record"),
    (probe_checks.keeps_its_secrets, ShowsThePassword, "repr"),
    (probe_checks.leaves_nothing_behind, LeavesATask, "left a task"),
    (probe_checks.leaves_nothing_behind, LeavesAProcess, "left a process"),
    (probe_checks.leaves_nothing_behind, TakesItsTimeToClose, "close raised TimeoutError"),
    (probe_checks.leaves_nothing_behind, OpensOnce, "should have said alive"),
    (probe_checks.does_not_block_the_event_loop, BlocksTheLoop, "stood still"),
)


class PretendedRig:
    """Implements `testing.ProbeRig`."""

    secrets: Sequence[str] = (PASSWORD,)

    def __init__(self, probe_class: type[Probe[Any]]) -> None:
        self.probe_class = probe_class
        self.cloud = Cloud()
        power = probe_class.domain is Domain.POWER
        self.shows_life, self.shows_death = (Signal.ON, Signal.OFF) if power else (Signal.ALIVE, Signal.SILENT)
        self.made: list[Probe[Any]] = []

    def make_probe(self) -> Probe[Any]:
        async def no_power(host: int) -> PowerState:
            return PowerState.UNKNOWN

        context = ProbeContext(read_power=no_power, oned_view=lambda host: None)
        probe = self.probe_class(self.probe_class.config_model.model_validate({"password": PASSWORD}), context)
        probe.cloud = self.cloud  # type: ignore[attr-defined]
        self.made.append(probe)
        return probe

    def targets(self) -> Sequence[Target]:
        return [Target(host=host, name=f"kvm-{host}", address=f"192.0.2.{host}") for host in (1, 3, 5)]

    async def kill(self, host: int) -> None:
        self.cloud.dead.add(host)

    async def babble(self, host: int) -> None:
        self.cloud.babbling.add(host)

    async def break_ourselves(self) -> None:
        self.cloud.broken = True


@pytest.fixture
def make_rig(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretended hosts answer at once, so nothing needs the patience that real ones get."""
    monkeypatch.setattr(probe_tools, "SHOWS_WITHIN_S", 2.0)
    monkeypatch.setattr(probe_checks, "WATCH_S", 0.3)
    made: list[PretendedRig] = []

    def make(probe_class: type[Probe[Any]]) -> PretendedRig:
        made.append(PretendedRig(probe_class))
        return made[-1]

    yield make
    for probe in [probe for rig in made for probe in rig.made]:
        left = getattr(probe, "left", None)
        if isinstance(left, subprocess.Popen):
            left.kill()
            left.wait(5)


MakeRig = Callable[[type[Probe[Any]]], PretendedRig]


@pytest.mark.parametrize("probe_class", [GoodProbe, PowerProbe])
@pytest.mark.parametrize("check", PROBE_CHECKS, ids=lambda check: check.__name__)
async def test_a_good_channel_passes(check: ProbeCheck, probe_class: type[Probe[Any]], make_rig: MakeRig) -> None:
    await check(make_rig(probe_class))


@pytest.mark.parametrize(("check", "probe_class", "words"), CAUGHT, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_bad_channel_is_caught(
    check: ProbeCheck, probe_class: type[Probe[Any]], words: str, make_rig: MakeRig
) -> None:
    with pytest.raises(ConformanceFailure, match=words):
        await check(make_rig(probe_class))


def test_every_check_has_a_channel_that_fails_it() -> None:
    assert {check for check, _, _ in CAUGHT} == set(PROBE_CHECKS)


async def test_a_bad_channel_passes_what_it_does_not_break(make_rig: MakeRig) -> None:
    """A bad channel that fails everywhere would prove nothing about the check that it stands for."""
    for probe_class in (TellsThePassword, DatesWhatItCollects, BlamesTheHosts, LeavesATask):
        await probe_checks.answers_every_question_once(make_rig(probe_class))
