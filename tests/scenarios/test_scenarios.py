"""Each folder here is a story: README.md tells it, scenario.toml plays it, log.expect is what must come of it.

A new story needs no code. `UPDATE=1 make test` writes the logs anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from oned_world import OnedCloud
from world import SETTINGS, Cloud

from ha_controller.core import effects as fx
from ha_controller.core.events import LeadChanged, Readiness, SecondMasterLooked, SelfChecked, Verb
from ha_controller.core.model import Device, Domain, Signal
from ha_controller.core.resources import PciDevice, PciRequest, Role, VmGroup
from ha_controller.core.settings import Channel, Mode, Settings
from ha_controller.flight import text
from ha_controller.flight.replay import replay
from ha_controller.flight.verdict import compared

FOLDER = Path(__file__).parent
STORIES = sorted(path.parent for path in FOLDER.glob("*/scenario.toml"))


class Played(NamedTuple):
    """A cloud at the end of its story."""

    cloud: Cloud
    begun: float  #: when the story began
    done: int  #: how many effects there were before
    homes: dict[str, str]  #: where each VM was then


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_the_story_ends_as_written(story: Path):
    assert (story / "README.md").read_text().strip(), "a story without its telling"
    log = "\n".join(log_of(story)) + "\n"
    expected = story / "log.expect"
    if os.environ.get("UPDATE"):
        expected.write_text(log)
    assert log == expected.read_text()


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_the_story_replayed_from_its_flight_record_is_decided_the_same_way(story: Path):
    cloud = played(story).cloud
    recorded = cloud.recorder.cut([], cloud.now, "the story ends").record()
    record = text.read(line.decode() for line in text.written(recorded))
    assert (record.beginning, record.rounds, record.runs) == (recorded.beginning, recorded.rounds, recorded.runs)
    then = [
        (each.at, effect) for each in record.rounds for effect in each.effects if not isinstance(effect, fx.ReadHost)
    ]
    replayed = replay(record)
    assert [effect for _, effect in replayed.effects] == [effect for _, effect in then]
    assert [at for at, _ in replayed.effects] == [at for at, _ in then]
    assert (replayed.partings, replayed.assumed) == ({}, ())
    assert compared(record, replayed, None)["same"]


@cache
def played(story: Path) -> Played:
    """A story at its end; each is played once."""
    return play(tomllib.loads((story / "scenario.toml").read_text()))


def log_of(story: Path) -> list[str]:
    """The log of a story: orders and messages with the seconds since it began."""
    cloud, begun, done, homes = played(story)
    questions = (fx.AskDomains, fx.AskReady, fx.AskNames)
    asked = {effect: at for at, effect in reversed(cloud.effects) if isinstance(effect, questions)}  # told once
    told = [(at, effect) for at, effect in cloud.effects[done:] if asked.get(effect, at) == at]
    lines = [f"{at - begun:6.1f}  {line}" for at, effect in told if (line := _line(effect))]
    hosts = [cloud.host(host) for host in range(cloud.hosts)]
    states = [f"{host.name} {cloud.state(host.id).upper()}" for host in hosts if cloud.state(host.id) != "ok"]
    places = [f"{name}@{place}" for name, place in _places(cloud).items() if homes[name] != place]
    if isinstance(cloud, OnedCloud):
        assert cloud.ran_twice() == []
    return [*lines, f"   end  {', '.join(states) or 'all hosts OK'}; moved: {', '.join(places) or 'nothing'}"]


def play(scenario: dict[str, Any]) -> Played:
    """Run a scenario."""
    settings, hosts = _settings(scenario.get("settings", {})), scenario.get("hosts", 8)
    elsewhere = scenario.get("elsewhere", [])  # more channels: neighbours, storage, oned, boot-id, kdump
    new = [name for name in elsewhere if name not in {channel.name for channel in settings.channels}]
    domains = {"neighbours": Domain.VANTAGE, "storage": Domain.STORAGE}
    more = tuple(Channel(name=name, domain=domains.get(name, Domain.SELF)) for name in new)
    kind = OnedCloud if scenario.get("opennebula") == "embedded" else Cloud  # VMs have states there, not only places
    cloud = kind(
        settings=replace(settings, channels=(*settings.channels, *more)),
        hosts=hosts,
        elsewhere={name: {} for name in elsewhere if name in domains},
        boots={host: f"first-{host}" for host in range(hosts)} if "boot-id" in elsewhere else {},
        places={int(host): tuple(places.items()) for host, places in scenario.get("places", {}).items()},
        vms_per_host=scenario.get("vms_per_host", 2),
        levels=tuple(tuple(_device(each) for each in level) for level in scenario.get("levels", [["bmc"]])),
    )
    if stores := scenario.get("datastores"):  # where the disks of all VMs are
        cloud.vms = {number: replace(vm, datastores=tuple(stores)) for number, vm in cloud.vms.items()}
    cloud.recorder.held = True
    cloud.run(6)
    homes = _places(cloud)
    begun, done = cloud.now, len(cloud.effects)
    for step in sorted(scenario["step"], key=lambda step: step["at"]):
        cloud.run(max(0.0, begun + step["at"] - cloud.now))
        _do(cloud, step)
    cloud.run(max(0.0, begun + scenario["until"] - cloud.now))
    return Played(cloud, begun, done, homes)


def _device(written: str | dict[str, Any]) -> Device:
    """A device by its name, or with what is special of it."""
    said = {"name": written} if isinstance(written, str) else written
    lists = {name: tuple(value) for name, value in said.items() if isinstance(value, list)}
    return Device(identity_noted=True, **{**said, **lists})


def _places(cloud: Cloud) -> dict[str, str]:
    """Where each VM is; in the embedded OpenNebula also what it does there, if it does not run."""
    if isinstance(cloud, OnedCloud):
        return {
            vm.name: f"{vm.host}{'' if vm.label == 'RUNNING' else f' {vm.label}'}" for vm in cloud.oned.vms.values()
        }
    return {vm.name: str(vm.host) for vm in cloud.vms.values()}


def _settings(values: dict[str, Any]) -> Settings:
    known = {**values, "mode": Mode(values.get("mode", "auto"))}
    fields = {name: getattr(SETTINGS, name) for name in ("channels", "settle_s")}
    return Settings(**{**fields, **known})


def _do(cloud: Cloud, step: dict[str, Any]) -> None:
    match step:
        case {"kill": _}:
            for host in _hosts(cloud, {"hosts": step["kill"]}):
                cloud.kill(host, step.get("power", "on"))
        case {"revive": _}:
            for host in _hosts(cloud, {"hosts": step["revive"]}):
                cloud.dead.pop(host, None)
        case {"operator": verb}:
            flags = {name: step[name] for name in ("force", "repaired") if name in step}
            cloud.operator(Verb(verb), step.get("host"), step.get("incident"), **flags)
        case {"settings": values}:
            cloud.settings = replace(cloud.settings, **values)
            cloud.reconfigure(cloud.settings)
        case {"self_check": ok}:
            cloud.feed(SelfChecked(ok=ok, detail="gateway answers" if ok else "gateway does not answer"))
        case {"second_master": present}:
            cloud.feed(SecondMasterLooked(present=present, detail="hook host_error" if present else "none"))
        case {"lead": term}:
            cloud.feed(LeadChanged(term=term or None))
        case {"power": power, "host": host}:
            cloud.dead[host] = power
        case {"kill_host_of": vm}:
            cloud.kill(cloud.vms[vm].host or 0, step["power"])
        case {"say": channel, "signal": signal}:
            for host in _hosts(cloud, step):
                cloud.elsewhere.setdefault(channel, {})[host] = Signal(signal)
        case {"reboot": host}:
            cloud.reboot(host)
        case {"maintenance": host, "on": on}:
            cloud.excluded = {host: "HA_IGNORE=YES on the host in OpenNebula"} if on else {}
            cloud.inventory()
        case {"delete": host}:
            cloud.deleted.add(host)
            cloud.inventory()
        case {"one_state": number, "host": host}:
            cloud.one_states[host] = number
            cloud.inventory()
        case {"unready": vm, "readiness": readiness, "because": why}:
            cloud.unready[vm] = (Readiness(readiness), why)
        case {"ready": vm}:
            del cloud.unready[vm]
        case {"domain": vm, "on": host, "is": what}:
            cloud.domains[host, vm] = what
        case {"clock": seconds}:
            cloud.now += seconds
        case {"restart": True}:
            cloud.restart()
        case {"refuse": words}:
            cloud.refusal = words
        case {"lift_fails": words}:
            cloud.lift_fails = words
        case {"deaf": kind}:
            cloud.deaf.add(getattr(fx, kind))
        case {"hear": kind}:
            cloud.deaf.discard(getattr(fx, kind))
        case {"pci": hosts, "vm": vm}:  # a card of one kind in these hosts, and a VM that needs one
            for host in hosts:
                cloud.pci[host] = (PciDevice(address="0000:3b:00:0", vendor=0x10DE, device=0x1EB8),)
            cloud.vms[vm] = replace(cloud.vms[vm], pci=(PciRequest(vendor=0x10DE, device=0x1EB8),))
            cloud.inventory()
        case {"apart": vms}:
            for vm in vms:
                cloud.vms[vm] = replace(cloud.vms[vm], group=1)
            role = Role(name="db", vms=tuple(vms), policy="ANTI_AFFINED")
            cloud.groups = (VmGroup(id=1, name="shop", roles=(role,)),)
            cloud.inventory()
        case _ if isinstance(cloud, OnedCloud):
            _do_with_vm(cloud, step)
        case _:
            raise ValueError(f"nobody knows how to do {step}")


def _do_with_vm(cloud: OnedCloud, step: dict[str, Any]) -> None:
    match step:
        case {"vm": vm, "state": state}:
            cloud.put(vm, state, step.get("lcm_state", 0), hosts=tuple(step["hosts"]))
            cloud.runs_on(vm, step.get("process"))
            cloud.inventory()
        case {"vm": vm, "policy": policy}:
            cloud.oned.vms[vm].attributes["HA_POLICY"] = policy
        case {"vm": vm, "written": attributes}:
            cloud.oned.vms[vm].attributes.update(attributes)
            cloud.oned.vms[vm].address = step.get("address", "")
        case {"vm": vm, "locked": locked}:
            cloud.oned.vms[vm].locked = locked
        case {"vm": vm, "datastore": datastore}:
            cloud.oned.vms[vm].datastore = datastore
        case {"vm": vm, "starts_not_on": hosts}:
            for host in hosts:
                cloud.hardware.machines[host].refuses.add(vm)
        case {"no_answer": hosts}:
            cloud.no_answer = set(hosts)
        case {"memory_mb": memory_mb, "vm": vm}:
            cloud.oned.vms[vm].memory_mb = memory_mb
            cloud.inventory()
        case _:
            raise ValueError(f"nobody knows how to do {step}")


def _hosts(cloud: Cloud, step: dict[str, Any]) -> list[int]:
    """One host, several, or without a word all."""
    named = step.get("hosts", list(range(cloud.hosts)))
    return named if isinstance(named, list) else [named]


def _line(effect: fx.Effect) -> str:
    match effect:
        case fx.Fence():
            return f"{'FENCE' if effect.send else 'READ BACK'} host {effect.host} with {', '.join(effect.devices)}"
        case fx.RestartMonitoring():
            return f"ONED  monitor host {effect.host} anew"
        case fx.OrderHost():
            return f"ONED  {effect.step.value} host {effect.host}"
        case fx.MoveVm():
            return f"MOVE  vm {effect.vm} from host {effect.source} to host {effect.destination}"
        case fx.ResumeVm():
            return f"START vm {effect.vm} on host {effect.host}"
        case fx.RecoverVm():
            name = effect.operation.name.lower()
            return f"END   state {effect.lcm_state} of vm {effect.vm} on host {effect.host}: recover {name}"
        case fx.LiftOrders():
            return f"LIFT  the order of {', '.join(effect.devices)} on host {effect.host}"
        case fx.PowerOn():
            return f"ON    host {effect.host} with {', '.join(effect.devices)}"
        case fx.DestroyDomain():
            return f"DESTROY one-{effect.vm} on host {effect.host}; it runs on host {effect.runs_on}"
        case fx.LockVm():
            return f"LOCK  vm {effect.vm}"
        case fx.AskDomains():
            return f"ASK   host {effect.host} which VMs are there"
        case fx.AskReady():
            return f"ASK   vm {effect.vm} on host {effect.host} whether it is ready: {effect.gate}"
        case fx.AskNames():
            return f"ASK   OpenNebula whether anybody is {', '.join(effect.names)}"
        case fx.Tell():
            return f"{effect.severity.value.upper():<8} {effect.text}. {effect.next_step}"
        case fx.Answer():
            return f"ANSWER {effect.code} {effect.text}"
        case _:
            return ""
