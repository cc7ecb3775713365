"""The prober's wheel, close watches, stalls and faults, in virtual time with channels like a third party's."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from ha_controller.adapters.prober import Prober
from ha_controller.adapters.prober.channel import AsyncProbe, AsyncProbeConfig
from ha_controller.plugin import (
    Domain,
    Probe,
    ProbeConfig,
    ProbeContext,
    ProbeUnavailable,
    Reading,
    Signal,
    SlowProbeConfig,
    Target,
)

pytestmark = pytest.mark.looptime

Told = list[tuple[str, Reading]]


class PlainConfig(ProbeConfig):
    answers: bool = True
    timeout_s: float = 0.5


class PlainProbe(Probe[PlainConfig]):
    """Remembers what it was asked. Answers at the next look, or never."""

    kind = "plain"
    config_model = PlainConfig
    domain = Domain.MANAGEMENT
    fault: BaseException | None = None
    unavailable: ClassVar[str] = ""

    def __init__(self, config: PlainConfig, context: ProbeContext) -> None:
        super().__init__(config, context)
        self.asked: list[tuple[float, Target]] = []
        self.pending: list[tuple[float, Target]] = []
        self.closed = False

    async def open(self) -> str:
        if self.unavailable:
            raise ProbeUnavailable(self.unavailable)
        return "plain"

    async def close(self) -> None:
        self.closed = True

    def launch(self, targets: Sequence[Target], now: float) -> None:
        if self.fault is not None:
            raise self.fault
        questions = [(now, target) for target in targets]
        self.asked += questions
        self.pending += questions

    def collect(self, now: float) -> list[Reading]:
        timeout_s = 0.0 if self.config.answers else self.config.timeout_s
        signal = Signal.ALIVE if self.config.answers else Signal.SILENT
        over = [question for question in self.pending if now - question[0] >= timeout_s]
        self.pending = [question for question in self.pending if question not in over]
        return [Reading(host=target.host, signal=signal, sent_at=sent_at) for sent_at, target in over]


class PowerProbe(PlainProbe):
    domain = Domain.POWER
    suspects_only = True


class BrokenProbe(PlainProbe):
    unavailable = "no socket: do this and that"


class SlowProbe(AsyncProbe[AsyncProbeConfig]):
    kind = "slow"
    config_model = AsyncProbeConfig
    domain = Domain.STORAGE

    async def ask(self, target: Target, now: float) -> Reading:
        await asyncio.sleep(0.1)
        return Reading(host=target.host, signal=Signal.ALIVE, sent_at=now, detail="counter moved")


class Clock:
    """The loop's clock, which can be made to jump: to the prober that is a loop that stood still."""

    def __init__(self) -> None:
        self.jumped_s = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.jumped_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plain(make_context: Callable[..., ProbeContext]) -> PlainProbe:
    return PlainProbe(PlainConfig(), make_context())


@pytest.fixture
def mute(make_context: Callable[..., ProbeContext]) -> PlainProbe:
    return PlainProbe(PlainConfig(answers=False), make_context())


@asynccontextmanager
async def running(
    clock: Clock, channels: dict[str, Probe[Any]], targets: Sequence[Target]
) -> AsyncIterator[tuple[Prober, Told]]:
    told: Told = []
    prober = Prober(
        channels,
        interval_s=1.0,
        confirm_interval_s=0.2,
        clock=clock,
        sink=lambda name, domain, readings: told.extend((name, reading) for reading in readings),
    )
    prober.set_targets(targets)
    task = asyncio.ensure_future(prober.run())
    try:
        yield prober, told
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


def hosts(count: int) -> list[Target]:
    return [
        Target(host=host, name=f"kvm-{host}", address=f"127.61.{host // 250}.{host % 250 + 1}") for host in range(count)
    ]


async def test_every_host_is_asked_once_per_interval(clock: Clock, plain: PlainProbe) -> None:
    async with running(clock, {"plain": plain}, hosts(1000)):
        await asyncio.sleep(4.999)
    times: dict[int, list[float]] = defaultdict(list)
    for at, target in plain.asked:
        times[target.host].append(at)
    assert {len(asked) for asked in times.values()} == {5}
    gaps = [later - earlier for asked in times.values() for earlier, later in pairwise(asked)]
    assert len(times) == 1000
    assert min(gaps) == pytest.approx(1.0) == pytest.approx(max(gaps))


