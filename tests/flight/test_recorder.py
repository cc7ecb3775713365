"""What the flight recorder keeps, and how little it needs."""

from __future__ import annotations

from world import Cloud

from ha_controller.core.effects import Fence
from ha_controller.core.events import EvidenceTaken, InventoryRead, SightTold
from ha_controller.core.model import Host, Reading, SeenAlive, Signal
from ha_controller.flight import recorder
from ha_controller.flight.record import FlightRecord, InventoryChanged
from ha_controller.flight.recorder import Recorder
from ha_controller.flight.replay import replay


def cut(cloud: Cloud) -> FlightRecord:
    return cloud.recorder.cut([1], cloud.now, "").record()


def readings(record: FlightRecord) -> list[Reading]:
    return [
        reading
        for each in record.rounds
        for event in each.events
        if isinstance(event, EvidenceTaken)
        for reading in event.readings
    ]


def shots(effects: object) -> list[tuple[float, int]]:
    return [(at, effect.host) for at, effect in effects if isinstance(effect, Fence)]  # type: ignore[attr-defined]


def test_steady_readings_are_runs_and_take_no_more_room_the_longer_they_last():
    cloud = Cloud()
    cloud.run(10)
    before = cloud.recorder.weight
    cloud.run(40)
    assert cloud.recorder.weight == before
    runs = cut(cloud).runs
    assert len(runs) == 2 * 8
    assert {(run.count, run.last.signal) for run in runs} == {(250, Signal.ALIVE)}


def test_a_host_under_close_watch_is_kept_reading_by_reading():
    cloud = Cloud()
    cloud.run(6)
    cloud.kill(3)
    cloud.run(5)
    silent = [reading.sent_at for reading in readings(cut(cloud)) if reading.signal is Signal.SILENT]
    assert len(silent) == 2 * 25
    assert {reading.host for reading in readings(cut(cloud)) if reading.sent_at > 1006.5} == {3}


def test_readings_that_are_missing_end_a_run():
    cloud = Cloud(hosts=1)
    for at in (1.0, 2.0, 3.0, 9.0, 10.0):
        cloud.now = 1000.0 + at
        reading = Reading(host=0, signal=Signal.ALIVE, sent_at=cloud.now)
        cloud.feed(EvidenceTaken(channel="icmp", readings=(reading,)))
    assert [(run.first_sent_at, run.last.sent_at, run.count) for run in cut(cloud).runs] == [
        (1001.0, 1003.0, 3),
        (1009.0, 1010.0, 2),
    ]


def test_another_boot_ends_a_run():
    cloud = Cloud(hosts=1)
    for boot in ("a", "a", "b"):
        cloud.now += 1
        reading = Reading(host=0, signal=Signal.ALIVE, sent_at=cloud.now, boot_id=boot)
        cloud.feed(EvidenceTaken(channel="ssh", readings=(reading,)))
    assert [(run.last.boot_id, run.count) for run in cut(cloud).runs if run.channel == "ssh"] == [("a", 2)]
    assert [reading.boot_id for reading in readings(cut(cloud))] == ["a", "b"]


def test_of_an_inventory_only_what_changed_is_kept():
    cloud = Cloud()
    cloud.one_states[5] = 4
    cloud.inventory()
    changes = [event for each in cut(cloud).rounds for event in each.events if isinstance(event, InventoryChanged)]
    assert [len(change.hosts) for change in changes] == [8, 1]
    assert changes[1].hosts[0].id == 5


def test_the_memory_goes_back_some_minutes_and_no_further():
    cloud = Cloud(hosts=3)
    cloud.run(recorder.LEGS_MAX * recorder.LEG_S + 120)
    record = cut(cloud)
    assert not record.beginning.is_start
    assert (recorder.LEGS_MAX - 1) * recorder.LEG_S <= cloud.now - record.beginning.at <= 60 * recorder.LEGS_MAX + 1


def test_nothing_is_forgotten_while_it_is_held():
    cloud = Cloud(hosts=3)
    cloud.recorder.held = True
    cloud.run(recorder.LEGS_MAX * recorder.LEG_S + 120)
    assert cut(cloud).beginning.is_start


def test_a_storm_is_kept_in_short_and_in_bounds():
    """Five hundred hosts silent at five readings a second on two channels would be 300,000 readings a minute."""
    cloud = Cloud(hosts=500, vms_per_host=0)
    cloud.run(6)
    for host in range(500):
        cloud.kill(host)
    cloud.run(3)
    before = cloud.recorder.weight
    cloud.run(6)
    assert cloud.recorder.weight - before < 30 * (3 * recorder.FOLLOWED_MAX + 10)


def test_a_record_that_begins_in_the_middle_gives_the_same_power_off_at_the_same_time():
    cloud = Cloud()
    cloud.run(recorder.LEGS_MAX * recorder.LEG_S + 100)
    cloud.kill(3)
    cloud.run(70)
    record = cut(cloud)
    assert not record.beginning.is_start
    shot = [(at, effect.host) for at, effect in cloud.effects if isinstance(effect, Fence)]
    assert len(shot) == 1
    assert shots(replay(record).effects) == shot
    assert replay(record).partings == {}


def test_a_record_that_begins_in_the_middle_of_another_incident_says_nothing_about_that():
    cloud = Cloud()
    cloud.run(6)
    cloud.kill(5, "mute")  # its incident waits for a person
    cloud.run(recorder.LEGS_MAX * recorder.LEG_S + 120)
    cloud.kill(3)
    cloud.run(70)
    found = replay(cut(cloud))
    assert [host for _, host in shots(found.effects)] == [3]
    assert list(found.partings) == [5]
    assert "under way already" in found.partings[5].why


def test_an_empty_inventory_and_a_vanished_host_are_kept_as_they_came():
    cloud = Cloud(hosts=2)
    notes = Recorder(cloud.controller, cloud.now)
    hosts = tuple(Host(id=number, name=f"kvm-{number}") for number in range(2))
    notes.note((InventoryRead(hosts=hosts),), (), cloud.now)
    notes.note((InventoryRead(hosts=hosts[:1]),), (), cloud.now + 1)
    assert [each.events[0] for each in notes.cut([], cloud.now, "").rounds] == [
        InventoryChanged(hosts=hosts),
        InventoryChanged(gone=(1,)),
    ]


def test_what_another_controller_saw_is_kept_of_hosts_under_close_watch_also_what_it_said_before():
    cloud = Cloud()
    cloud.run(6)
    for _ in range(20):
        cloud.feed(
            SightTold(
                controller="one-2",
                alive=tuple(SeenAlive(host=host, channel="icmp", at=cloud.now - 0.3) for host in range(8)),
            )
        )
        cloud.run(1)
    cloud.kill(3, "off")  # and no word more of it
    cloud.run(20)
    record = cut(cloud)
    words = [event for each in record.rounds for event in each.events if isinstance(event, SightTold)]
    assert [seen.host for word in words for seen in word.alive] == [3]
    assert cloud.ordered(Fence)
    assert shots(replay(record).effects) == shots(cloud.effects)
