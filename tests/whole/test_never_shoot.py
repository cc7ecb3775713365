"""A whole controller and hosts with kernels, sshd and BMCs of their own: who must not be powered off, and who must.

In the first part somebody is powered off, each time in a cloud of its own. The second part shares one cloud, in which
nobody may ever be: every test takes its fault back, and the next one begins when all is well. It comes last, for its
cloud lives to the end of the file, and two cannot live at the same time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest
import pytest_asyncio

from tests.whole.lab import CONDEMNED_WITHIN_S, FAIL_AFTER_S, HUNG_WITHIN_S, PROGRAMS, STOPPED, Lab, lab, state_of

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]
PAUSE_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def _needs(require_peer: Callable[[str], str]) -> None:
    for program in PROGRAMS:
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")


# --- somebody is powered off ------------------------------------------------------------------------------------------


async def recovered(here: Lab, host: int, *, others: int = 0) -> str:
    """What is told of an incident whose host is off for sure and whose VMs run elsewhere."""
    shown = await here.shows("RECOVERED", "explain", f"kvm-0{host + 1}", "--last", "30")
    assert here.processes(host) == []
    assert not await here.pings(host)
    assert not here.bmcs[host].power_is_on()
    assert len(here.ordered_off()) == 1 + others
    if not others:
        assert here.cloud.check(vms_must_wait=False) == []
    return shown


async def test_a_host_without_power_is_condemned_at_once_by_its_bmc(tmp_path: Path):
    async with lab(tmp_path, fail_after_s=10.0) as here:
        began = time.time()
        here.pull_power(1)
        assert not here.bmcs[1].power_is_on()
        shown = await recovered(here, 1)
        assert "condemned as powered off" in shown
        assert here.ordered_off() == [1]
        assert here.ordered_at(1) - began < 6.0  # seconds before any silence would have been long enough


async def test_a_host_that_is_dead_everywhere_is_shot_by_two_kinds_of_silence(tmp_path: Path):
    async with lab(tmp_path) as here:
        began = time.time()
        await here.crash(1)
        assert here.processes(1) == []
        assert not await here.pings(1)
        assert here.bmcs[1].power_is_on()
        shown = await recovered(here, 1)
        assert "condemned as dead: it is powered off" in shown
        assert here.ordered_off() == [1]
        assert FAIL_AFTER_S < here.ordered_at(1) - began < CONDEMNED_WITHIN_S


async def test_a_frozen_host_whose_kernel_answers_is_shot_after_a_person_said_yes(tmp_path: Path):
    async with lab(tmp_path) as here:
        here.freeze(1)
        await here.stops(1)
        await here.shows("Verdict      hung: its kernel answers (icmp)", "explain", "kvm-02", within_s=HUNG_WITHIN_S)
        await here.nobody_is_shot(HUNG_WITHIN_S + 3)
        assert here.stands_still(1)
        assert await here.pings(1)
        assert not await here.greets(1)
        [waiting] = await here.reads("pending")
        assert waiting["host"] == "kvm-02"
        assert "waits for approval: hung" in waiting["question"]
        code, text = await here.controller.cli("pending", "approve", str(waiting["id"]))
        assert code == 0, text
        await recovered(here, 1)
        assert here.ordered_off() == [1]


async def test_a_host_that_reboots_faster_than_it_is_missed_gets_its_vms_back_without_a_power_action(tmp_path: Path):
    """Its heartbeat tells another boot, and OpenNebula believes that its VMs run until it is made to ask."""
    async with lab(tmp_path) as here:
        ours = {vm.id for vm in here.cloud.oned.lifecycle.on_host(1)}
        here.reboot(1)
        assert here.cloud.hardware.machines[1].vms == set()
        assert await here.pings(1)
        await here.shows("kvm-02 rebooted by itself: another boot answers", "events")
        await here.shows("rebooted by itself; 2 VMs run again", "incidents")
        assert here.cloud.hardware.machines[1].vms == ours
        assert here.ordered_off() == []
        assert await here.states() == ["ok"] * 4
        assert here.cloud.check(vms_must_wait=False) == []


async def test_isolated_hosts_are_shot_if_the_policy_says_so(tmp_path: Path):
    """Half of the cloud, in different racks: their VMs are started in the other half when they are off for sure."""
    async with lab(tmp_path, policy='isolated = "fence"') as here:
        here.cut_off(0, 1)
        for host in (0, 1):
            shown = await recovered(here, host, others=1)
            assert "condemned as isolated" in shown
        assert here.ordered_off() == [0, 1]
        assert here.cloud.check(vms_must_wait=False) == []


# --- nobody is powered off --------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, _needs: None) -> AsyncIterator[Lab]:
    async with lab(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def here(shared: Lab) -> AsyncIterator[Lab]:
    """The shared cloud, well at the beginning and at the end."""
    await shared.heal()
    yield shared
    await shared.heal()
    assert shared.ordered_off() == []


async def test_a_controller_that_is_cut_off_from_everything_shoots_nobody(here: Lab):
    """Its witness is gone, too, and the datastore, and every BMC."""
    await here.cut_off_from_everything()
    assert await here.each(here.pings, *here.all, -1) == {False}
    assert await here.each(here.bmc_answers, *here.all) == {False}
    assert await here.each(here.writes, *here.all) == {False}
    shown = await here.shows("0 of 1 witnesses answer", "explain", "kvm-02")
    await here.nobody_is_shot()
    assert await here.states() == ["suspect"] * 4
    assert "✗ self-check: 0 of 1 witnesses answer" in shown


async def test_a_controller_that_is_cut_off_from_half_of_the_hosts_calls_them_isolated_and_shoots_none(here: Lab):
    here.cut_off(0, 1)
    await here.becomes("suspect", "suspect", "ok", "ok")
    assert await here.each(here.pings, 0, 1) == {False}
    await here.nobody_is_shot()
    assert await here.each(here.writes, 0, 1) == {True}
    assert await here.states() == ["suspect", "suspect", "ok", "ok"]
    for name in ("kvm-01", "kvm-02"):
        await here.shows("isolated: no answer here, but storage shows life", "explain", name)
        await here.shows(f"{name} is isolated", "events")


async def test_a_rack_whose_switch_is_out_is_held_by_the_shared_cause(here: Lab):
    """Hosts and their storage are gone together, their BMCs hang on another network and say that the power is on."""
    here.cut_off(0, 2)
    here.lose_storage(0, 2)
    shown = await here.shows("✗ shared cause: kvm-01, kvm-03", "explain", "kvm-01")
    assert await here.each(here.pings, 0, 2) == await here.each(here.writes, 0, 2) == {False}
    assert await here.each(here.bmc_answers, 0, 2) == {True}
    assert "kvm-01, kvm-03 fell silent together, 2 of 2 hosts of HA_RACK r1: more likely that than the hosts" in shown
    await here.nobody_is_shot()
    for host in ("kvm-01", "kvm-03"):
        shown = await here.shows("Verdict      dead", "explain", host)  # nothing else would have stopped it
        assert shown.count("✗") == 1
    waiting = await here.reads("pending")
    assert {each["host"] for each in waiting} == {"kvm-01", "kvm-03"}
    assert all("HA_RACK r1" in each["question"] for each in waiting)
    here.come_back(2)
    await here.becomes("suspect", "ok", "ok", "ok")
    await here.nobody_is_shot()  # the last one of its rack is not shot either
    assert not await here.pings(0)
    await here.shows("✗ shared cause: others shared its silence a moment ago", "explain", "kvm-01")


async def test_a_host_that_is_cut_off_and_writes_its_heartbeat_is_isolated_and_not_shot(here: Lab):
    here.cut_off(1)
    await here.shows("kvm-02 is isolated: no answer here, but ", "events")
    assert not await here.pings(1)
    assert not await here.greets(1)
    await here.nobody_is_shot()
    assert await here.writes(1)
    assert await here.states() == ["ok", "suspect", "ok", "ok"]
    await here.shows("isolated: no answer here, but storage shows life", "explain", "kvm-02")


async def test_a_controller_that_stood_still_for_30_s_suspects_nobody(here: Lab):
    process = here.controller.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    await anyio.sleep(PAUSE_S)
    assert state_of(process.pid) == STOPPED
    process.send_signal(signal.SIGCONT)
    until = anyio.current_time() + 2.0
    while anyio.current_time() < until:  # looked at again and again, for a suspicion would pass within a second
        rows = await here.rows()
        assert [row["state"] for row in rows] == ["ok"] * 4
        assert min(row["for_s"] for row in rows) >= PAUSE_S  # no host was anything else meanwhile
    assert "the event loop stood still" in here.controller.log


async def test_a_host_whose_sshd_does_not_answer_for_long_is_not_shot_while_anything_else_of_it_lives(here: Lab):
    here.stop_sshd(1)
    await here.shows("ssh: silent", "explain", "kvm-02")
    assert await here.pings(1)
    assert not await here.greets(1)
    await here.nobody_is_shot(HUNG_WITHIN_S)
    assert not await here.greets(1)
    assert await here.states() == ["ok"] * 4
    assert await here.reads("pending") == []


async def test_an_overloaded_host_whose_processes_run_now_and_then_is_not_shot(here: Lab):
    """Most of the time nothing runs on it: banners come late, or not at all, and so do heartbeats."""
    until = anyio.current_time() + HUNG_WITHIN_S
    while anyio.current_time() < until:
        here.freeze(1)
        await here.stops(1)
        assert await here.pings(1)
        assert not await here.greets(1)
        await here.nobody_is_shot(2.5)
        here.cloud.hardware.heal(1)
        assert not here.stands_still(1)
        await here.nobody_is_shot(4.0)
        assert await here.states() == ["ok"] * 4
    assert await here.reads("pending") == []


async def test_a_host_that_freezes_and_thaws_in_time_is_left_alone(here: Lab):
    here.hang(1)
    await here.stops(1)
    assert not await here.pings(1)
    await here.becomes("ok", "suspect", "ok", "ok", within_s=FAIL_AFTER_S + 2)
    await here.heal()
    assert here.ordered_off() == []


async def test_a_datastore_that_is_down_for_all_shoots_nobody(here: Lab):
    here.lose_storage(*here.all)
    assert not await here.writes(1)
    await here.shows("no host's counter moves: the storage, or our view of it", "explain", "kvm-02")
    await here.nobody_is_shot()
    assert await here.states() == ["ok"] * 4


async def test_a_host_that_lost_its_datastore_is_told_and_not_shot(here: Lab):
    here.lose_storage(1)
    await here.shows("kvm-02: storage lost", "events")
    assert not await here.writes(1)
    await here.nobody_is_shot()
    assert await here.states() == ["ok"] * 4