@pytest.mark.parametrize("count", [1000, 1003, 75, 50])
async def test_hosts_are_spread_evenly_over_the_interval(clock: Clock, plain: PlainProbe, count: int) -> None:
    async with running(clock, {"plain": plain}, hosts(count)):
        await asyncio.sleep(0.999)
    per_slot = Counter(round(at, 3) for at, _ in plain.asked)
    assert len(per_slot) == 50
    assert max(per_slot.values()) - min(per_slot.values()) <= 1


async def test_a_few_hosts_do_not_share_a_corner_of_the_interval(clock: Clock, plain: PlainProbe) -> None:
    async with running(clock, {"plain": plain}, hosts(4)):
        await asyncio.sleep(0.999)
    start = plain.asked[0][0]
    assert [at - start for at, _ in plain.asked] == pytest.approx([0.0, 0.26, 0.5, 0.76], abs=0.021)


async def test_hosts_that_stay_keep_their_turn_when_the_inventory_changes(clock: Clock, plain: PlainProbe) -> None:
    async with running(clock, {"plain": plain}, hosts(100)) as (prober, _):
        await asyncio.sleep(0.999)
        before = {target.host: at for at, target in plain.asked}
        prober.set_targets(hosts(150)[50:])
        await asyncio.sleep(1.0)
    after = {target.host: at for at, target in plain.asked[100:]}
    assert set(after) == set(range(50, 150))
    assert all(after[host] - before[host] == pytest.approx(1.0) for host in range(50, 100))
    per_slot = Counter(round(at, 3) for at in after.values())
    assert max(per_slot.values()) - min(per_slot.values()) <= 1


async def test_a_suspect_is_asked_at_once_and_then_five_times_a_second(clock: Clock, plain: PlainProbe) -> None:
    async with running(clock, {"plain": plain}, hosts(10)) as (prober, _):
        await asyncio.sleep(1.01)
        started = clock()
        plain.asked.clear()
        prober.watch_closely(7, True)
        await asyncio.sleep(1.0)
    times = [at - started for at, target in plain.asked if target.host == 7]
    assert times[0] <= 0.021
    assert len(times) == 5
    assert all(target.close_watch == (target.host == 7) for _, target in plain.asked)


async def test_channels_for_suspects_are_asked_about_suspects_only(
    clock: Clock, plain: PlainProbe, make_context: Callable[..., ProbeContext]
) -> None:
    power = PowerProbe(PlainConfig(), make_context())
    async with running(clock, {"plain": plain, "bmc": power}, hosts(10)) as (prober, _):
        prober.watch_closely(3, True)
        await asyncio.sleep(0.999)
        prober.watch_closely(3, False)
        seen = len(power.asked)
        await asyncio.sleep(1.0)
    assert {target.host for _, target in power.asked} == {3}
    assert len(power.asked) == seen == 5
    assert {target.host for _, target in plain.asked} == set(range(10))


async def test_a_suspect_that_left_the_inventory_is_not_asked(clock: Clock, plain: PlainProbe) -> None:
    async with running(clock, {"plain": plain}, hosts(3)) as (prober, _):
        prober.watch_closely(2, True)
        await asyncio.sleep(0.5)
        prober.set_targets(hosts(2))
        plain.asked.clear()
        await asyncio.sleep(1.0)
    assert {target.host for _, target in plain.asked} == {0, 1}


async def test_silence_is_told_as_silence_while_the_loop_is_on_time(clock: Clock, mute: PlainProbe) -> None:
    async with running(clock, {"mute": mute}, hosts(20)) as (prober, told):
        await asyncio.sleep(2.0)
        assert prober.lag_s == pytest.approx(0.0, abs=1e-3)
    assert told
    assert {reading.signal for _, reading in told} == {Signal.SILENT}


