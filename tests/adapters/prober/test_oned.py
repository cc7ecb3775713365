"""The oned channel: one reading per new view, and nothing but progress is life."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ha_controller.adapters.prober.oned import OnedConfig, OnedProbe
from ha_controller.plugin import OnedView, ProbeContext, Reading, Signal, Target

MONITORED, ERROR, DISABLED, OFFLINE = 2, 3, 4, 8


class Oned:
    """Reads one host every 10 s, as the inventory does, and shows each view to the channel."""

    def __init__(self, make_context: Callable[..., ProbeContext], target: Target) -> None:
        self.view: OnedView | None = None
        self.probe = OnedProbe(OnedConfig(silent_after="30s"), make_context(oned_view=lambda host: self.view))
        self.target = target
        self.read_at = 1000.0

    def shows(self, monitored_at: int, state: int = MONITORED) -> list[Reading]:
        previous, self.read_at = self.read_at if self.view else None, self.read_at + 10
        self.view = OnedView(state=state, monitored_at=monitored_at, read_at=self.read_at, previous_read_at=previous)
        return self.look()

    def look(self) -> list[Reading]:
        self.probe.launch([self.target], self.read_at + 1)
        return self.probe.collect(self.read_at + 1)


@pytest.fixture
def oned(make_context: Callable[..., ProbeContext], make_target: Callable[..., Target]) -> Oned:
    return Oned(make_context, make_target(4))


def test_a_host_that_was_never_read_brings_no_reading(oned: Oned) -> None:
    assert oned.look() == []


def test_the_first_view_proves_nothing(oned: Oned) -> None:
    (reading,) = oned.shows(500)
    assert reading.signal is Signal.UNKNOWN


def test_a_view_is_told_once(oned: Oned) -> None:
    assert len(oned.shows(500)) == 1
    assert oned.look() == []
    assert len(oned.shows(500)) == 1


def test_progress_is_life_at_the_time_of_the_read_before(oned: Oned) -> None:
    oned.shows(500)
    before = oned.read_at
    assert oned.shows(507) == [Reading(host=4, signal=Signal.ALIVE, sent_at=before, detail="new monitoring data")]


def test_life_is_not_dated_later_than_the_last_view_that_was_seen(oned: Oned) -> None:
    oned.shows(500)
    seen_at = oned.read_at
    oned.view = OnedView(state=MONITORED, monitored_at=507, read_at=seen_at + 20, previous_read_at=seen_at + 10)
    (reading,) = oned.look()
    assert (reading.signal, reading.sent_at) == (Signal.ALIVE, seen_at)


def test_no_progress_is_unknown_first_and_silence_in_the_end(oned: Oned) -> None:
    oned.shows(500)
    oned.shows(510)
    signals = [oned.shows(510)[0] for _ in range(4)]
    assert [reading.signal for reading in signals] == [Signal.UNKNOWN, Signal.UNKNOWN, Signal.SILENT, Signal.SILENT]
    assert signals[2].detail == "no monitoring data for 30 s"
    assert signals[2].sent_at == oned.read_at - 10


def test_the_state_error_is_silence_at_once(oned: Oned) -> None:
    oned.shows(500)
    (reading,) = oned.shows(500, ERROR)
    assert (reading.signal, reading.detail, reading.sent_at) == (Signal.SILENT, "oned says ERROR", oned.read_at)


def test_a_disabled_host_is_still_monitored_and_alive(oned: Oned) -> None:
    oned.shows(500, DISABLED)
    assert oned.shows(510, DISABLED)[0].signal is Signal.ALIVE


def test_an_offline_host_is_not_monitored_and_so_never_silent(oned: Oned) -> None:
    assert {oned.shows(500, OFFLINE)[0].signal for _ in range(6)} == {Signal.UNKNOWN}
    assert oned.shows(500)[0].signal is Signal.UNKNOWN, "silence counts from when monitoring could begin again"


def test_a_front_end_clock_that_was_set_back_makes_no_host_silent(oned: Oned) -> None:
    oned.shows(5000)
    for _ in range(6):
        oned.shows(5000)
    (reading,) = oned.shows(1400)
    assert reading.signal is Signal.UNKNOWN
    assert oned.shows(1410)[0].signal is Signal.ALIVE
