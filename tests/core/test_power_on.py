"""Hosts are powered on once, by the devices that proved them off, and only if the operator wants it."""

from __future__ import annotations

from dataclasses import replace

from returned import away, change, made
from world import Cloud

from ha_controller.core import rejoin
from ha_controller.core.effects import (
    PowerOn,
)
from ha_controller.core.events import Verb
from ha_controller.core.incident import Proof
from ha_controller.core.model import Device, HostState, PowerState


def test_by_default_no_host_is_powered_on():
    cloud = away(made())
    cloud.run(60)
    assert cloud.ordered(PowerOn) == []


def test_a_recovered_host_is_powered_on_once_by_the_devices_that_proved_it_off():
    cloud = made(power_on=True)
    cloud.kill(3, "off")
    cloud.run(60)
    [order] = cloud.ordered(PowerOn)
    assert (order.host, order.devices) == (3, ("bmc",))
    assert cloud.incident(3).powered_on_at is not None
    assert cloud.incident(3).recovered_at <= cloud.first(PowerOn)
    cloud.restart()
    cloud.run(60)
    assert len(cloud.ordered(PowerOn)) == 1


def test_one_that_cannot_be_powered_on_is_told_and_not_tried_again():
    cloud = made(power_on=True)
    cloud.power_on_fails = "it cannot switch on"
    away(cloud)
    cloud.run(60)
    assert len(cloud.ordered(PowerOn)) == 1
    assert "could not be powered on again (bmc: it cannot switch on)" in cloud.told()


def never(cloud: Cloud, why: str) -> None:
    cloud.run(60)
    assert cloud.ordered(PowerOn) == []
    state = cloud.controller.state
    assert why in rejoin.why_not_powered_on(state, state.hosts[3], state.incidents[3], cloud.now)


def test_a_host_in_quarantine_is_not_powered_on():
    never(away(made(power_on=True, quarantine_after=1)), "quarantine")


def test_no_host_is_powered_on_while_another_one_is_in_trouble():
    cloud = made(power_on=True)
    cloud.deaf.add(PowerOn)
    cloud.kill(5, "mute")
    cloud.run(30)
    assert cloud.state(5) is not HostState.OK
    away(cloud)
    never(cloud, "host 5 is")


def test_a_host_that_a_person_called_off_is_not_powered_on():
    cloud = made(power_on=True)
    cloud.operator(Verb.PAUSE)
    away_without_moves = cloud
    away_without_moves.kill(3, "off")
    cloud.run(5)
    cloud.operator(Verb.RESUME)
    cloud.deaf.add(PowerOn)
    cloud.run(20)
    change(cloud, proof=Proof(at=cloud.now, text="confirmed off by ann"), powered_on_at=None)
    state = cloud.controller.state
    why = rejoin.why_not_powered_on(state, state.hosts[3], state.incidents[3], cloud.now)
    assert why == "we did not power it off"


def test_a_host_of_which_another_device_reads_on_is_left_alone():
    levels = ((Device(name="bmc", identity_noted=True),), (Device(name="pdu", identity_noted=True),))
    cloud = Cloud(levels=levels)
    cloud.run(6)
    away(cloud)
    cloud.device_power["pdu"] = PowerState.ON
    cloud.reconfigure(replace(cloud.settings, power_on=True))
    cloud.run(30)
    assert cloud.ordered(PowerOn) == []


def test_what_reads_on_already_is_left_to_whoever_did_it():
    cloud = made(power_on=True)
    cloud.settings = replace(cloud.settings, power_on=False)
    cloud.reconfigure(cloud.settings)
    away(cloud)
    cloud.dead[3] = "on"
    cloud.reconfigure(replace(cloud.settings, power_on=True))
    cloud.run(30)
    assert cloud.ordered(PowerOn) == []