async def test_a_stall_makes_everything_under_way_unknown_and_is_told_once(
    clock: Clock, mute: PlainProbe, logged: list[dict[str, object]]
) -> None:
    async with running(clock, {"mute": mute}, hosts(100)) as (prober, told):
        await asyncio.sleep(1.0)
        told.clear()
        clock.jumped_s += 0.8
        await asyncio.sleep(0.03)
        stalled_until = clock()
        assert prober.lag_s == pytest.approx(0.8, abs=0.025)
        await asyncio.sleep(2.5)
        assert prober.lag_s == pytest.approx(0.0, abs=0.001), "an old stall is forgotten"
    overlapping = [reading for _, reading in told if reading.sent_at < stalled_until - 0.04]
    later = [reading for _, reading in told if reading.sent_at > stalled_until]
    assert len(overlapping) >= 50
    assert {(reading.signal, reading.detail) for reading in overlapping} == {(Signal.UNKNOWN, "controller lag 0.8 s")}
    assert {reading.signal for reading in later} == {Signal.SILENT}
    assert sum("stood still" in str(record["event"]) for record in logged) == 1


async def test_a_loop_that_cannot_keep_up_is_told_once(
    clock: Clock, mute: PlainProbe, logged: list[dict[str, object]]
) -> None:
    async with running(clock, {"mute": mute}, hosts(100)) as (_, told):
        await asyncio.sleep(1.0)
        told.clear()
        for _ in range(10):
            clock.jumped_s += 0.3
            await asyncio.sleep(0.021)
    assert told
    assert {reading.signal for _, reading in told} == {Signal.UNKNOWN}
    assert sum("stood still" in str(record["event"]) for record in logged) == 1


async def test_life_that_was_seen_in_spite_of_a_stall_is_still_life(clock: Clock, plain: PlainProbe) -> None:
    async with running(clock, {"plain": plain}, hosts(100)) as (_, told):
        await asyncio.sleep(1.0)
        clock.jumped_s += 0.8
        await asyncio.sleep(1.0)
    assert {reading.signal for _, reading in told} == {Signal.ALIVE}


async def test_after_a_stall_turns_go_on_in_order_and_not_all_at_once(clock: Clock, plain: PlainProbe) -> None:
    async with running(clock, {"plain": plain}, hosts(1000)):
        await asyncio.sleep(1.01)
        plain.asked.clear()
        clock.jumped_s += 0.8
        await asyncio.sleep(1.0)
    assert max(Counter(at for at, _ in plain.asked).values()) == 20
    assert len({target.host for _, target in plain.asked}) == len(plain.asked) == 1000


async def test_a_small_delay_is_caught_up_with(clock: Clock, mute: PlainProbe) -> None:
    async with running(clock, {"mute": mute}, hosts(100)) as (_, told):
        await asyncio.sleep(1.01)
        mute.asked.clear()
        clock.jumped_s += 0.1
        await asyncio.sleep(0.9)
    assert len({target.host for _, target in mute.asked}) == len(mute.asked) == 100
    assert {reading.signal for _, reading in told} == {Signal.SILENT}


async def test_a_channel_that_raises_leaves_the_others_alone(
    clock: Clock, plain: PlainProbe, make_context: Callable[..., ProbeContext], logged: list[dict[str, object]]
) -> None:
    faulty = PlainProbe(PlainConfig(), make_context())
    faulty.fault = ZeroDivisionError("a bug")
    async with running(clock, {"faulty": faulty, "plain": plain}, hosts(100)) as (_, told):
        await asyncio.sleep(1.999)
        faulty.fault = None
        await asyncio.sleep(1.0)
    of_faulty = [reading.signal for name, reading in told if name == "faulty"]
    assert Counter(of_faulty) == {Signal.UNKNOWN: 200, Signal.ALIVE: 100}
    assert Counter(reading.signal for name, reading in told if name == "plain") == {Signal.ALIVE: 300}
    (failed,) = [record for record in logged if record.get("channel") == "faulty" and "failed" in str(record["event"])]
    assert failed["exc_info"]


@pytest.mark.parametrize("nonsense", [None, [None], ["alive"], [Reading(host=3, signal="alive", sent_at=0.0)]])
async def test_a_channel_that_returns_nonsense_leaves_the_others_alone(
    clock: Clock, plain: PlainProbe, make_context: Callable[..., ProbeContext], nonsense: Any
) -> None:
    mad = PlainProbe(PlainConfig(), make_context())
    mad.collect = lambda now: nonsense  # type: ignore[method-assign]
    async with running(clock, {"mad": mad, "plain": plain}, hosts(50)) as (_, told):
        await asyncio.sleep(1.999)
    assert {reading.signal for name, reading in told if name == "mad"} == {Signal.UNKNOWN}
    assert Counter(reading.signal for name, reading in told if name == "plain") == {Signal.ALIVE: 100}


