"""The independent judge: looks at the hardware's log only and knows nothing of the controller or of OpenNebula."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ha_controller.sim.hardware import Happening, Hardware


def check(hardware: Hardware, *, vms_must_wait: bool) -> list[str]:
    """Everything that went wrong, in words; empty when all went well.

    `vms_must_wait`: the fault allows no proof that the machine is off, so none of its VMs may have been started.
    """
    return [
        *_running_twice(hardware.log),
        *_healthy_machines_powered_off(hardware.log),
        *_started_too_early(hardware.log),
        *_where_they_ended(hardware, vms_must_wait=vms_must_wait),
    ]


def _running_twice(log: Iterable[Happening]) -> Iterable[str]:
    places: defaultdict[int, set[int]] = defaultdict(set)
    for line in log:
        if line.vm is None:
            continue
        if line.what == "vm start":
            places[line.vm].add(line.machine)
            if len(places[line.vm]) > 1:
                yield f"VM {line.vm} ran on machines {sorted(places[line.vm])} at once"
        else:
            places[line.vm].discard(line.machine)


def _healthy_machines_powered_off(log: Iterable[Happening]) -> Iterable[str]:
    broken: set[int] = set()
    for line in log:
        if line.what.startswith("fault"):
            broken.add(line.machine)
        elif line.what == "ordered off" and line.machine not in broken:
            yield f"machine {line.machine} was healthy and was ordered off"


def _started_too_early(log: Iterable[Happening]) -> Iterable[str]:
    """A VM of a broken machine was started elsewhere before that machine was without power."""
    homes: dict[int, int] = {}
    broken: set[int] = set()
    powered_off: set[int] = set()
    for line in log:
        if line.what.startswith("fault"):
            broken.add(line.machine)
        elif line.what == "power off":
            powered_off.add(line.machine)
        elif line.what == "power on":
            powered_off.discard(line.machine)
        elif line.what == "vm start" and line.vm is not None:
            home = homes.get(line.vm)
            if home in broken and home != line.machine and home not in powered_off:
                yield f"VM {line.vm} was started on machine {line.machine} while machine {home} had power"
            homes[line.vm] = line.machine


def _where_they_ended(hardware: Hardware, *, vms_must_wait: bool) -> Iterable[str]:
    first_home: dict[int, int] = {}
    for line in hardware.log:
        if line.what == "vm start" and line.vm is not None:
            first_home.setdefault(line.vm, line.machine)
    running = {vm: machine.id for machine in hardware.machines.values() for vm in machine.vms if machine.powered}
    for vm, home in sorted(first_home.items()):
        if not hardware.machines[home].broken:
            if running.get(vm) != home:
                yield f"VM {vm} of the healthy machine {home} does not run there any more"
        elif vms_must_wait:
            if vm in running and running[vm] != home:
                yield f"VM {vm} was started on machine {running[vm]}, though nothing proved that machine {home} is off"
        elif vm not in running or running[vm] == home:
            yield f"VM {vm} of the broken machine {home} runs nowhere else"
