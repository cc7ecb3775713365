"""What is counted for metrics: a failover in a pretended cloud, a restart, and faults that must stay where they are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest
from world import SETTINGS, Cloud, seen

from ha_controller.adapters.opennebula import NoAnswer
from ha_controller.adapters.opennebula.timed import timed
from ha_controller.app import metrics
from ha_controller.app.counting import Counting
from ha_controller.app.exposition import Page, Scrapes
from ha_controller.app.tallies import ROWS_MAX, Spread, Tally
from ha_controller.core.controller import Controller, Decision
from ha_controller.core.effects import WatchClosely
from ha_controller.core.events import Event, TimePassed, Verb
from ha_controller.core.incident import CloudRecord
from ha_controller.core.model import HostState, Reading, Signal
from ha_controller.core.state import HostView
from ha_controller.engine import Commit, Engine

COMMIT_S = 0.004


@dataclass
class CountedCloud(Cloud):
    """Every decision of its core is counted, as behind the engine."""

    kind: type[Counting] = Counting
    counting: Counting | None = None

    def feed(self, event: Event) -> Decision:
        decision = super().feed(event)
        if self.counting is None:
            self.counting = self.kind(self.controller.state, lambda: self.now + 0.02)
        if decision.incidents or decision.effects:
            self.counting.committed(decision.incidents, COMMIT_S)
        self.counting.round([event], decision.effects, self.now)
        return decision

    def shown(self) -> dict[str, float]:
        """The samples that are not 0, as Prometheus reads them."""
        page = Page()
        metrics.counted(page, self.counting)
        lines = [line.rsplit(" ", 1) for line in page.text().splitlines() if line[0] != "#"]
        return {name.removeprefix("ha_controller_"): float(value) for name, value in lines if float(value)}


def recovered(cloud: CountedCloud | None = None) -> CountedCloud:
    cloud = cloud or CountedCloud(settings=SETTINGS)
    cloud.run(10)
    cloud.kill(3, "off")
    cloud.run(30)
    assert cloud.state(3).value == "recovered"
    return cloud


def test_a_failover_is_counted_from_silence_to_the_last_vm():
    shown = recovered().shown()
    assert shown['transitions_total{from="ok",to="suspect"}'] == 1
    assert shown['transitions_total{from="failed",to="fenced"}'] == 1
    assert shown['fences_total{result="off_read"}'] == 1
    assert shown["incidents_opened_total"] == 1
    assert shown['vm_outcomes_total{outcome="running"}'] == 2
    assert shown['host_orders_total{result="accepted",step="disable"}'] == 1
    for phase in ("detect", "fence", "restart", "total"):
        assert shown[f'incident_phase_seconds_count{{phase="{phase}"}}'] == 1, phase
    total_s = shown['incident_phase_seconds_sum{phase="total"}']
    assert 0 < total_s < 30
    assert shown["vm_downtime_seconds_count"] == 2
    assert shown["vm_downtime_seconds_sum"] <= 2 * total_s
    assert shown["loop_duration_seconds_sum"] == pytest.approx(0.02 * shown["loop_duration_seconds_count"])
    assert shown['journal_commit_duration_seconds_bucket{le="0.005"}'] == shown["journal_commit_duration_seconds_count"]
    assert "incidents_total" not in str(shown), "it is open until the host is readmitted"


def test_an_incident_counts_by_how_it_ended_once_it_is_closed():
    cloud = recovered()
    cloud.dead.clear()
    cloud.reboot(3)
    cloud.run(60)
    cloud.operator(Verb.UNFENCE, host=3)
    cloud.run(60)
    shown = cloud.shown()
    assert shown['incidents_total{outcome="recovered"}'] == 1
    assert shown['transitions_total{from="recovered",to="ok"}'] == 1


def test_what_a_guard_holds_up_counts_for_it():
    cloud = CountedCloud(settings=SETTINGS)
    cloud.run(10)
    for host in range(5):
        cloud.kill(host, "off")
    cloud.run(20)
    refused = {name for name in cloud.shown() if name.startswith("guard_refusals_total")}
    assert 'guard_refusals_total{guard="storm"}' in refused


def test_what_was_on_record_at_the_start_is_not_counted_again():
    before = recovered()
    after = Counting(before.controller.state, lambda: before.now)
    after.restored(list(before.incidents.values()))
    after.committed(list(before.incidents.values()), COMMIT_S)
    assert after.incidents_opened.rows[()] == 0
    assert not after.phases.rows
    assert set(after.vm_outcomes.rows.values()) == {0}


def test_answers_of_channels_are_counted_and_those_of_the_living_are_timed():
    counting = Counting(Controller(SETTINGS, 0.0).state, lambda: 0.0)
    readings = [Reading(host=host, signal=signal, sent_at=10.0) for host, signal in enumerate(Signal)]
    counting.probed("icmp", readings, 10.003)
    assert set(counting.readings.rows.items()) == {(("icmp", signal.value), 1) for signal in Signal}
    assert counting.probe_duration.rows[("icmp",)][2] == 1
    assert sum(counting.probe_duration.rows[("icmp",)]) == 1


async def test_a_call_is_told_with_its_end_also_one_that_is_cut_off():
    told: list[tuple[str, str]] = []

    def heed(method: str, result: str, took_s: float) -> None:
        assert took_s >= 0
        told.append((method, result))

    with timed("one.a", heed):
        pass
    with pytest.raises(NoAnswer), timed("one.b", heed):
        raise NoAnswer("one.b", "nothing")
    with anyio.move_on_after(0.01):
        with timed("one.c", heed):
            await asyncio.sleep(10)
    assert told == [("one.a", "ok"), ("one.b", "no_answer"), ("one.c", "cut_off")]


class Broken(Counting):
    """Nothing in it works: whatever is counted raises."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        for name in vars(self).keys() - {"faults", "_clock"}:
            setattr(self, name, None)