async def test_a_channel_that_cannot_open_is_unknown_with_its_remedy(
    clock: Clock, plain: PlainProbe, make_context: Callable[..., ProbeContext], logged: list[dict[str, object]]
) -> None:
    broken = BrokenProbe(PlainConfig(), make_context())
    async with running(clock, {"broken": broken, "plain": plain}, hosts(3)) as (_, told):
        await asyncio.sleep(0.999)
    assert {(reading.signal, reading.detail) for name, reading in told if name == "broken"} == {
        (Signal.UNKNOWN, "no socket: do this and that")
    }
    assert sum(name == "plain" and reading.signal is Signal.ALIVE for name, reading in told) == 3
    assert any("do this and that" in str(record.get("error")) and record["log_level"] == "error" for record in logged)


@pytest.mark.parametrize("address", ["", "kvm-1.example.org", "127.1", "0.0.0.0", "::", "224.0.0.1", "10.0.0.256"])
async def test_a_host_without_a_literal_address_is_unknown_and_never_asked(
    clock: Clock, plain: PlainProbe, make_context: Callable[..., ProbeContext], address: str
) -> None:
    power = PowerProbe(PlainConfig(), make_context())
    targets = [Target(host=1, name="kvm-1", address=address), Target(host=2, name="kvm-2", address="127.61.0.2")]
    async with running(clock, {"plain": plain, "bmc": power}, targets) as (prober, told):
        prober.watch_closely(1, True)
        await asyncio.sleep(0.999)
    assert {target.host for _, target in plain.asked} == {2}
    signals = {(reading.signal, reading.detail) for name, reading in told if name == "plain" and reading.host == 1}
    assert signals == {(Signal.UNKNOWN, "no literal address")}
    assert {target.host for _, target in power.asked} == {1}, "its fence device needs no address of the host"


@pytest.mark.parametrize(
    ("written", "asked"),
    [("::ffff:127.61.0.9", "127.61.0.9"), ("FD00:0:0::1", "fd00::1"), ("fe80::1%lo", "fe80::1%lo")],
)
async def test_channels_get_addresses_in_one_spelling(
    clock: Clock, plain: PlainProbe, written: str, asked: str
) -> None:
    async with running(clock, {"plain": plain}, [Target(host=1, name="kvm-1", address=written)]):
        await asyncio.sleep(0.999)
    assert [target.address for _, target in plain.asked] == [asked]


async def test_channels_are_closed_when_the_prober_is_cancelled(clock: Clock, plain: PlainProbe) -> None:
    async with running(clock, {"plain": plain}, hosts(1)):
        await asyncio.sleep(0.1)
        assert not plain.closed
    assert plain.closed


async def test_a_channel_that_must_wait_is_served_beside_the_others(
    clock: Clock, plain: PlainProbe, make_context: Callable[..., ProbeContext]
) -> None:
    slow = SlowProbe(AsyncProbeConfig(at_once=10), make_context())
    async with running(clock, {"slow": slow, "plain": plain}, hosts(100)) as (_, told):
        await asyncio.sleep(2.2)
    counts = Counter(name for name, _ in told)
    assert counts["slow"] >= 200
    assert counts["plain"] >= 200
    assert {reading.signal for _, reading in told} == {Signal.ALIVE}


# --- slow channels ----------------------------------------------------------------------------------------------------


class DearConfig(SlowProbeConfig, PlainConfig):
    pass


class DearProbe(PlainProbe):
    """Asked every 30 s, suspects every 2 s. Says UNKNOWN until it is told to answer."""

    config_model = DearConfig
    domain = Domain.SELF
    watched_every_s = 2.0

    def collect(self, now: float) -> list[Reading]:
        readings = [Reading(host=target.host, signal=self.says, sent_at=sent_at) for sent_at, target in self.pending]
        self.pending.clear()
        return readings

    says = Signal.UNKNOWN

    def times(self, host: int) -> list[float]:
        return [at for at, target in self.asked if target.host == host]


@pytest.fixture
def dear(make_context: Callable[..., ProbeContext]) -> DearProbe:
    return DearProbe(DearConfig(), make_context())


