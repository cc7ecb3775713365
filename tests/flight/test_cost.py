"""What the flight recorder costs with 10,000 hosts on three channels. `pytest -s` shows it: the figures of the docs."""

from __future__ import annotations

import gc
import gzip
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from ha_controller.core.controller import Controller
from ha_controller.core.events import Event, EvidenceTaken, InventoryRead, TimePassed
from ha_controller.core.model import Device, Domain, Host, Reading, Signal
from ha_controller.core.settings import Channel, Settings
from ha_controller.flight.record import FlightRecord
from ha_controller.flight.recorder import Recorder
from ha_controller.flight.text import read, written

HOSTS, SLOTS = 10_000, 20
CHANNELS = ("icmp", "ssh", "tcp")
SETTINGS = Settings(channels=tuple(Channel(name=name, domain=Domain.MANAGEMENT) for name in CHANNELS))


def inventory() -> InventoryRead:
    return InventoryRead(
        hosts=tuple(
            Host(
                id=number,
                name=f"kvm-{number:05}",
                vms=tuple(range(number * 10, number * 10 + 10)),
                levels=((Device(name="bmc", fingerprint=f"f{number}"),),),
            )
            for number in range(HOSTS)
        )
    )


def second(begin: float, silent: frozenset[int] = frozenset()) -> Iterator[tuple[float, tuple[Event, ...]]]:
    """One second of probing: a twentieth of the hosts at a time, on every channel."""
    for slot in range(SLOTS):
        now = begin + slot / SLOTS
        events = [
            EvidenceTaken(
                channel=channel,
                readings=tuple(
                    Reading(host=host, signal=Signal.SILENT if host in silent else Signal.ALIVE, sent_at=now)
                    for host in range(slot, HOSTS, SLOTS)
                ),
            )
            for channel in CHANNELS
        ]
        yield now, (*events, TimePassed())


class Measured:
    """A core with a recorder beside it."""

    def __init__(self) -> None:
        self.controller = Controller(SETTINGS, 1000.0)
        self.recorder = Recorder(self.controller, 1000.0)
        self.cpu_s = 0.0
        self.longest_s = 0.0
        self.now = 1000.0
        self.note((inventory(),))

    def note(self, events: tuple[Event, ...]) -> None:
        effects = [effect for event in events for effect in self.controller.step(event, self.now).effects]
        began = time.process_time()
        self.recorder.note(events, effects, self.now)
        took_s = time.process_time() - began
        self.cpu_s += took_s
        self.longest_s = max(self.longest_s, took_s)

    def run(self, seconds: int, silent: frozenset[int] = frozenset()) -> None:
        for _ in range(seconds):
            for now, events in second(self.now, silent):
                self.now = now
                self.note(events)
            self.now = round(self.now + 1 / SLOTS, 3)


@pytest.mark.slow
def test_ten_thousand_hosts_cost_little_time_and_memory():
    gc.collect()
    tracemalloc.start()
    measured = Measured()
    measured.run(3)
    held_mb, _ = (size / 1e6 for size in tracemalloc.get_traced_memory())
    recorder, measured.recorder = measured.recorder, Recorder(measured.controller, measured.now)
    del recorder
    gc.collect()
    without_mb, _ = (size / 1e6 for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    measured.recorder = Recorder(measured.controller, measured.now)
    measured.run(2)
    measured.cpu_s, measured.longest_s = 0.0, 0.0
    measured.run(10)
    each_us = measured.cpu_s / (10 * HOSTS * len(CHANNELS)) * 1e6
    share = measured.cpu_s / 10
    print(
        f"\nsteady: {each_us:.2f} µs a reading, {share:.1%} of a core, longest round {measured.longest_s * 1e3:.1f} ms"
    )
    print(f"memory: {held_mb - without_mb:.0f} MB")
    began = time.process_time()
    cut = measured.recorder.cut([1], measured.now, "measured")
    cut_s = time.process_time() - began
    began = time.process_time()
    record = cut.record()
    text = b"".join(written(record))
    print(
        f"cut {cut_s * 1e3:.0f} ms; written {time.process_time() - began:.1f} s CPU, {len(text) / 1e6:.1f} MB", end=", "
    )
    print(f"{len(gzip.compress(text, 1)) / 1e6:.1f} MB packed")
    again: FlightRecord = read(text.decode().splitlines())
    assert again == record
    measured.run(1)
    assert cut.record() == record  # what was cut stays as it was
    silent = frozenset(range(0, HOSTS, 2))
    measured.cpu_s, measured.longest_s = 0.0, 0.0
    measured.run(5, silent)
    print(
        f"half of the hosts silent: {measured.cpu_s / 5:.1%} of a core, longest round {measured.longest_s * 1e3:.1f} ms"
    )
    assert each_us < 5
    assert held_mb - without_mb < 60
    assert cut_s < 0.1
