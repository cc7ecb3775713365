"""Sequences that a review found to end badly: what was believed too early, forgotten or repeated for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud

from ha_controller.core.controller import Controller
from ha_controller.core.effects import Answer, Fence, HostStep, MoveVm, OrderHost, ReadPower
from ha_controller.core.events import (
    DeviceChecked,
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    FenceResult,
    HostReaddressed,
    OperatorCommanded,
    OrderResult,
    PowerRead,
    TimePassed,
    Verb,
    VmOrderReported,
)
from ha_controller.core.incident import AttemptOutcome, Lever, VmStage
from ha_controller.core.model import Device, HostState, PowerState, Reading, Signal
from ha_controller.core.settings import Mode

BMC, PDU = Device(name="bmc", identity_noted=True), Device(name="pdu", identity_noted=True)


def run_until(cloud: Cloud, kind: type) -> None:
    for _ in range(500):
        if cloud.ordered(kind):
            return
        cloud.run(0.2)
    raise AssertionError(f"no {kind.__name__}")


def look(cloud: Cloud, **signals: Signal) -> None:
    """One round of probes: host 3 as named by channel, all others alive."""
    done = len(cloud.effects)
    for channel, signal in signals.items():
        readings = tuple(
            Reading(host=host, signal=signal if host == 3 else Signal.ALIVE, sent_at=cloud.now)
            for host in range(cloud.hosts)
            if host == 3 or channel != "bmc"
        )
        cloud.feed(EvidenceTaken(channel=channel, readings=readings))
    cloud.feed(TimePassed())
    cloud._carry_out(done)


def fence_fails(cloud: Cloud, result: FenceResult = FenceResult.UNVERIFIED) -> None:
    order = cloud.ordered(Fence)[-1]
    cloud.feed(
        FenceReported(
            host=3, incident=order.incident, attempt=order.attempt, result=result, off_read_at=None, detail="still on"
        )
    )


# --- what proves that a host is off -----------------------------------------------------------------------------------


class _LyingPdu(Cloud):
    """The BMC says ON all the time; the outlet belongs to another machine and reads off."""

    def _fence(self, order: Fence) -> None:
        off = order.devices == ("pdu",)
        self.feed(
            FenceReported(
                host=order.host,
                incident=order.incident,
                attempt=order.attempt,
                result=FenceResult.OFF_READ if off else FenceResult.UNVERIFIED,
                off_read_at=self.now if off else None,
                detail="",
            )
        )

    def _do(self, effect: object) -> None:
        if isinstance(effect, ReadPower):
            says = {"bmc": PowerState.ON, "pdu": PowerState.OFF}
            self.feed(
                PowerRead(
                    host=effect.host, asked_at=self.now, states=tuple((name, says[name]) for name in effect.devices)
                )
            )
        else:
            super()._do(effect)  # type: ignore[arg-type]


def test_a_device_that_reads_on_voids_what_another_one_read():
    cloud = _LyingPdu(levels=((BMC,), (PDU,)))
    cloud.run(6)
    cloud.kill(3)
    cloud.run(90)
    incident = cloud.incident(3)
    assert not cloud.ordered(MoveVm)
    assert not cloud.ordered(OrderHost)
    assert incident.attempts[-1].outcome is AttemptOutcome.VOIDED
    assert "bmc reads ON" in incident.stopped
    assert incident.barred == ("pdu",)


def test_a_confirm_off_is_answered_by_a_reading_of_all_devices_that_was_asked_for_after_it():
    cloud = Cloud(levels=((BMC,), (PDU,)))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.deaf.add(ReadPower)
    cloud.run(3)
    cloud.operator(Verb.CONFIRM_OFF, 3)
    asked_at = cloud.now
    cloud.feed(PowerRead(host=3, asked_at=asked_at - 3, states=(("bmc", PowerState.UNKNOWN),)))
    cloud.feed(PowerRead(host=3, asked_at=asked_at, states=(("bmc", PowerState.UNKNOWN),)))
    assert not cloud.ordered(Answer)
    cloud.feed(PowerRead(host=3, asked_at=asked_at, states=(("bmc", PowerState.UNKNOWN), ("pdu", PowerState.ON))))
    assert cloud.ordered(Answer)[-1].code == 4


def test_a_device_that_reads_on_stops_a_persons_word_too(cloud):
    cloud.kill(3, "mute")
    cloud.run(90)
    cloud.deaf.add(MoveVm)
    cloud.operator(Verb.CONFIRM_OFF, 3)
    cloud.run(1)
    assert cloud.state(3) is HostState.FENCED
    cloud.dead[3] = "on"
    cloud.run(6)
    assert "bmc reads ON" in cloud.incident(3).stopped
    assert not cloud.ordered(MoveVm)


def test_after_a_restart_a_persons_word_needs_a_look_first(cloud):
    cloud.kill(3, "mute")
    cloud.run(90)
    cloud.deaf.add(MoveVm)
    cloud.operator(Verb.CONFIRM_OFF, 3)
    cloud.run(3)
    cloud.effects.clear()
    cloud.restart()
    for _ in range(100):  # nothing is known of host 3
        done = len(cloud.effects)
        alive = tuple(Reading(host=host, signal=Signal.ALIVE, sent_at=cloud.now) for host in range(8) if host != 3)
        cloud.feed(EvidenceTaken(channel="icmp", readings=alive))
        cloud.feed(TimePassed())
        cloud._carry_out(done)
        cloud.now += 0.2
    assert not cloud.ordered(MoveVm)
    assert "not every probe could confirm that it is silent" in cloud.incident(3).hold


# --- what condemns ----------------------------------------------------------------------------------------------------


def test_silence_does_not_count_across_a_time_in_which_nothing_was_known(cloud):
    for signal, times in ((Signal.SILENT, 4), (Signal.UNKNOWN, 70), (Signal.SILENT, 10)):
        for _ in range(times):
            look(cloud, icmp=signal, ssh=signal)
            cloud.now += 1
    assert not cloud.ordered(Fence)
    for _ in range(60):
        look(cloud, icmp=Signal.SILENT, ssh=Signal.SILENT)
        cloud.now += 1
    assert cloud.ordered(Fence)


def test_an_off_that_was_followed_by_an_on_condemns_nobody(cloud):
    look(cloud, bmc=Signal.OFF)
    for _ in range(10):
        cloud.now += 0.3
        look(cloud, icmp=Signal.SILENT, ssh=Signal.SILENT, bmc=Signal.UNKNOWN)
    assert not cloud.ordered(Fence)


def test_monitoring_data_that_oned_goes_on_to_receive_vetoes_though_it_is_older_than_other_evidence(cloud):
    """Only our own path to the host is broken: oned reaches it, and reads it every 10 s."""
    for second in range(300):
        look(cloud, icmp=Signal.SILENT, ssh=Signal.SILENT)
        if second % 10 == 0:
            sent_at = cloud.now - 10
            news = (Reading(host=3, signal=Signal.ALIVE, sent_at=sent_at, detail="new monitoring data"),)
            cloud.feed(EvidenceTaken(channel="oned", readings=news))
        cloud.now += 1
    assert not cloud.ordered(Fence)


def test_another_address_begins_a_new_silence(cloud):
    cloud.kill(3)
    cloud.run(50)
    cloud.feed(HostReaddressed(host=3))
    cloud.run(50)
    assert not cloud.ordered(Fence)


def test_another_device_of_the_same_name_has_passed_no_check_and_its_off_condemns_nobody(cloud):
    cloud.levels = ((replace(BMC, fingerprint="other"),),)
    cloud.inventory()
    late = DeviceChecked(host=3, device="bmc", fingerprint="", ok=True, power=PowerState.ON, summary="of the old one")
    cloud.feed(late)
    cloud.kill(3, "off")
    cloud.run(20)
    assert not cloud.ordered(Fence)
    cloud.run(60)
    assert "no fence device of it (bmc) has passed a check" in cloud.incident(3).hold


def test_an_incident_is_opened_with_vms_that_were_read_after_the_host_fell_silent(cloud):
    """A live migration that began just before must be on record as one."""
    cloud.kill(3)
    cloud.run(1)
    del cloud.dead[3]
    cloud.run(2)  # a flap: the VMs were read at its beginning
    cloud.vms[30] = replace(cloud.vms[30], lcm_state=4, label="MIGRATE")
    cloud.kill(3, "off")
    cloud.run(3)
    assert cloud.incident(3).vm(30).was_label == "MIGRATE"


# --- who may stop it --------------------------------------------------------------------------------------------------


def test_a_rejected_host_gets_no_further_power_off(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    run_until(cloud, Fence)
    cloud.operator(Verb.REJECT, 3)
    assert "no further power-off is sent; one was sent already" in cloud.ordered(Answer)[-1].text
    fence_fails(cloud)
    cloud.run(20)
    assert len(cloud.ordered(Fence)) == 1
    assert "rejected" in cloud.incident(3).hold


def test_a_reject_that_comes_too_late_is_refused(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    run_until(cloud, MoveVm)
    cloud.operator(Verb.REJECT, 3)
    assert cloud.ordered(Answer)[-1].code == 4


def test_mode_observe_stops_attempts_lever_and_moves(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    run_until(cloud, Fence)
    cloud.reconfigure(replace(cloud.settings, mode=Mode.OBSERVE))
    fence_fails(cloud)
    cloud.run(20)
    assert len(cloud.ordered(Fence)) == 1
    cloud.deaf.clear()
    cloud.reconfigure(cloud.settings)
    run_until(cloud, OrderHost)
    cloud.reconfigure(replace(cloud.settings, mode=Mode.OBSERVE))
    orders = len(cloud.ordered(OrderHost))
    cloud.run(20)
    assert len(cloud.ordered(OrderHost)) == orders
    assert not cloud.ordered(MoveVm)
    assert "observing only" in cloud.incident(3).hold


def test_mode_approve_asks_before_the_next_attempt_too(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    run_until(cloud, Fence)
    cloud.reconfigure(replace(cloud.settings, mode=Mode.APPROVE))
    fence_fails(cloud)
    cloud.run(10)
    assert len(cloud.ordered(Fence)) == 1
    cloud.operator(Verb.APPROVE, 3)
    cloud.run(5)
    assert len(cloud.ordered(Fence)) == 2


# --- what must not be forgotten ---------------------------------------------------------------------------------------


def test_release_forgets_no_attempt_and_life_after_it_is_an_alarm(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    run_until(cloud, MoveVm)
    del cloud.dead[3]
    cloud.run(1)
    cloud.kill(3)
    cloud.run(8)
    cloud.deaf.add(Fence)
    cloud.operator(Verb.RELEASE, 3)
    del cloud.dead[3]
    cloud.run(3)
    incident = cloud.incident(3)
    assert incident.open
    assert "alive after an unverified power-off" in incident.stopped
    assert len({attempt.number for attempt in incident.attempts}) == len(incident.attempts)


def test_after_a_restart_the_read_back_waits_for_the_devices_and_is_no_second_order(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    run_until(cloud, Fence)
    order = cloud.ordered(Fence)[0]
    cloud.feed(FenceAccepted(host=3, incident=order.incident, attempt=order.attempt))
    restarted = Controller(cloud.settings, cloud.now)
    restarted.restore([cloud.incident(3)], cloud.cloud, cloud.now)
    assert not any(isinstance(effect, Fence) for effect in restarted.resume(cloud.now).effects)
    cloud.effects.clear()
    cloud.restart()
    cloud.run(1)
    assert [order.send for order in cloud.ordered(Fence)] == [False]


def test_confirm_off_before_the_first_inventory_is_refused_and_harms_nobody(cloud):
    cloud.kill(3, "mute")
    cloud.run(90)
    incident = cloud.incident(3)
    restarted = Controller(cloud.settings, cloud.now)
    restarted.restore([incident], cloud.cloud, cloud.now)
    restarted.resume(cloud.now)
    command = OperatorCommanded(request=1, verb=Verb.CONFIRM_OFF, who="ann", incident=incident.id)
    (answer,) = (effect for effect in restarted.step(command, cloud.now).effects if isinstance(effect, Answer))
    assert answer.code == 4


@pytest.mark.parametrize("result", [OrderResult.UNKNOWN, OrderResult.ACCEPTED])
def test_a_move_without_effect_ends_as_left_alone_and_is_told(cloud, result):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    for _ in range(1000):
        done = len(cloud.effects)
        cloud.run(0.2)
        for _, order in cloud.effects[done:]:
            if isinstance(order, MoveVm):
                cloud.feed(
                    VmOrderReported(
                        vm=order.vm, incident=order.incident, attempt=order.attempt, result=result, detail="internal"
                    )
                )
    assert cloud.state(3) is HostState.RECOVERED
    assert {record.stage for record in cloud.incident(3).vms} == {VmStage.LEFT}
    assert "vm-30 is left alone: not RUNNING after 120 s" in cloud.told()
    assert len([order for order in cloud.ordered(MoveVm) if order.vm == 30]) <= cloud.settings.move_tries_max


def test_a_slow_oned_gets_one_order_at_a_time_for_each_vm(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    run_until(cloud, MoveVm)
    cloud.run(15)
    orders = [order for order in cloud.ordered(MoveVm) if order.vm == 30]
    assert len(orders) == 1
    refused = VmOrderReported(vm=30, incident=1, attempt=1, result=OrderResult.REFUSED, detail="no capacity on host")
    cloud.feed(refused)
    cloud.feed(TimePassed())
    assert cloud.incident(3).vm(30).stage is VmStage.MOVING  # ordered anew, elsewhere or not
    assert cloud.incident(3).vm(30).order == 2
    cloud.feed(refused)  # late and doubled
    assert cloud.incident(3).vm(30).answered is False


@pytest.mark.parametrize(
    ("lcm_state", "told"),
    [
        (12, "vm-30 is left alone: SHUTDOWN: its owner was terminating it"),
        (18, "vm-30 is left alone: somebody ordered something else meanwhile: SHUTDOWN_POWEROFF"),
        (99, "vm-30 is left alone: it cannot be moved from here: LCM_STATE 99 is not known to this version"),
    ],
)
def test_a_vm_with_which_somebody_does_something_meanwhile_is_left_alone_and_told(cloud, lcm_state, told):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    run_until(cloud, Fence)
    cloud.become(30, 3, lcm_state)
    cloud.deaf.clear()
    cloud.run(400)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert told in cloud.told()
    assert cloud.state(3) is HostState.RECOVERED


@pytest.mark.parametrize("crash_at", [Fence, MoveVm])
def test_a_clock_that_was_set_back_meanwhile_stalls_nothing(cloud, crash_at):
    cloud.deaf.add(crash_at)
    cloud.kill(3, "off")
    run_until(cloud, crash_at)
    cloud.now -= 600
    cloud.deaf.clear()
    cloud.restart()
    cloud.run(60)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_destination_that_dies_before_a_repeated_order_is_given_up(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    run_until(cloud, MoveVm)
    chosen = cloud.ordered(MoveVm)[0].destination
    cloud.kill(chosen)
    cloud.run(30)
    orders = [order for order in cloud.ordered(MoveVm) if order.vm == 30]
    assert len(orders) == 2
    assert orders[1].destination != chosen


def test_a_move_leaves_only_as_long_as_the_proof_is_fresh(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    run_until(cloud, MoveVm)
    newest = max(at for at, effect in cloud.effects if isinstance(effect, ReadPower))
    assert all(order.not_after <= newest + cloud.settings.proof_age_max_s for order in cloud.ordered(MoveVm))


# --- the way back -----------------------------------------------------------------------------------------------------


def test_a_host_that_was_offline_is_given_back_as_offline(cloud):
    cloud.one_states[3] = 8
    cloud.inventory()
    cloud.kill(3, "off")
    cloud.run(5)
    cloud.operator(Verb.APPROVE, 3)
    cloud.run(15)
    del cloud.dead[3]
    cloud.run(15)
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(5)
    assert cloud.one_states[3] == 8
    assert not cloud.incident(3).open


def test_a_host_that_opennebula_does_not_take_back_is_told_after_some_tries(cloud):
    cloud.kill(3, "off")
    cloud.run(15)
    del cloud.dead[3]
    cloud.run(15)
    cloud.deaf.add(OrderHost)
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(60)
    restores = [order for order in cloud.ordered(OrderHost) if order.step is HostStep.RESTORE]
    assert len(restores) == 1 + cloud.settings.restores_max
    assert "does not take the host back" in cloud.incident(3).stopped
    assert cloud.incident(3).lever is Lever.DONE


def test_unfence_wants_fresh_life(cloud):
    cloud.kill(3, "off")
    cloud.run(15)
    del cloud.dead[3]
    cloud.run(15)
    for _ in range(30):
        look(cloud, icmp=Signal.UNKNOWN, ssh=Signal.UNKNOWN)
        cloud.now += 1
    cloud.operator(Verb.UNFENCE, 3)
    assert cloud.ordered(Answer)[-1].code == 4
    assert "does not answer" in cloud.ordered(Answer)[-1].text


def test_unfence_of_a_host_that_was_stopped_raises_no_alarm_on_the_way(cloud):
    cloud.kill(3, "off")
    cloud.deaf.add(Fence)
    run_until(cloud, Fence)
    fence_fails(cloud)
    del cloud.dead[3]
    cloud.run(15)
    told = len(cloud.told().split("\n"))
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(3)
    assert cloud.state(3) is HostState.OK
    assert "unverified" not in "\n".join(cloud.told().split("\n")[told:])


def frozen_while_fenced(cloud, then_reads):
    """The controller sleeps for a minute between proof and moves; then the BMC reads these, the last one for ever."""
    cloud.kill(3, "off")
    cloud.deaf.add(MoveVm)
    run_until(cloud, MoveVm)
    cloud.deaf.add(ReadPower)
    cloud.now += 60.0
    before, asked = len(cloud.ordered(MoveVm)), len(cloud.ordered(ReadPower))
    for _ in range(100):
        cloud.run(0.2)
        while asked < len(cloud.ordered(ReadPower)):
            read = then_reads.pop(0) if len(then_reads) > 1 else then_reads[0]
            asked += 1
            cloud.feed(PowerRead(host=3, asked_at=cloud.now, states=(("bmc", read),)))
    return len(cloud.ordered(MoveVm)) - before


def test_one_off_after_a_gap_does_not_renew_the_proof(cloud):
    """Somebody powered the host on while we were frozen, and its BMC restarts and says OFF once."""
    assert frozen_while_fenced(cloud, [PowerState.OFF, PowerState.ON]) == 0
    assert "reads ON" in cloud.incident(3).stopped


def test_off_read_twice_after_a_gap_renews_the_proof(cloud):
    assert frozen_while_fenced(cloud, [PowerState.OFF]) > 0
    assert cloud.incident(3).stopped == ""
