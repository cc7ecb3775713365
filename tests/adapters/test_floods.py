"""Floods: datagrams, readings, orders, outputs. What is too much is bounded, dropped and counted, never kept."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import anyio
import pytest

from ha_controller import process
from ha_controller.adapters.commander import COMMANDS_MAX, Commander
from ha_controller.adapters.domains import NoList, domains_in
from ha_controller.adapters.prober import Prober, kdump
from ha_controller.adapters.prober.libvirt import judged
from ha_controller.adapters.prober.scheduler import READINGS_MAX
from ha_controller.adapters.prober.storage import StorageConfig, StorageProbe
from ha_controller.adapters.recoverer.scope import zombies_of
from ha_controller.core.controller import Controller
from ha_controller.core.events import EvidenceTaken, OperatorCommanded, SightTold, Verb
from ha_controller.core.model import SeenAlive
from ha_controller.core.placement.expression import Unreadable, parse
from ha_controller.core.settings import Settings
from ha_controller.engine import EVIDENCE_QUEUE_MAX, Engine
from ha_controller.plugin import Domain, Probe, ProbeConfig, ProbeContext, Reading, Signal, Target
from ha_controller.showable import one_line

CONTEXT = ProbeContext(read_power=None, oned_view=None)  # type: ignore[arg-type]  # nobody is asked here


async def test_more_orders_than_the_core_answers_are_refused_and_counted():
    posted: list[OperatorCommanded] = []
    commander = Commander(posted.append)
    async with anyio.create_task_group() as group:
        for _ in range(COMMANDS_MAX):
            group.start_soon(lambda: _order(commander))
        await anyio.wait_all_tasks_blocked()
        answer = await _order(commander)
        group.cancel_scope.cancel()
    assert answer.code == 6
    assert "Nothing was done" in answer.text
    assert (len(posted), commander.refused) == (COMMANDS_MAX, 1)


async def _order(commander: Commander):
    return await commander.order(Verb.PAUSE, who="root", origin="test", reason="", host=None, incident=None)


async def test_more_evidence_than_the_core_takes_is_dropped_and_counted():
    engine = Engine(Controller(Settings(), 0.0), journal=None, dispatch=print, record=print, clock=lambda: 0.0)  # type: ignore[arg-type]  # it does not run
    for _ in range(EVIDENCE_QUEUE_MAX + 7):
        engine.post(EvidenceTaken(channel="icmp", readings=()))
    assert engine.evidence_dropped == 7


async def test_words_of_another_controller_that_nobody_takes_up_do_not_pile_up():
    engine = Engine(Controller(Settings(), 0.0), journal=None, dispatch=print, record=print, clock=lambda: 0.0)  # type: ignore[arg-type]  # it does not run
    words = [
        SightTold(controller=name, alive=(SeenAlive(host=1, channel="icmp", at=float(at)),))
        for at in range(9)
        for name in ("one-2", "one-3")
    ]
    for word in words:
        engine.post(word)
    engine.post(SightTold(controller="one-3", alive=()))  # just restarted: that takes nothing back
    assert list(engine._inbox)[:2] == words[-2:]


async def test_a_channel_that_floods_counts_as_failed():
    class Flood(Probe[ProbeConfig]):
        kind, config_model, domain = "flood", ProbeConfig, Domain.ONED

        async def open(self) -> str:
            return "open"

        async def close(self) -> None:
            pass

        def launch(self, targets, now) -> None:
            self.host = targets[0].host

        def collect(self, now):
            return [Reading(host=1, signal=Signal.SILENT, sent_at=now, detail="")] * (READINGS_MAX + 1)

    heard: list[Reading] = []
    prober = Prober(
        {"flood": Flood(ProbeConfig(), CONTEXT)},
        interval_s=0.05,
        confirm_interval_s=0.05,
        clock=time.monotonic,
        sink=lambda name, domain, readings: heard.extend(readings),
    )
    prober.set_targets([Target(host=1, name="kvm-01", address="192.0.2.1")])
    with anyio.move_on_after(0.5):
        await prober.run()
    assert heard
    assert {reading.signal for reading in heard} == {Signal.UNKNOWN}
    assert len(heard) < 100


async def test_a_flood_of_datagrams_holds_nothing_up_and_is_not_kept():
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    probe = kdump.KdumpProbe(kdump.KdumpConfig(port=port), CONTEXT)
    await probe.open()
    try:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            for number in range(20_000):
                sender.sendto(b"noise %d" % number * 8, ("127.0.0.1", port))
            began_at = time.perf_counter()
            probe.launch([Target(host=1, name="kvm-01", address="127.0.0.1")], 1.0)
            [reading] = probe.collect(2.0)
            assert time.perf_counter() - began_at < 0.5
            assert reading.signal is Signal.UNKNOWN
            while probe._sockets and _drained(probe):
                pass
            sender.sendto(struct.pack("<II", kdump.MAGIC, kdump.VERSION), ("127.0.0.1", port))
            probe.launch([Target(host=1, name="kvm-01", address="127.0.0.1")], 3.0)
            [reading] = probe.collect(4.0)
            assert reading.signal is Signal.DUMPING
    finally:
        await probe.close()


def _drained(probe: kdump.KdumpProbe) -> bool:
    try:
        probe._sockets[0].recvfrom(64)
    except BlockingIOError:
        return False
    return True


async def test_a_program_that_talks_without_end_fills_no_memory():
    with anyio.move_on_after(1.0) as waiting:
        await process.run(["/bin/sh", "-c", "exec yes"], output_bytes_max=1000)
    assert waiting.cancelled_caught
    ended = await process.run(["/bin/sh", "-c", "head -c 30000000 /dev/zero; echo no >&2; exit 3"])
    assert (ended.status, len(ended.output), ended.errors) == (3, process.OUTPUT_BYTES_MAX, "no\n")


async def test_a_program_that_does_not_read_what_it_is_given_is_waited_for_all_the_same():
    ended = await process.run(["/bin/sh", "-c", "exec <&-; sleep 0.2; echo done"], "x" * 1_000_000)
    assert (ended.status, ended.output) == (0, "done\n")
    ended = await process.run(["/bin/sh", "-c", "wc -c"], "x" * 1_000_000)
    assert ended.output.strip() == "1000000"


# --- texts that are made to cost time ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        lambda: _refused(Unreadable, parse, " " * 16_000 + "~"),
        lambda: _refused(Unreadable, parse, "A=1" + " " * 16_000 + "~"),
        lambda: _refused(NoList, domains_in, f" Id Name State\n 1 one-7 x{' ' * 65_000}y\n 2 one-{'9' * 5000} r\n"),
        lambda: _refused(NoList, domains_in, f" Id Name State\n 1 one-{'9' * 5000} running\nend of list\n"),
        lambda: judged("failed to connect socket " * 2600 + "\nvirsh ended 1"),
        lambda: judged("virsh ended " + "9" * 5000),
        lambda: parse("&".join("(A = 1)" for _ in range(2000))),
        lambda: one_line("\x1b[2J" * 100_000),
    ],
)
def test_a_text_that_is_made_to_cost_time_costs_none(read):
    began_at = time.perf_counter()
    read()
    assert time.perf_counter() - began_at < 0.5


def _refused(kind, read, text) -> None:
    with pytest.raises(kind):
        read(text)


class _Zombies:
    zombies = ("one-7", "one-" + "9" * 5000, "one-x", "wild-1", "²")


def test_a_zombie_with_a_number_without_an_end_ends_no_inventory():
    assert zombies_of(_Zombies()) == (7,)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../kvm-02", "/etc/shadow", "..", ".hidden", "a/b", "kvm\n2 /etc/hostname", "kvm\0", "\u202ekvm"]
)
async def test_a_hosts_name_leads_to_no_other_file(name, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "kvm-02.lease").write_text("{}")
    probe = StorageProbe(StorageConfig(folder=tmp_path / "folder"), CONTEXT)
    reading = await probe.ask(Target(host=1, name=name, address="192.0.2.1"), 1.0)
    assert (reading.signal, reading.detail) == (Signal.UNKNOWN, "its name is no file name")
