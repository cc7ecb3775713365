"""Plays a scenario and writes its log: what happened (>), and what the controller made of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from world import SETTINGS

from ha_controller.core import effects as fx
from ha_controller.core.model import Domain
from ha_controller.core.settings import Channel, Mode, Settings
from scenarios import steps
from scenarios.faults import SEEN_FROM, CloudOfStates, Faults, PlainCloud
from scenarios.language import KINDS, Scenario, read

SETTLED_S = 6.0  #: longer than settle_s of these clouds


class Played(NamedTuple):
    """A cloud at the end of its story."""

    cloud: Faults
    begun: float  #: when the story began
    done: int  #: how many effects there were before
    homes: dict[str, str]  #: where each VM was then


@cache
def played(folder: Path) -> Played:
    """A story at its end; each is played once."""
    return play(read(folder / "scenario.toml"))


def play(scenario: Scenario) -> Played:
    """Run a scenario."""
    cloud = _cloud(scenario)
    cloud.recorder.held = True
    cloud.run(SETTLED_S)
    homes = _places(cloud)
    begun, done = cloud.now, len(cloud.effects)
    shift = 0.0  # by which the clock was set
    for step in scenario.steps:
        cloud.run(max(0.0, begun + shift + step.at - cloud.now))
        before, effects = cloud.now, len(cloud.effects)
        cloud.busy_at = cloud.now
        if said := KINDS[step.kind][0](cloud, **step.options):
            cloud.log.append((before, effects, said))
        if step.kind == "clock":
            shift += cloud.now - before
    cloud.run(max(0.0, begun + shift + scenario.written.until - cloud.now))
    return Played(cloud, begun, done, homes)


def _cloud(scenario: Scenario) -> Faults:
    written = scenario.written
    known = {name: getattr(SETTINGS, name) for name in ("channels", "settle_s")}
    settings = Settings(**{**known, "mode": Mode.AUTO, **written.settings})
    new = [name for name in written.elsewhere if name not in {channel.name for channel in settings.channels}]
    more = tuple(Channel(name=name, domain=SEEN_FROM.get(name, Domain.SELF)) for name in new)
    kind = CloudOfStates if written.opennebula == "embedded" else PlainCloud
    cloud = kind(
        settings=replace(settings, channels=(*settings.channels, *more)),
        hosts=written.hosts,
        elsewhere={name: {} for name in written.elsewhere if name in SEEN_FROM},
        boots={host: f"first-{host}" for host in range(written.hosts)} if "boot-id" in written.elsewhere else {},
        places={int(host): tuple(places.items()) for host, places in written.places.items()},
        vms_per_host=written.vms_per_host,
        cluster_names={host: name for name, hosts in written.clusters.items() for host in hosts},
        levels=tuple(tuple(steps.device(each) for each in level) for level in written.levels),
        deleted=set(written.absent),
        every_probe=written.every_probe,
    )
    if stores := written.datastores:
        cloud.vms = {number: replace(vm, datastores=tuple(stores)) for number, vm in cloud.vms.items()}
    return cloud


def _places(cloud: Faults) -> dict[str, str]:
    """Where each VM is, and what it does there, if it does not run."""
    vms = cloud.oned.vms if isinstance(cloud, CloudOfStates) else cloud.vms
    return {
        vm.name: f"{_host(cloud, vm.host or 0)}{'' if vm.label == 'RUNNING' else f' {vm.label}'}"  # type: ignore[attr-defined]
        for vm in vms.values()
    }


# --- the log ----------------------------------------------------------------------------------------------------------


def log_of(folder: Path) -> list[str]:
    """The log of a story: faults, orders and messages with the seconds since it began."""
    cloud, begun, done, homes = played(folder)
    questions = (fx.AskDomains, fx.AskReady, fx.AskNames)
    asked = {effect: at for at, effect in reversed(cloud.effects) if isinstance(effect, questions)}  # told once
    happened = [(index, 0, at, f"> {text}") for at, index, text in cloud.log]
    made = [
        (index, 1, at, line)
        for index, (at, effect) in enumerate(cloud.effects)
        if index >= done and asked.get(effect, at) == at and (line := _line(cloud, effect))
    ]
    lines = [f"{at - begun:6.1f}  {line}" for _, _, at, line in sorted([*happened, *made], key=lambda each: each[:2])]
    views = sorted(cloud.controller.state.views.items())
    incidents = cloud.controller.state.incidents
    restless = [host for host, view in views if view.state != "ok" or host in incidents]
    states = [f"{_host(cloud, host)} {_state(cloud, host)}" for host in restless]
    places = [f"{name}@{place}" for name, place in _places(cloud).items() if homes[name] != place]
    return [*lines, f"   end  {', '.join(states) or 'all hosts OK'}; moved: {', '.join(places) or 'nothing'}"]


def _state(cloud: Faults, host: int) -> str:
    incident = cloud.controller.state.incidents.get(host)
    waits = incident.stopped or incident.hold if incident is not None else ""
    return f"{cloud.state(host).upper()}{f' ({waits})' if waits else ''}"


def wrong_in(folder: Path) -> list[str]:
    """What must never happen and did, by the judge."""
    cloud = played(folder).cloud
    ran_twice = cloud.ran_twice() if isinstance(cloud, CloudOfStates) else []
    return [*cloud.harm, *ran_twice, *cloud.untold()]


def _host(cloud: Faults, host: int) -> str:
    return cloud.host(host).name


def _vm(cloud: Faults, vm: int) -> str:
    return cloud.oned.vms[vm].name if isinstance(cloud, CloudOfStates) else cloud.vms[vm].name


def _line(cloud: Faults, effect: fx.Effect) -> str:
    match effect:
        case fx.Fence(host=host):
            return f"{'FENCE' if effect.send else 'READ BACK'} {_host(cloud, host)} with {', '.join(effect.devices)}"
        case fx.Drill(host=host):
            return f"DRILL {_host(cloud, host)} with {', '.join(effect.devices)}"
        case fx.RestartMonitoring(host=host):
            return f"ONED  monitor {_host(cloud, host)} anew"
        case fx.OrderHost(host=host):
            return f"ONED  {effect.step.value} {_host(cloud, host)}"
        case fx.MarkMaintenance(host=host):
            return f"ONED  write on {_host(cloud, host)}: maintenance {'on' if effect.on else 'off'}"
        case fx.MoveVm():
            where = f"from {_host(cloud, effect.source)} to {_host(cloud, effect.destination)}"
            return f"MOVE  {_vm(cloud, effect.vm)} {where}{', unlocked for that' if effect.unlock else ''}"
        case fx.ResumeVm(host=host):
            return f"START {_vm(cloud, effect.vm)} on {_host(cloud, host)}"
        case fx.RecoverVm(host=host):
            name = effect.operation.name.lower()
            vm = _vm(cloud, effect.vm)
            return f"END   state {effect.lcm_state} of {vm} on {_host(cloud, host)}: recover {name}"
        case fx.LiftOrders(host=host):
            return f"LIFT  the order of {', '.join(effect.devices)} on {_host(cloud, host)}"
        case fx.PowerOn(host=host):
            return f"ON    {_host(cloud, host)} with {', '.join(effect.devices)}"
        case fx.DestroyDomain(host=host):
            runs_on = _host(cloud, effect.runs_on)
            return f"DESTROY one-{effect.vm} on {_host(cloud, host)}; it runs on {runs_on}"
        case fx.LockVm():
            return f"LOCK  {_vm(cloud, effect.vm)}"
        case fx.AskDomains(host=host):
            return f"ASK   {_host(cloud, host)} which VMs are there"
        case fx.AskReady():
            where = f"{_vm(cloud, effect.vm)} on {_host(cloud, effect.host)}"
            return f"ASK   {where} whether it is ready: {effect.gate}"
        case fx.AskNames():
            return f"ASK   OpenNebula whether anybody is {', '.join(effect.names)}"
        case fx.Tell():
            return f"{effect.severity.value.upper():<8} {effect.text}. {effect.next_step}"
        case fx.Answer():
            return f"ANSWER {effect.code} {effect.text}"
        case _:
            return ""