async def test_a_slow_channel_asks_each_host_at_a_moment_of_its_own(clock: Clock, dear: DearProbe) -> None:
    async with running(clock, {"dear": dear}, hosts(1000)):
        await asyncio.sleep(59.99)
    for host in range(1000):
        first, second = dear.times(host)
        assert second - first == pytest.approx(30.0, abs=0.05)
    per_s = Counter(int(at - dear.asked[0][0]) for at, _ in dear.asked)
    assert max(per_s.values()) <= 40  # 33 on average
    assert not any(target.close_watch for _, target in dear.asked)


async def test_a_slow_channel_asks_a_suspect_at_once_and_not_too_often(clock: Clock, dear: DearProbe) -> None:
    async with running(clock, {"dear": dear}, hosts(50)) as (prober, _):
        await asyncio.sleep(31)
        dear.asked.clear()
        began = clock()
        prober.watch_closely(7, True)
        await asyncio.sleep(9)
    times = dear.times(7)
    assert times[0] - began < 0.05
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([2.0] * 4, abs=0.25)
    assert all(target.close_watch for _, target in dear.asked if target.host == 7)


async def test_a_host_that_answers_again_is_asked_until_there_is_a_word_about_it(clock: Clock, dear: DearProbe) -> None:
    async with running(clock, {"dear": dear}, hosts(1)) as (prober, _):
        prober.watch_closely(0, True)
        await asyncio.sleep(10)
        prober.watch_closely(0, False)
        dear.asked.clear()
        await asyncio.sleep(20)
        asked = len(dear.asked)
        assert asked >= 5  # in peace it would be once
        dear.says = Signal.ALIVE
        await asyncio.sleep(10)
        dear.asked.clear()
        await asyncio.sleep(28)
    assert len(dear.asked) <= 1


async def test_a_host_that_never_gives_a_word_is_asked_ever_less_often_and_then_as_in_peace(
    clock: Clock, dear: DearProbe
) -> None:
    async with running(clock, {"dear": dear}, hosts(1)) as (prober, _):
        prober.watch_closely(0, True)
        await asyncio.sleep(1)
        prober.watch_closely(0, False)
        dear.asked.clear()
        await asyncio.sleep(120)
        assert len(dear.asked) < 30
        dear.asked.clear()
        await asyncio.sleep(300)
    assert len(dear.asked) in (9, 10, 11)


async def test_one_lost_packet_costs_one_login(clock: Clock, dear: DearProbe) -> None:
    dear.says = Signal.ALIVE
    async with running(clock, {"dear": dear}, hosts(50)) as (prober, _):
        await asyncio.sleep(31)
        dear.asked.clear()
        prober.watch_closely(7, True)
        await asyncio.sleep(0.4)
        prober.watch_closely(7, False)
        await asyncio.sleep(10)
    assert len(dear.times(7)) in (1, 2)  # its turn may have come, too


async def test_witnesses_are_asked_by_no_slow_channel(clock: Clock, dear: DearProbe, plain: PlainProbe) -> None:
    witness = Target(host=-1, name="witness", address="127.61.9.9")
    async with running(clock, {"dear": dear, "plain": plain}, [*hosts(2), witness]):
        await asyncio.sleep(35)
    assert {target.host for _, target in dear.asked} == {0, 1}
    assert {target.host for _, target in plain.asked} == {-1, 0, 1}


async def test_a_slow_channel_loses_no_turn_to_a_stall_and_asks_nobody_twice(clock: Clock, dear: DearProbe) -> None:
    async with running(clock, {"dear": dear}, hosts(300)):
        await asyncio.sleep(10)
        clock.jumped_s += 20
        await asyncio.sleep(31)
    counts = Counter(target.host for _, target in dear.asked)
    assert set(counts) == set(range(300))
    per_tick = Counter(at for at, _ in dear.asked)
    assert max(per_tick.values()) <= 2


async def test_a_channel_of_its_own_tasks_is_served_whoever_wrote_it(clock: Clock, plain: PlainProbe) -> None:
    served: list[str] = []

    async def serve() -> None:
        try:
            served.append("begun")
            await asyncio.sleep(3600)
        finally:
            served.append("ended" if not plain.closed else "closed first")

    plain.serve = serve  # type: ignore[method-assign]
    async with running(clock, {"plain": plain}, hosts(1)):
        await asyncio.sleep(1)
        assert served == ["begun"]
    assert served == ["begun", "ended"]
