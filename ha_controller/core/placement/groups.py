"""What VM groups ask for: hosts of a role, VMs that share a host, VMs that share none (src/vm_group of OpenNebula)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ha_controller.core.resources import Role, VmGroup

AFFINED, ANTI_AFFINED = "AFFINED", "ANTI_AFFINED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ties:
    """What binds one VM to hosts and to other VMs. Hashable: VMs with equal ties are screened once."""

    hosts: frozenset[int] | None = None  #: on these only; None: on any
    not_hosts: frozenset[int] = frozenset()
    together: tuple[frozenset[int], ...] = ()  #: sets of VMs that share a host, each with this one
    apart: frozenset[int] = frozenset()  #: VMs that must not share its host


FREE = Ties()


class Groups:
    """All VM groups, indexed by VM."""

    def __init__(self, groups: Iterable[VmGroup]) -> None:
        """Index the groups; VMs of none of them are free."""
        self._known: set[int] = set()
        self._ties: dict[int, Ties] = {}
        for group in groups:
            self._known.add(group.id)
            self._add(group)

    def ties(self, vm: int, group: int | None) -> Ties | None:
        """What binds a VM; None if that is not known: its group was not read."""
        if group is None:
            return FREE
        return self._ties.get(vm) if group in self._known else None  # a group that does not list it is out of date

    def _add(self, group: VmGroup) -> None:
        by_name = {role.name: role for role in group.roles}
        sets = _together(group, by_name)
        for role in group.roles:
            others = {vm for rule in group.anti_affined if role.name in rule for vm in _vms(rule, by_name, role.name)}
            among = set(role.vms) if role.policy == ANTI_AFFINED else set()
            for vm in role.vms:
                self._ties[vm] = Ties(
                    hosts=frozenset(role.hosts) if role.hosts else None,
                    not_hosts=frozenset(role.not_hosts),
                    together=tuple(each for each in sets if vm in each),
                    apart=frozenset((others | among) - {vm}),
                )


def _vms(names: Iterable[str], by_name: dict[str, Role], but: str = "") -> set[int]:
    return {vm for name in names if name != but and name in by_name for vm in by_name[name].vms}


def _together(group: VmGroup, by_name: dict[str, Role]) -> list[frozenset[int]]:
    """Sets of VMs that share a host."""
    rules = [frozenset(role.vms) for role in group.roles if role.policy == AFFINED]
    rules += [frozenset(_vms(rule, by_name)) for rule in group.affined]
    return [rule for rule in rules if len(rule) > 1]
