"""What is written on a VM about the order of starts. What cannot be read counts as not written, and is told.

The owner of a VM writes it: only addresses that OpenNebula itself has given the VM are ever connected to.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from ha_controller.adapters.opennebula import OnedVm
from ha_controller.core.resources import ReadyBy, ReadyGate, Startup
from ha_controller.plugin import one_line

PRIORITY, AFTER, READY, READY_DELAY = "HA_PRIORITY", "HA_AFTER", "HA_READY", "HA_READY_DELAY"
SERVICE, ROLE = "SERVICE_ID", "ROLE_NAME"  #: written by OneFlow on the VMs of a service
PRIORITY_MAX = 10000
READY_DELAY_MAX_S = 3600.0
AFTER_MAX = 100  #: names
READ_MAX = 1000  #: characters of a name or a value: OpenNebula takes megabytes, and each reading looks at them
SHOWN_MAX = 60  #: of those in a message
_TCP = re.compile(r"tcp:([0-9]{1,5})(?:@\[?([0-9a-f:.]{2,45})\]?)?")
_FORMS = "it may be running, agent, tcp:PORT or tcp:PORT@ADDRESS"


def startup_of(vm: OnedVm) -> Startup:
    """All of it."""
    wrong: list[str] = []
    priority, delay = _whole(vm, PRIORITY, wrong), _whole(vm, READY_DELAY, wrong)
    return Startup(
        priority=None if priority is None else max(-PRIORITY_MAX, min(PRIORITY_MAX, priority)),
        after=_after(vm, wrong),
        ready_delay_s=None if delay is None else max(0.0, min(READY_DELAY_MAX_S, float(delay))),
        ready=_gate(vm, wrong),
        service=_whole(vm, SERVICE, []),
        role=one_line(vm.attributes.get(ROLE, "")[:READ_MAX]),
        wrong=tuple(wrong),
    )


def _whole(vm: OnedVm, name: str, wrong: list[str]) -> int | None:
    written = vm.attributes.get(name, "").strip()
    try:
        if len(written) <= 20:
            return int(written)
    except ValueError:
        pass
    if written:
        wrong.append(f"{name}={_shown(written)} is no whole number")
    return None


def _after(vm: OnedVm, wrong: list[str]) -> tuple[str, ...]:
    names = vm.attributes.get(AFTER, "").split(",", AFTER_MAX)
    if len(names) > AFTER_MAX:
        wrong.append(f"{AFTER} has more than {AFTER_MAX} names: the others are not waited for")
    return tuple(name for name in map(_shown, names[:AFTER_MAX]) if name)


def _gate(vm: OnedVm, wrong: list[str]) -> ReadyGate | None:
    written = vm.attributes.get(READY, "")[:READ_MAX].strip().lower()
    if written in ("", "running"):
        return None
    if written == "agent":
        return ReadyGate(by=ReadyBy.AGENT)
    form = _TCP.fullmatch(written)
    if form is None or not 1 <= int(form[1]) <= 65535:
        wrong.append(f"{READY}={_shown(written)} is not understood: {_FORMS}")
        return None
    own = _addresses(vm)
    if form[2] is not None and _literal(form[2]) not in own:
        wrong.append(f"{READY}={_shown(written)}: OpenNebula has given the VM no such address")
        return None
    address = (form[2] and _literal(form[2])) or next(iter(own), "")
    return ReadyGate(by=ReadyBy.TCP, port=int(form[1]), address=str(address))


def _addresses(vm: OnedVm) -> list[IPv4Address | IPv6Address]:
    """Those at which it can be asked, in the order of its network cards."""
    known = (_literal(written) for written in vm.addresses)
    return [
        address
        for address in known
        if address is not None
        and not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
    ]


def _literal(written: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(written)
    except ValueError:
        return None


def _shown(written: str) -> str:
    text = one_line(written[:READ_MAX]).strip()
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."
