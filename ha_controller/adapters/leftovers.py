"""Destroys a domain that is left over on a returned host, over SSH: never the only one of its VM.

Looks into OpenNebula right before, logged in already: nothing is sent unless the VM is RUNNING on the very host where
the decision saw it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from ha_controller.adapters.opennebula import OpenNebulaError
from ha_controller.adapters.ssh_login import LoginFailed, SshLogin, run_command
from ha_controller.core.effects import DestroyDomain
from ha_controller.core.events import DomainDestroyed, Event
from ha_controller.core.model import Vm
from ha_controller.core.recovery import claims_running
from ha_controller.plugin import Target, one_line

log = structlog.get_logger(__name__)

DONE = "destroyed"
DESTROY_TIMEOUT_S = 20.0  #: libvirt waits for the process to end


def command_for(vm: int) -> str:
    """What is run on the host. The domain's name is made of a number: nothing of it comes from outside."""
    return f"LC_ALL=C virsh --connect qemu:///system destroy one-{vm:d} && echo {DONE}"


class DomainDestroyer:
    """Carries out `DestroyDomain`."""

    def __init__(
        self,
        login: SshLogin | None,
        *,
        targets: Callable[[], Sequence[Target]],
        read_vms: Callable[[Sequence[int]], Awaitable[Sequence[Vm]]],
        report: Callable[[Event], None],
        may_act: Callable[[int | None], Awaitable[bool]],
        clock: Callable[[], float],
    ) -> None:
        """`read_vms` reads VMs from OpenNebula, now. `may_act` has the lead of an order's term proven."""
        self._login, self._targets, self._read_vms = login, targets, read_vms
        self._report, self._may_act, self._clock = report, may_act, clock

    async def destroy(self, order: DestroyDomain) -> None:
        """Carry out one order and report exactly one answer."""
        try:
            failure = await self._destroy(order)
        except (OpenNebulaError, LoginFailed) as error:
            failure = one_line(str(error))
        log.info("a leftover domain", host=order.host, vm=order.vm, failure=failure or "none: destroyed")
        keys = {"host": order.host, "incident": order.incident, "vm": order.vm, "attempt": order.attempt}
        self._report(DomainDestroyed(**keys, failure=failure))

    async def _destroy(self, order: DestroyDomain) -> str:
        if self._login is None:
            return "not sent: nobody may log in to hosts: identity.username is not set"
        address = next((target.address for target in self._targets() if target.host == order.host), "")
        if not address:
            return "not sent: its address is not known"
        output = await run_command(
            self._login,
            address,
            command_for(order.vm),
            timeout_s=DESTROY_TIMEOUT_S,
            why_not=lambda: self._why_not(order),
        )
        lines = output.text.split()
        if output.status != 0 or not lines or lines[-1] != DONE:
            return f"virsh destroy ended with exit code {output.status}, without saying that it did it"
        return ""

    async def _why_not(self, order: DestroyDomain) -> str:
        """Looked at when the login is done: hosts that were just powered on take their time with that."""
        vm = next(iter(await self._read_vms([order.vm])), None)
        if vm is None or vm.host != order.runs_on or vm.host == order.host or not claims_running(vm):
            return "OpenNebula does not show it RUNNING where it did"
        if not await self._may_act(order.term) or self._clock() > order.not_after:
            return "too late, or we no longer lead"
        return ""