def test_a_fault_in_counting_changes_no_decision_and_is_counted_itself():
    sound, broken = recovered(), recovered(CountedCloud(settings=SETTINGS, kind=Broken))
    assert broken.effects == sound.effects
    assert broken.counting.faults.rows[()] > 100
    assert sound.counting.faults.rows[()] == 0


async def test_a_fault_in_counting_ends_no_round_of_the_engine():
    controller, left = Controller(SETTINGS, 0.0), []
    counting = Broken(controller.state, lambda: 0.0)

    class Journal:
        async def commit(self, commit: Commit) -> None:
            pass

    engine = Engine(
        controller,
        journal=counting.timed(Journal()),
        dispatch=left.append,
        record=counting.beside(lambda events, effects, now: left.append(events)),
        clock=lambda: 5.0,
    )
    await counting.timed(Journal()).commit(Commit(cloud=CloudRecord()))
    async with anyio.create_task_group() as group:
        group.start_soon(engine.run)
        with anyio.fail_after(5):
            while not any(isinstance(each, list) and TimePassed() in each for each in left):
                engine.post(TimePassed())
                await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert counting.faults.rows[()] > 0


def test_nothing_that_is_told_makes_it_raise():
    counting = Counting(Controller(SETTINGS, 0.0).state, lambda: 0.0)
    told = ("round", "committed", "restored", "probed", "called", "fenced", "lagged", "equipped")
    for count, name in enumerate(told, start=1):
        getattr(counting, name)(object(), object(), object())
        assert counting.faults.rows[()] == count, name


def test_labels_without_end_do_not_fill_the_memory():
    tally, spread = Tally("name"), Spread((1,), "name")
    for each in range(2 * ROWS_MAX):
        tally.add(str(each))
        spread.note(0.5, str(each))
    assert len(tally.rows) == len(spread.rows) == ROWS_MAX
    tally.add("0")
    assert tally.rows[("0",)] == 2


def test_a_bucket_holds_what_is_not_more_than_its_end():
    spread = Spread((0.1, 1), "channel")
    for value in (0.1, 0.5, 7, -3):
        spread.note(value, "icmp")
    page = Page()
    page.histogram("x_seconds", "Text", spread)
    assert page.text() == (
        "# HELP ha_controller_x_seconds Text\n"
        "# TYPE ha_controller_x_seconds histogram\n"
        'ha_controller_x_seconds_bucket{channel="icmp",le="0.1"} 2.0\n'
        'ha_controller_x_seconds_bucket{channel="icmp",le="1.0"} 3.0\n'
        'ha_controller_x_seconds_bucket{channel="icmp",le="+Inf"} 4.0\n'
        'ha_controller_x_seconds_sum{channel="icmp"} 7.6\n'
        'ha_controller_x_seconds_count{channel="icmp"} 4.0\n'
    )


def test_what_names_may_hold_is_escaped_and_no_number_is_left_out():
    page = Page()
    samples = page.gauge("x", "Text", "name")
    samples.add(True, 'kvm "one"\\\n')
    samples.add(float("inf"), "kvm-\udc80é")
    assert page.text().splitlines()[2:] == [
        'ha_controller_x{name="kvm \\"one\\"\\\\\\n"} 1.0',
        'ha_controller_x{name="kvm-\\\\udc80é"} +Inf',
    ]


def test_the_very_first_transition_counts_and_so_does_that_of_a_host_that_came_later():
    cloud = seen()
    counting = Counting(cloud.controller.state, lambda: cloud.now)
    counting.restored([])
    cloud.controller.state.view(3).state = HostState.SUSPECT
    cloud.controller.state.views[99] = HostView(state=HostState.SUSPECT)
    counting.round([], [WatchClosely(host=3, on=True)], cloud.now)
    assert counting.transitions.rows["ok", "suspect"] == 2


async def test_scrapes_without_end_cost_the_loop_a_twentieth_of_its_time():
    now, gathered = 0.0, 0

    def gather() -> Page:
        nonlocal now, gathered
        gathered += 1
        now += 0.1  # so long the loop was held
        page = Page()
        page.gauge("gathered", "How often").add(gathered)
        return page

    scrapes = Scrapes(gather, lambda: now)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(scrapes.text)
    assert gathered == 1
    now = 1.9
    assert "ha_controller_gathered 1.0" in await scrapes.text()
    now = 2.1
    assert "ha_controller_gathered 2.0" in await scrapes.text()
