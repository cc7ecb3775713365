"""The storage channel with real files, a child that really reads them, and one that hangs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from ha_controller.adapters.prober.storage import StorageConfig, StorageProbe
from ha_controller.plugin import ProbeContext, Reading, Signal, Target

SILENT_S = 5.0


class Store:
    """A shared datastore, a probe that looks at it, and the time."""

    def __init__(self, folder: Path, probe: StorageProbe) -> None:
        self.folder, self.probe, self.now = folder, probe, 100.0
        self.counters = dict.fromkeys(("kvm-01", "kvm-02", "kvm-03"), 0)

    def beat(self, *names: str, **words: object) -> None:
        """Write the next heartbeat of these hosts, as their unit does but for `words`."""
        for name in names:
            self.counters[name] += 1
            usual = {
                "host": name,
                "boot_id": "boot-1",
                "run_id": "run-1",
                "counter": self.counters[name],
                "armed": True,
            }
            (self.folder / f"{name}.lease").write_text(json.dumps(usual | words).ljust(511) + "\n")

    async def look(self, name: str) -> Reading:
        return await self.probe.ask(Target(host=int(name[-1]), name=name, address=""), self.now)

    async def pass_time(self, seconds: float, *beating: str) -> list[Reading]:
        """Each second the named hosts beat, and all are looked at; returns the last looks."""
        looks: list[Reading] = []
        for _ in range(round(seconds)):
            self.now += 1.0
            self.beat(*beating)
            looks = [await self.look(name) for name in self.counters]
        return looks


@pytest.fixture
async def store(tmp_path: Path, make_context: Callable[..., ProbeContext]) -> AsyncIterator[Store]:
    probe = StorageProbe(StorageConfig(folder=tmp_path, timeout="1s"), make_context())
    await probe.open()
    made = Store(tmp_path, probe)
    made.beat(*made.counters)
    yield made
    await probe.close()


async def test_a_counter_that_moves_is_life_from_before_the_look(store: Store) -> None:
    looks = await store.pass_time(3, "kvm-01", "kvm-02", "kvm-03")
    assert {look.signal for look in looks} == {Signal.ALIVE}
    assert looks[0].sent_at == store.now - 1.0


async def test_a_counter_that_stands_still_is_silence_after_a_while(store: Store) -> None:
    await store.pass_time(2, "kvm-01", "kvm-02", "kvm-03")
    looks = await store.pass_time(SILENT_S - 1, "kvm-01", "kvm-02")
    assert looks[2].signal is Signal.UNKNOWN
    looks = await store.pass_time(2, "kvm-01", "kvm-02")
    assert [look.signal for look in looks] == [Signal.ALIVE, Signal.ALIVE, Signal.SILENT]


async def test_a_beat_that_was_seen_moving_tells_the_boot_and_others_do_not(store: Store) -> None:
    boots = ["5f2b6a4e-0b5e-4a52-9a3c-1d2e3f405162", "7c9d0e1f-2a3b-4c5d-8e6f-708192a3b4c5"]
    looks = []
    for counter, boot in enumerate([boots[0], boots[0], boots[0], boots[1], boots[1]]):
        store.now += 1.0
        store.beat("kvm-01", boot_id=boot, counter=counter)
        looks.append(await store.look("kvm-01"))
    assert [look.boot_id for look in looks] == ["", boots[0], boots[0], "", boots[1]]
    assert [look.signal for look in looks[1:]] == [Signal.ALIVE] * 4
    store.now += 1.0
    assert (await store.look("kvm-01")).boot_id == ""


async def test_a_beat_tells_when_its_boot_began(store: Store) -> None:
    boot = "5f2b6a4e-0b5e-4a52-9a3c-1d2e3f405162"
    for up_s in (50.0, 51.0):
        store.now += 1.0
        store.beat("kvm-01", boot_id=boot, up_s=up_s)
        look = await store.look("kvm-01")
    assert look.booted_at == store.now - 1.0 - 51.0  # not later than it was
    store.now += 1.0
    store.beat("kvm-01", boot_id=boot)  # an older unit
    assert (await store.look("kvm-01")).booted_at == 0.0


@pytest.mark.parametrize(
    ("words", "signal"),
    [
        ({"armed": False, "leaving": True}, Signal.LEAVING),
        ({"armed": False, "leaving": False}, Signal.UNKNOWN),
        ({"armed": False}, Signal.UNKNOWN),
        ({"armed": True, "leaving": True}, Signal.UNKNOWN),  # it lives on
    ],
)
async def test_a_last_beat_may_say_goodbye(store: Store, words: dict[str, object], signal: Signal) -> None:
    await store.pass_time(3, "kvm-01", "kvm-02", "kvm-03")
    store.beat("kvm-03", **words)
    looks = await store.pass_time(3, "kvm-01", "kvm-02")
    assert looks[2].signal is signal


async def test_an_older_beat_than_the_last_one_is_neither_life_nor_a_boot(store: Store) -> None:
    await store.pass_time(3, "kvm-01", "kvm-02", "kvm-03")
    store.counters["kvm-03"] -= 2
    looks = await store.pass_time(1, "kvm-01", "kvm-02", "kvm-03")
    assert (looks[2].signal, looks[2].detail) == (Signal.UNKNOWN, "this is an older beat than the last one")
    looks = await store.pass_time(2, "kvm-01", "kvm-02", "kvm-03")
    assert looks[2].signal is Signal.ALIVE


async def test_a_boot_that_is_no_boot_id_is_not_told(store: Store) -> None:
    looks = await store.pass_time(3, "kvm-01")
    assert (looks[0].signal, looks[0].boot_id) == (Signal.ALIVE, "")


async def test_an_old_file_is_no_life_however_often_it_is_read(store: Store) -> None:
    looks = await store.pass_time(20, "kvm-01")
    assert Signal.ALIVE not in {look.signal for look in looks[1:]}


async def test_the_file_of_a_host_whose_unit_is_gone_is_no_silence_however_long_it_lies_there(store: Store) -> None:
    looks = await store.pass_time(20, "kvm-01", "kvm-02")
    assert (looks[2].signal, looks[2].detail) == (Signal.UNKNOWN, "its counter was never seen moving")


async def test_a_unit_that_was_stopped_is_no_silence(store: Store) -> None:
    await store.pass_time(3, "kvm-01", "kvm-02", "kvm-03")
    store.beat("kvm-03", armed=False)
    looks = await store.pass_time(20, "kvm-01", "kvm-02")
    assert (looks[2].signal, looks[2].detail) == (Signal.UNKNOWN, "its unit was stopped")


async def test_a_unit_that_was_started_anew_is_life_and_no_silence_before_it_moved(store: Store) -> None:
    await store.pass_time(3, "kvm-01", "kvm-02", "kvm-03")
    store.beat("kvm-03", run_id="run-2", counter=1)
    looks = await store.pass_time(1, "kvm-01", "kvm-02")
    assert (looks[2].signal, looks[2].detail) == (Signal.ALIVE, "its unit was started")
    looks = await store.pass_time(20, "kvm-01", "kvm-02")
    assert looks[2].signal is Signal.UNKNOWN


async def test_the_heartbeat_of_another_host_under_its_name_tells_nothing(store: Store) -> None:
    await store.pass_time(3, "kvm-01", "kvm-02", "kvm-03")
    store.beat("kvm-03", host="kvm-30")
    looks = await store.pass_time(20, "kvm-01", "kvm-02")
    assert (looks[2].signal, looks[2].detail) == (Signal.UNKNOWN, "this is no heartbeat of it")


async def test_when_no_counter_moves_nothing_is_known_of_anybody(store: Store) -> None:
    await store.pass_time(2, "kvm-01", "kvm-02", "kvm-03")
    looks = await store.pass_time(20)
    assert {(look.signal, look.detail) for look in looks} == {
        (Signal.UNKNOWN, "no host's counter moves: the storage, or our view of it")
    }


async def test_a_first_look_proves_nothing(store: Store) -> None:
    assert (await store.look("kvm-01")).signal is Signal.UNKNOWN


async def test_a_boot_is_progress_although_the_counter_begins_anew(store: Store) -> None:
    await store.pass_time(3, "kvm-01")
    store.counters["kvm-01"] = 0
    store.now += 1.0
    store.beat("kvm-01", boot_id="boot-2")
    assert (await store.look("kvm-01")).signal is Signal.ALIVE


@pytest.mark.parametrize("content", ["", "nonsense", "{}", "[1]", '{"boot_id": "x", "counter": "many"}'])
async def test_what_is_no_heartbeat_is_unknown(store: Store, content: str) -> None:
    (store.folder / "kvm-01.lease").write_text(content)
    assert (await store.look("kvm-01")).signal is Signal.UNKNOWN


async def test_a_host_without_a_heartbeat_is_unknown_for_ever(store: Store) -> None:
    (store.folder / "kvm-03.lease").unlink()
    looks = await store.pass_time(20, "kvm-01", "kvm-02")
    assert (looks[2].signal, looks[2].detail) == (Signal.UNKNOWN, "no heartbeat: No such file or directory")


@pytest.mark.parametrize("name", ["../kvm-01", ".hidden"])
async def test_a_name_that_leads_elsewhere_is_not_read(store: Store, name: str) -> None:
    reading = await store.probe.ask(Target(host=9, name=name, address=""), store.now)
    assert reading.detail == "its name is no file name"


async def test_a_file_that_hangs_costs_one_child_and_the_next_question_is_answered(store: Store) -> None:
    (store.folder / "kvm-03.lease").unlink()
    os.mkfifo(store.folder / "kvm-03.lease")
    with anyio.fail_after(5):
        hung = await store.look("kvm-03")
        assert (hung.signal, hung.detail) == (Signal.UNKNOWN, "the datastore does not answer us")
        await store.look("kvm-01")
        store.now += 1.0
        store.beat("kvm-01")
        assert (await store.look("kvm-01")).signal is Signal.ALIVE


async def test_a_child_that_was_killed_is_replaced(store: Store) -> None:
    assert store.probe._reader._process is not None
    store.probe._reader._process.kill()
    await store.probe._reader._process.wait()
    assert (await store.look("kvm-01")).signal is Signal.UNKNOWN
    await store.look("kvm-01")
    store.now += 1.0
    store.beat("kvm-01")
    assert (await store.look("kvm-01")).signal is Signal.ALIVE


async def test_a_child_that_could_not_be_started_once_is_started_for_the_next_question(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.probe._reader._process is not None
    store.probe._reader._process.kill()
    await store.probe._reader._process.wait()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nonexistent/python")
        reading = await store.look("kvm-01")
        assert (reading.signal, reading.detail) == (Signal.UNKNOWN, "our own reader failed: No such file or directory")
    await store.look("kvm-01")
    store.now += 1.0
    store.beat("kvm-01")
    assert (await store.look("kvm-01")).signal is Signal.ALIVE


async def test_many_hosts_are_read_by_one_child(store: Store) -> None:
    async with anyio.create_task_group() as group:
        looks: list[Reading] = []

        async def look(name: str) -> None:
            looks.append(await store.look(name))

        for name in [*store.counters] * 100:
            group.start_soon(look, name)
    assert len(looks) == 300
    assert {look.host for look in looks} == {1, 2, 3}
