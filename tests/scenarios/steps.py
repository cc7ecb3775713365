"""Everything that can happen in a story: a function for each kind of step.

The parameters are the keys of the step, the first one has the name of the kind. Each changes the cloud and returns a
sentence about it, which stands in the log.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from ha_controller.core import effects as fx
from ha_controller.core.events import (
    DeviceChecked,
    Event,
    HostIdentified,
    HostReaddressed,
    LeadChanged,
    Readiness,
    SecondMasterLooked,
    SelfChecked,
    SelfPlaced,
    Verb,
)
from ha_controller.core.model import Device, Identity, PowerState, Signal
from ha_controller.core.resources import PciDevice, PciRequest, Role, VmGroup
from ha_controller.core.vm_table import LCM, STATES
from scenarios.faults import TEMPERS, CloudOfStates, Faults
from scenarios.language import Changes, Hosts, Levels, happens

Order = Literal[
    "Fence", "OrderHost", "MoveVm", "ResumeVm", "RecoverVm", "ReadPower", "ReadHost", "AskDomains", "LockVm"
]
CARD: dict[str, int] = {"vendor": 0x10DE, "device": 0x1EB8}


def happened(cloud: Faults, event: Event) -> None:
    """The controller hears of it, and what it orders leaves."""
    done = len(cloud.effects)
    cloud.feed(event)
    cloud.carry_out(done)


def device(written: str | Any) -> Device:
    """A device by its name, or with what is special of it."""
    if isinstance(written, str):
        return Device(name=written, identity_noted=True)
    values = written.model_dump()
    stores = values.pop("datastores")
    return Device(**values, datastores=None if stores is None else tuple(stores))


def names(cloud: Faults, hosts: list[int]) -> str:
    """For people."""
    if len(hosts) == cloud.hosts:
        return "every host"
    return ", ".join(cloud.host(host).name for host in hosts)


def _s(cloud: Faults, hosts: list[int]) -> str:
    return "s" if len(hosts) in (1, cloud.hosts) else ""


# --- hosts ------------------------------------------------------------------------------------------------------------


@happens
def kill(
    cloud: Faults, kill: Hosts, *, power: Literal["on", "off", "mute"] = "on", seen: Literal["", "nowhere"] = ""
) -> str:
    for host in kill:
        cloud.kill(host, power)
    if seen:
        cloud.every_channel(kill, Signal.SILENT)
    bmc = {"on": "says on", "off": "says off", "mute": "says nothing"}[power]
    return f"{names(cloud, kill)} answer{_s(cloud, kill)} no more; the BMC {bmc}"


@happens
def kill_host_of(cloud: Faults, kill_host_of: int, *, power: Literal["on", "off", "mute"] = "off") -> str:
    return kill(cloud, [cloud.vms[kill_host_of].host or 0], power=power)


@happens
def freeze(cloud: Faults, freeze: Hosts, *, seen: Literal["", "nowhere"] = "nowhere") -> str:
    cloud.frozen.update(freeze)
    if seen:
        cloud.every_channel(freeze, Signal.SILENT)
    for host in freeze:
        cloud.elsewhere.setdefault("oned", {})[host] = Signal.SILENT
    return f"{names(cloud, freeze)}: the kernel answers, and nothing else"


@happens
def revive(cloud: Faults, revive: Hosts) -> str:
    for host in revive:
        _answers(cloud, host)
        if isinstance(cloud, CloudOfStates):
            cloud.hardware.power(host, True)
            cloud.hardware.heal(host)
    return f"{names(cloud, revive)} answer{_s(cloud, revive)} again"


def _answers(cloud: Faults, host: int) -> None:
    cloud.dead.pop(host, None)
    cloud.frozen.discard(host)
    cloud.powerless.discard(host)
    cloud.cut = {each for each in cloud.cut if each[0] != host}
    for said in cloud.elsewhere.values():
        said.pop(host, None)


@happens
def boot(cloud: Faults, boot: Hosts) -> str:
    for host in boot:
        cloud.reboot(host)
        _answers(cloud, host)
        if isinstance(cloud, CloudOfStates):
            cloud.hardware.power(host, False)
            cloud.hardware.power(host, True)
            cloud.hardware.heal(host)
    return f"{names(cloud, boot)} {'has' if _s(cloud, boot) else 'have'} booted and answer{_s(cloud, boot)}"


@happens
def reboot(cloud: Faults, reboot: int) -> str:
    before = cloud.unheard.get(reboot)
    cloud.reboot(reboot)
    if before is not None:  # OpenNebula had not heard of it since the first time
        cloud.unheard[reboot] = before
    if isinstance(cloud, CloudOfStates):
        cloud.hardware.reboot(reboot)
    return f"{names(cloud, [reboot])} reboots by itself, faster than anybody sees"


@happens
def oned_notices(cloud: Faults, oned_notices: int) -> str:
    cloud.oned_notices(oned_notices)
    cloud.inventory()
    return f"OpenNebula hears of {names(cloud, [oned_notices])} again, and finds its VMs missing"


@happens
def power(cloud: Faults, power: Literal["on"], *, host: int) -> str:
    cloud.power_on(host)
    return f"somebody presses the power button of {names(cloud, [host])}"


@happens
def say(cloud: Faults, say: str, *, signal: str, hosts: Hosts | None = None) -> str:
    hosts = list(range(cloud.hosts)) if hosts is None else hosts
    for host in hosts:
        cloud.elsewhere.setdefault(say, {})[host] = Signal(signal)
    return f"{say} says of {names(cloud, hosts)}: {signal}"


@happens
def readdress(cloud: Faults, readdress: int) -> str:
    happened(cloud, HostReaddressed(host=readdress))
    return f"{names(cloud, [readdress])} is probed at another address"


@happens
def domain(cloud: Faults, domain: int, *, on: int, shows: str = "running") -> str:
    cloud.domains[on, domain] = shows
    return f"on {names(cloud, [on])} the domain one-{domain} is {shows}"


@happens
def zombies(cloud: Faults, zombies: list[int], *, host: int) -> str:
    cloud.zombies[host] = tuple(zombies)
    cloud.inventory()
    return f"OpenNebula sees zombies on {names(cloud, [host])}: {zombies}"


@happens
def no_answer(cloud: Faults, no_answer: list[int]) -> str:
    cloud.no_answer = set(no_answer)
    return f"{names(cloud, no_answer) or 'no host'} does not say which VMs are there"


# --- fence devices ----------------------------------------------------------------------------------------------------


@happens
def temper(cloud: Faults, temper: str, *, device: str = "bmc", hosts: Hosts | None = None) -> str:
    if temper not in (*TEMPERS, "is stuck"):
        raise ValueError(f"no device {temper}: known are {', '.join(TEMPERS)}, is stuck")
    hosts = list(range(cloud.hosts)) if hosts is None else hosts
    cloud.tempers |= {(host, device): temper for host in hosts}
    return f"{device} of {names(cloud, hosts)} {temper}"


@happens
def slow(cloud: Faults, slow: str, *, hosts: Hosts, by: float) -> str:
    cloud.slow |= {(host, slow): by for host in hosts}
    return f"{slow} of {names(cloud, hosts)} takes {by:g} s to switch off"


@happens
def reads(cloud: Faults, reads: Literal["on", "off", "unknown", "the truth"], *, device: str, hosts: Hosts) -> str:
    for host in hosts:
        cloud.readings.pop((host, device), None)
        if reads != "the truth":
            cloud.readings[host, device] = PowerState(reads)
    return f"{device} of {names(cloud, hosts)} reads {reads}"


@happens
def feeds(cloud: Faults, feeds: int, *, device: str, host: int) -> str:
    cloud.feeds[host, device] = feeds
    return f"{device} of {names(cloud, [host])} feeds {names(cloud, [feeds])} in truth"


@happens
def check(
    cloud: Faults,
    check: str,
    *,
    hosts: Hosts,
    ok: bool = True,
    power: Literal["on", "off", "unknown"] = "on",
    says: str = "ok",
    uuid: str = "",
) -> str:
    prints = {each.name: each.fingerprint for level in cloud.levels for each in level}
    for host in hosts:
        identity = Identity(system_uuid=uuid) if uuid else None
        keys: dict[str, Any] = {"host": host, "device": check, "fingerprint": prints[check], "summary": says}
        happened(cloud, DeviceChecked(**keys, ok=ok, power=PowerState(power), identity=identity))
    whose = f", it belongs to {uuid}" if uuid else ""
    return f"check of {check} of {names(cloud, hosts)}: {says}, reads {power}{whose}"


@happens
def identify(cloud: Faults, identify: int, *, uuid: str) -> str:
    happened(cloud, HostIdentified(host=identify, identity=Identity(system_uuid=uuid), source="ssh"))
    return f"{names(cloud, [identify])} says that it is {uuid}"


@happens
def levels(cloud: Faults, levels: Levels) -> str:
    cloud.levels = tuple(tuple(device(each) for each in level) for level in levels)
    cloud.inventory()
    return "the fence devices are configured anew"


@happens
def lift_fails(cloud: Faults, lift_fails: str) -> str:
    cloud.lift_fails = lift_fails
    return f"lasting orders cannot be lifted or renewed: {lift_fails}" if lift_fails else "lasting orders can be lifted"


@happens
def power_on_fails(cloud: Faults, power_on_fails: str) -> str:
    cloud.power_on_fails = power_on_fails
    return f"no device switches on: {power_on_fails}"


@happens
def destroy_fails(cloud: Faults, destroy_fails: str) -> str:
    cloud.destroy_fails = destroy_fails
    return f"no domain can be destroyed: {destroy_fails}"


# --- OpenNebula -------------------------------------------------------------------------------------------------------


@happens
def oned(cloud: Faults, oned: str) -> str:
    cloud.oned_says = "" if oned == "answers" else oned
    cloud.inventory()
    return f"OpenNebula: {oned}"


@happens
def one_state(cloud: Faults, one_state: Literal[2, 3, 4, 8], *, host: int) -> str:
    cloud.one_states[host] = one_state
    cloud.marked.discard(host)
    if isinstance(cloud, CloudOfStates):
        cloud.oned.hosts[host].state = one_state
    cloud.inventory()
    word = {2: "MONITORED", 3: "ERROR", 4: "DISABLED", 8: "OFFLINE"}[one_state]
    return f"OpenNebula has {names(cloud, [host])} {word}"


@happens
def delete(cloud: Faults, delete: int) -> str:
    name = names(cloud, [delete])
    cloud.deleted.add(delete)
    cloud.inventory()
    return f"{name} is deleted from OpenNebula"


@happens
def join(cloud: Faults, join: int) -> str:
    cloud.deleted.discard(join)
    cloud.inventory()
    return f"{names(cloud, [join])} joins the cloud"


@happens
def refuse(cloud: Faults, refuse: str) -> str:
    cloud.refusal = refuse
    return f"OpenNebula refuses every move: {refuse}" if refuse else "OpenNebula refuses no move any more"


@happens
def deaf(cloud: Faults, deaf: Order) -> str:
    cloud.deaf.add(getattr(fx, deaf))
    return f"orders are lost: {deaf}"


@happens
def hear(cloud: Faults, hear: Order) -> str:
    cloud.deaf.discard(getattr(fx, hear))
    cloud.late.pop(hear, None)
    cloud.unanswered.discard(hear)
    return f"orders are carried out: {hear}"


@happens
def late(cloud: Faults, late: Order, *, by: float) -> str:
    cloud.late[late] = by
    return f"orders are carried out {by:g} s late: {late}"


@happens
def unanswered(cloud: Faults, unanswered: Order) -> str:
    cloud.unanswered.add(unanswered)
    return f"orders are carried out, and the answers are lost: {unanswered}"


@happens
def oned_restarts(cloud: Faults, oned_restarts: Literal[True]) -> str:
    assert isinstance(cloud, CloudOfStates), "only the embedded OpenNebula can restart"
    cloud.oned.lifecycle.forget_drivers()
    return "OpenNebula is restarted and forgets what its drivers were doing"


# --- VMs --------------------------------------------------------------------------------------------------------------


@happens
def vm(
    cloud: Faults,
    vm: int,
    *,
    state: str = "",
    hosts: Hosts | None = None,
    process: int | None = None,
    policy: str = "",
    written: dict[str, str] | None = None,
    address: str = "",
    locked: bool | None = None,
    datastore: int | None = None,
    memory_mb: int | None = None,
    starts_not_on: Hosts | None = None,
) -> str:
    if not isinstance(cloud, CloudOfStates):
        raise ValueError('VMs have such things only with opennebula = "embedded"')
    known, told = cloud.oned.vms[vm], []
    if state:
        number = {row.name: (3, lcm) for lcm, row in LCM.items()} | {row.name: (at, 0) for at, row in STATES.items()}
        cloud.put(vm, *number[state], hosts=tuple(hosts or [known.host]))
        cloud.runs_on(vm, process)
        where = f", its process on {names(cloud, [process])}" if process is not None else ""
        told.append(f"is {state} on {names(cloud, hosts or [known.host])}{where}")
    if policy or written:
        known.attributes |= {**(written or {}), **({"HA_POLICY": policy} if policy else {})}
        told.append(", ".join(f"{key}={value}" for key, value in sorted(known.attributes.items()) if key[:3] == "HA_"))
    if address:
        known.address = address
        told.append(f"has the address {address}")
    if locked is not None:
        known.locked = locked
        told.append("is locked" if locked else "is unlocked")
    if datastore is not None:
        known.datastore = datastore
        told.append(f"has its disks on datastore {datastore}")
    if memory_mb is not None:
        known.memory_mb = memory_mb
        told.append(f"has {memory_mb} MB")
    for host in starts_not_on or []:
        cloud.hardware.machines[host].refuses.add(vm)
    if starts_not_on is not None:
        told.append(f"does not start on {names(cloud, starts_not_on)}")
        for machine in cloud.hardware.machines.values():
            machine.refuses = machine.refuses - {vm} if machine.id not in starts_not_on else machine.refuses
    cloud.inventory()
    return f"{known.name} {'; '.join(told)}"


@happens
def shown(cloud: Faults, shown: int, *, state: str, host: int | None = None) -> str:
    """A VM of the plain cloud."""
    number = {row.name: (3, lcm) for lcm, row in LCM.items()} | {row.name: (at, 0) for at, row in STATES.items()}
    changes = {} if host is None else {"host": host}
    cloud.become(shown, *number[state], **changes)
    cloud.inventory()
    where = f" on {names(cloud, [host])}" if host is not None else ""
    return f"{cloud.vms[shown].name} is {state}{where}"


@happens
def unready(cloud: Faults, unready: int, *, readiness: Literal["not yet", "unknown"], because: str) -> str:
    cloud.unready[unready] = (Readiness(readiness), because)
    return f"asked whether VM {unready} is ready: {readiness}, {because}"


@happens
def ready(cloud: Faults, ready: int) -> str:
    del cloud.unready[ready]
    return f"asked whether VM {ready} is ready: yes"


@happens
def no_start(cloud: Faults, no_start: int, *, on: Hosts) -> str:
    cloud.no_start[no_start] = set(on)
    return f"{cloud.vms[no_start].name} does not start on {names(cloud, on)}"


@happens
def pci(cloud: Faults, pci: Hosts, *, vm: int) -> str:
    for host in pci:
        cloud.pci[host] = (PciDevice(address="0000:3b:00:0", **CARD),)
    cloud.vms[vm] = replace(cloud.vms[vm], pci=(PciRequest(**CARD),))
    cloud.inventory()
    return f"{cloud.vms[vm].name} needs a GPU; one is in {names(cloud, pci)}"


@happens
def requires(cloud: Faults, requires: str, *, vm: int) -> str:
    cloud.vms[vm] = replace(cloud.vms[vm], requirements=requires)
    cloud.inventory()
    return f"{cloud.vms[vm].name} requires {requires}"


@happens
def memory(cloud: Faults, memory: int, *, vm: int) -> str:
    cloud.vms[vm] = replace(cloud.vms[vm], memory_mb=memory)
    cloud.inventory()
    return f"{cloud.vms[vm].name} has {memory} MB"


@happens
def apart(cloud: Faults, apart: list[int]) -> str:
    return _grouped(cloud, apart, "ANTI_AFFINED")


@happens
def together(cloud: Faults, together: list[int]) -> str:
    return _grouped(cloud, together, "AFFINED")


def _grouped(cloud: Faults, vms: list[int], policy: str) -> str:
    number = len(cloud.groups) + 1
    for each in vms:
        cloud.vms[each] = replace(cloud.vms[each], group=number)
    role = Role(name="db", vms=tuple(vms), policy=policy)
    cloud.groups = (*cloud.groups, VmGroup(id=number, name=f"shop-{number}", roles=(role,)))
    cloud.inventory()
    word = "apart" if policy == "ANTI_AFFINED" else "together"
    return f"{', '.join(cloud.vms[each].name for each in vms)} are to be {word}"


# --- people -----------------------------------------------------------------------------------------------------------


@happens
def operator(
    cloud: Faults,
    operator: str,
    *,
    host: int | None = None,
    incident: int | None = None,
    force: bool = False,
    repaired: bool = False,
    for_s: float | None = None,
    reason: str = "",
) -> str:
    flags: dict[str, Any] = {"force": force, "repaired": repaired, "for_s": for_s, "reason": reason}
    told = [f"ann: {operator}"]
    told += [names(cloud, [host])] if host is not None else [str(incident)] if incident is not None else []
    told += [f"--{flag}" for flag in ("force", "repaired") if flags[flag]]
    told += [f"--for {for_s:g} s"] if for_s is not None else []
    cloud.happens(" ".join(told))
    cloud.operator(Verb(operator), host, incident, **flags)
    return ""


@happens
def settings(cloud: Faults, settings: Changes) -> str:
    cloud.settings = replace(cloud.settings, **settings)
    cloud.reconfigure(cloud.settings)
    return f"the configuration is read anew: {', '.join(f'{key} = {value}' for key, value in settings.items())}"


@happens
def maintenance(cloud: Faults, maintenance: int, *, on: bool) -> str:
    cloud.excluded = {maintenance: "HA_IGNORE=YES on the host in OpenNebula"} if on else {}
    cloud.inventory()
    return f"HA_IGNORE={'YES' if on else 'NO'} is written on {names(cloud, [maintenance])}"


# --- the controller ---------------------------------------------------------------------------------------------------


@happens
def self_check(cloud: Faults, self_check: bool | Literal["unknown"]) -> str:
    ok = None if self_check == "unknown" else self_check
    detail = {True: "gateway answers", False: "gateway does not answer", None: "the look at the gateway failed"}[ok]
    happened(cloud, SelfChecked(ok=ok, detail=detail))
    return f"self-check: {detail}"


@happens
def second_master(cloud: Faults, second_master: bool | Literal["unknown"]) -> str:
    present = None if second_master == "unknown" else second_master
    detail = {True: "hook host_error", False: "no failure hook", None: "OpenNebula's hooks cannot be read"}[present]
    happened(cloud, SecondMasterLooked(present=present, detail=detail))
    return f"another master: {detail}"


@happens
def runs_on(cloud: Faults, runs_on: int) -> str:
    name = names(cloud, [runs_on])
    happened(cloud, SelfPlaced(hosts=(runs_on,), detail=f"this controller runs in VM 12 on {name}"))
    return f"this controller is found to run in VM 12 on {name}"


@happens
def lead(cloud: Faults, lead: int, *, leader: str = "", trouble: str = "", inherited: str = "") -> str:
    happened(cloud, LeadChanged(term=lead or None, leader=leader, trouble=trouble, inherited=inherited))
    words = [f"term {lead} is ours" if lead else "the lead is not ours", trouble, inherited]
    words += [f"{leader} leads"] if leader else []
    return "; ".join(word for word in words if word)


@happens
def restart(cloud: Faults, restart: Literal[True]) -> str:
    cloud.happens("the controller dies and is started again")
    cloud.restart()
    return ""


@happens
def dies(cloud: Faults, dies: Literal["before", "after"], *, order: Order) -> str:
    cloud.dies[order] = dies
    return ""


@happens
def stands_still(cloud: Faults, stands_still: float) -> str:
    cloud.happens(f"the controller stands still for {stands_still:g} s")
    cloud.now = round(cloud.now + stands_still, 3)
    return ""


@happens
def clock(cloud: Faults, clock: float) -> str:
    cloud.happens(f"the clock is set by {clock:g} s")
    cloud.now += clock
    return ""
