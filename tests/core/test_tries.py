"""Orders that OpenNebula refuses, does not take, or does not carry out: what counts, when again, and what is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import SETTINGS, Cloud, seen

from ha_controller.core import tries, vm_orders
from ha_controller.core.effects import MoveVm, RecoverVm, ResumeVm, Tell
from ha_controller.core.events import OrderResult, VmOrderReported
from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.model import HostState
from ha_controller.core.resources import Startup
from ha_controller.core.tries import REFUSED_AGAIN_S, REPEAT_AFTER_S
from ha_controller.core.vm_table import Recover


class Answers(Cloud):
    """Every order about VM 30 gets this answer, until there is none any more."""

    answer: tuple[OrderResult, str] | None = None

    def _do(self, effect):
        if isinstance(effect, MoveVm | ResumeVm | RecoverVm) and effect.vm == 30 and self.answer is not None:
            self._reported(effect, *self.answer)
        else:
            super()._do(effect)


def orders(cloud: Cloud, kind: type = MoveVm) -> list[float]:
    return [at for at, each in cloud.effects if isinstance(each, kind) and each.vm == 30]


def told(cloud: Cloud, words: str) -> list[str]:
    return [each.text for each in cloud.ordered(Tell) if words in each.text]


NOT_NOW = (OrderResult.NOT_NOW, "[one.vm.migrate] User couldn't be authenticated, aborting call.")
REFUSED = (OrderResult.REFUSED, "user [4] : limit of 3 reached for VMS quota")


@pytest.fixture
def cloud() -> Answers:
    made = Answers()
    made.run(6)
    return made


def record(cloud: Cloud):
    return cloud.incident(3).vm(30)


def test_an_order_that_was_not_taken_is_repeated_with_pauses_without_an_end_of_tries(cloud):
    cloud.answer = NOT_NOW
    cloud.kill(3, "off")
    cloud.run(60)
    pauses = [later - at for at, later in zip(orders(cloud), orders(cloud)[1:], strict=False)]
    assert len(pauses) > 8
    assert all(REPEAT_AFTER_S <= pause < REPEAT_AFTER_S + 1 for pause in pauses)
    assert (record(cloud).tries, record(cloud).stage) == (0, VmStage.WAITING)
    assert record(cloud).order == len(orders(cloud)), "numbered on, so that late reports are recognised"
    cloud.answer = None
    cloud.run(10)
    assert (record(cloud).stage, record(cloud).put_off) == (VmStage.RUNNING, 0)


def test_it_is_told_once_and_only_if_it_lasts(cloud):
    cloud.answer = NOT_NOW
    cloud.kill(3, "off")
    while not orders(cloud):
        cloud.run(0.2)
    assert told(cloud, "does not take orders") == []
    cloud.run(60)
    assert len(told(cloud, "does not take orders")) == 1
    assert "vm-30: [one.vm.migrate] User couldn't be authenticated" in told(cloud, "does not take orders")[0]


def test_it_does_not_go_on_for_ever(cloud):
    cloud.settings = replace(SETTINGS, put_offs_max=10)
    cloud.reconfigure(cloud.settings)
    cloud.answer = NOT_NOW
    cloud.kill(3, "off")
    cloud.run(80)
    assert record(cloud).stage is VmStage.LEFT
    assert "did not take the order, 10 times in a row: [one.vm.migrate] User" in record(cloud).reason


def test_after_an_order_that_was_lost_one_that_is_not_taken_keeps_the_destination(cloud):
    cloud.answer = (OrderResult.UNKNOWN, "no answer within 15 s")
    cloud.kill(3, "off")
    while not orders(cloud):
        cloud.run(0.2)
    first = record(cloud).destination
    cloud.answer = NOT_NOW
    cloud.run(25)
    assert len(orders(cloud)) == 2
    assert (record(cloud).destination, record(cloud).stage, record(cloud).tries) == (first, VmStage.MOVING, 1)


def test_a_recover_that_was_not_taken_does_not_use_up_the_tries(cloud):
    cloud.become(30, 3, 36)  # BOOT_FAILURE: recover 1
    cloud.run(2)
    cloud.answer = NOT_NOW
    cloud.kill(3, "off")
    cloud.run(90)
    assert len(orders(cloud, RecoverVm)) > SETTINGS.recovers_max
    assert record(cloud).recovers == 0
    assert told(cloud, "does not take orders")
    cloud.answer = None
    cloud.run(30)
    assert record(cloud).stage is VmStage.RUNNING


def test_a_start_after_a_reboot_that_is_refused_is_repeated_slowly_and_told():
    cloud = Answers(
        settings=seen().settings, boots={host: f"first-{host}" for host in range(8)}, elsewhere={"storage": {}}
    )
    cloud.run(6)
    cloud.answer = REFUSED
    cloud.reboot(3)
    cloud.run(5 * REFUSED_AGAIN_S)
    starts = orders(cloud, ResumeVm)
    assert 5 <= len(starts) <= 9
    assert len(told(cloud, "refused by OpenNebula: vm-30: user [4] : limit of 3")) == 1
    cloud.answer = None
    cloud.run(REFUSED_AGAIN_S + 5)
    assert (record(cloud).stage, cloud.incident(3).open) == (VmStage.RUNNING, False)


def test_nobody_waits_for_a_vm_whose_moves_are_refused(cloud):
    cloud.vms[30] = replace(cloud.vms[30], startup=Startup(priority=10))
    cloud.run(2)
    cloud.answer = REFUSED
    cloud.kill(3, "off")
    cloud.run(15)
    assert record(cloud).stage is VmStage.WAITING
    assert cloud.incident(3).vm(31).stage is VmStage.RUNNING


class Refuses(Answers):
    """The starts of these VMs are refused, their moves are not."""

    refused: frozenset[int] = frozenset()

    def _do(self, effect):
        if isinstance(effect, ResumeVm) and effect.vm in self.refused:
            self._reported(effect, *REFUSED)
        else:
            super()._do(effect)


def starts_refused(cloud: Refuses, host: int, *vms: int) -> None:
    """OpenNebula has these VMs POWEROFF on a host that died with them, moves them, and refuses to start them."""
    cloud.refused = frozenset(vms)
    cloud.kill(host, "off")
    while not cloud.incidents:
        cloud.run(0.2)
    for vm in vms:
        cloud.become(vm, 8, found_missing_at=cloud.now)


def test_starts_that_are_refused_for_long_do_not_keep_others_waiting():
    cloud = Refuses(settings=replace(SETTINGS, moves_parallel=2, canary_above=9), vms_per_host=4)
    cloud.run(6)
    starts_refused(cloud, 3, 30, 31)
    cloud.run(40)
    assert cloud.incident(3).vm(30).refusals >= SETTINGS.move_tries_max
    assert {cloud.incident(3).vm(vm).stage for vm in (32, 33)} == {VmStage.RUNNING}
    cloud.kill(4, "off")
    cloud.run(40)
    assert {record.stage for record in cloud.incident(4).vms} == {VmStage.RUNNING}
    cloud.refused = frozenset()
    cloud.run(REFUSED_AGAIN_S + 10)
    assert {cloud.incident(3).vm(vm).stage for vm in (30, 31)} == {VmStage.RUNNING}


def test_starts_that_were_refused_begin_no_more_at_once_than_others():
    cloud = Refuses(settings=replace(SETTINGS, moves_parallel=2, canary_above=9), vms_per_host=6)
    cloud.run(6)
    starts_refused(cloud, 3, 30, 31, 32, 33, 34)
    cloud.run(60)
    begun = len(cloud.effects)
    cloud.refused = frozenset()
    cloud.deaf.add(ResumeVm)
    cloud.run(REFUSED_AGAIN_S + 5)
    assert len({each.vm for _, each in cloud.effects[begun:] if isinstance(each, ResumeVm)}) == 2


def test_nobody_waits_for_long_for_a_vm_whose_orders_are_not_taken(cloud):
    cloud.settings = replace(SETTINGS, tier_timeout_s=30.0)
    cloud.reconfigure(cloud.settings)
    cloud.vms[30] = replace(cloud.vms[30], startup=Startup(priority=10))
    cloud.run(2)
    cloud.answer = NOT_NOW
    cloud.kill(3, "off")
    cloud.run(60)
    assert record(cloud).put_off > 5
    assert cloud.incident(3).vm(31).stage is VmStage.RUNNING


def test_a_vm_that_failed_on_one_host_has_all_its_tries_on_the_next(cloud):
    cloud.no_start = {30: {0, 1}}
    cloud.kill(3, "off")
    cloud.run(90)
    assert record(cloud).stage is VmStage.RUNNING
    assert record(cloud).tries == 1
    assert told(cloud, "does not carry out orders") == []


def test_a_report_of_an_order_of_before_changes_nothing(cloud):
    cloud.answer = NOT_NOW
    cloud.kill(3, "off")
    cloud.run(20)
    before = record(cloud)
    cloud.feed(VmOrderReported(vm=30, incident=1, attempt=1, result=OrderResult.REFUSED, detail="late"))
    assert record(cloud) == before


@pytest.mark.parametrize("result", [OrderResult.REFUSED, OrderResult.NOT_NOW, OrderResult.SKIPPED])
def test_what_an_order_of_before_may_have_done_is_not_forgotten_because_the_last_one_did_nothing(cloud, result):
    def ordered(record, vm, call, what=OrderResult.ACCEPTED):
        incident = Incident(id=1, host=3, host_name="kvm-03", opened_at=1.0, state=HostState.FENCED, verdict="dead")
        record, order = vm_orders.recover(incident, record, vm, call, second_start=False, not_after=9.0, now=2.0)
        report = VmOrderReported(vm=30, incident=1, attempt=order.attempt, result=what, detail="")
        return tries.reported(SETTINGS, record, report, 3.0, away=vm.host != 3)

    here, failed = cloud.vms[30], replace(cloud.vms[30], host=5, lcm_state=36)
    never = ordered(VmRecord.of(here), here, Recover.RECREATE, result)
    assert not never.recreated
    anew = ordered(ordered(never, here, Recover.RECREATE), replace(here, lcm_state=15), Recover.SUCCESS, result)
    assert anew.recreated, "OpenNebula's scheduler goes on with it"
    false = ordered(ordered(VmRecord.of(here), failed, Recover.SUCCESS), failed, Recover.SUCCESS, result)
    assert false.doubted, "RUNNING there may have been written down by us"
    assert not ordered(VmRecord.of(here), failed, Recover.SUCCESS, result).doubted


def test_only_where_an_order_may_have_come_to_its_effect_is_remembered(cloud):
    cloud.answer = NOT_NOW
    cloud.kill(3, "off")
    cloud.run(20)
    assert (record(cloud).ordered_to, record(cloud).put_off > 1) == ((), True)
    cloud.answer = (OrderResult.UNKNOWN, "no answer within 15 s")
    cloud.run(6)
    lost = record(cloud).destination
    assert record(cloud).ordered_to == (lost,)
    cloud.answer = NOT_NOW
    cloud.run(25)
    assert record(cloud).put_off > 0
    assert record(cloud).ordered_to == (lost,), "the one of before may still arrive"
