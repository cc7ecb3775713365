"""The black box writes beside the decisions: when, how far, for whom, and what its failures cost."""

from __future__ import annotations

import gzip
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from world import Cloud

from ha_controller.app import black_box
from ha_controller.app.black_box import BlackBox
from ha_controller.core.effects import Fence
from ha_controller.core.incident import CloudRecord
from ha_controller.flight.record import FlightRecord
from ha_controller.flight.replay import replay
from ha_controller.flight.text import read


class Recorded(Cloud):
    """A cloud whose recorder is a black box."""

    box: BlackBox

    def use(self, folder: Path) -> BlackBox:
        box = self.box = BlackBox(self.controller, folder, self.now)

        class Notes:
            held = False

            def note(self, events: object, effects: object, now: float) -> None:
                box.note(events, effects, now)  # type: ignore[arg-type]

        self.recorder = Notes()  # type: ignore[assignment]
        self._begin()
        return box


@pytest.fixture
def cloud(tmp_path: Path) -> Recorded:
    made = Recorded()
    made.use(tmp_path / "flights")
    made.run(6)
    return made


def _said(logged: list[Any], words: str) -> int:
    """How many lines of the log say so."""
    return sum(words in line["event"] for line in logged)


@asynccontextmanager
async def writing(cloud: Recorded) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(cloud.box.run)
        yield
        group.cancel_scope.cancel()


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not true():
            await anyio.sleep(0.02)


def on_disk(folder: Path, number: int) -> FlightRecord | None:
    path = folder / "flights" / f"flight-{number:06}.jsonl.gz"
    return read(gzip.open(path, "rt").read().splitlines()) if path.exists() else None


async def fetched(cloud: Recorded, incident: int) -> FlightRecord | None:
    text = await cloud.box.fetch(incident)
    return None if text is None else read(text.decode().splitlines())


async def test_a_record_is_on_disk_from_the_opening_of_an_incident_until_it_is_recovered(
    cloud: Recorded, tmp_path: Path
):
    async with writing(cloud):
        cloud.kill(3)
        cloud.run(59)
        assert not (tmp_path / "flights").exists()
        cloud.run(1.4)  # the incident is open, and its host was ordered off
        await until(lambda: (tmp_path / "flights" / "flight-000001.jsonl.gz").exists())
        first = on_disk(tmp_path, 1)
        assert first is not None
        assert (first.incidents, first.end) == ((1,), black_box.GOES_ON)
        cloud.run(30)
        await until(lambda: (last := on_disk(tmp_path, 1)) is not None and last.end != black_box.GOES_ON)
    record = on_disk(tmp_path, 1)
    assert record is not None
    assert record.end == "all that was to be done is done"
    shots = [(at, effect.host) for at, effect in cloud.effects if isinstance(effect, Fence)]
    assert [(at, effect.host) for at, effect in replay(record).effects if isinstance(effect, Fence)] == shots
    assert (tmp_path / "flights").stat().st_mode & 0o777 == 0o700


async def test_incidents_that_open_meanwhile_are_in_the_same_record(cloud: Recorded):
    async with writing(cloud):
        cloud.kill(3, "mute")
        cloud.run(61)
        cloud.kill(5, "mute")
        cloud.run(61)
        first, second = await fetched(cloud, 1), await fetched(cloud, 2)
        assert first is not None
        assert second is not None
        assert first.incidents == second.incidents == (1, 2)
        assert await fetched(cloud, 3) is None


async def test_an_incident_that_waits_for_a_person_is_recorded_for_a_quarter_of_an_hour(
    cloud: Recorded, tmp_path: Path
):
    async with writing(cloud):
        cloud.kill(3, "mute")
        cloud.run(60 + black_box.FLIGHT_MAX_S + 30)
        await until(lambda: (last := on_disk(tmp_path, 1)) is not None and "no further than" in last.end)
        record = await fetched(cloud, 1)
        assert record is not None
        assert black_box.FLIGHT_MAX_S - 1 < record.ends_at - (record.beginning.at + 66) < black_box.FLIGHT_MAX_S + 1
        assert replay(record).partings == {}


async def test_an_incident_that_was_open_at_the_start_is_not_recorded_as_if_it_began_then(tmp_path: Path):
    cloud = Recorded()
    cloud.run(6)
    cloud.kill(3, "mute")
    cloud.run(70)
    cloud.use(tmp_path / "flights")
    async with writing(cloud):
        cloud.run(20)
        assert await fetched(cloud, 1) is None


async def test_a_disk_that_takes_nothing_costs_the_record_and_no_decision(
    cloud: Recorded, tmp_path: Path, logged: list[Any]
):
    (tmp_path / "flights").write_text("a file where the folder should be")
    async with writing(cloud):
        cloud.kill(3)
        cloud.run(61)
        await until(lambda: _said(logged, "a flight record could not be written"))
    assert cloud.ordered(Fence)


async def test_a_disk_that_hangs_is_told_and_holds_nothing_up(
    cloud: Recorded, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
):
    goes_on = threading.Event()
    monkeypatch.setattr(black_box, "WRITE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(black_box, "_written_to", lambda path, record: goes_on.wait(60))
    async with writing(cloud):
        cloud.kill(3)
        cloud.run(61)
        await until(lambda: _said(logged, "the disk hangs"))
        monkeypatch.setattr(black_box, "WRITE_TIMEOUT_S", 20)  # what is fetched is written by the processor alone
        assert await fetched(cloud, 1) is not None
        goes_on.set()
    assert cloud.ordered(Fence)


def test_a_recorder_that_fails_is_told_once_and_decisions_go_on(
    cloud: Recorded, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
):
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ha_controller.flight.recorder.Recorder.note", broken)
    cloud.kill(3)
    cloud.run(61)
    assert cloud.ordered(Fence)
    assert _said(logged, "the flight recorder failed") == 1


async def test_only_the_newest_records_are_kept(cloud: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(black_box, "FLIGHTS_MAX", 2)
    folder = tmp_path / "flights"
    folder.mkdir()
    cloud.controller.state.cloud = CloudRecord(next_incident=1_000_001)
    cloud.use(folder)
    cloud.run(6)
    for number in (7, 999_999):
        (folder / f"flight-{number:06}.jsonl.gz").touch()
    async with writing(cloud):
        cloud.kill(3)
        cloud.run(61)
        await until(lambda: (folder / "flight-1000001.jsonl.gz").exists())
        await until(lambda: not (folder / "flight-000007.jsonl.gz").exists())
    assert (folder / "flight-999999.jsonl.gz").exists()
