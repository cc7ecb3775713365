"""Everything that is asked of OpenNebula: the inventory feed, readings of failed hosts, host and VM orders.

Looks before every order and sends nothing if the VM is not what the decision was made for. An answer of oned is an
acceptance, not a result; a lost answer is an unknown outcome, never a failure. Reports go back as events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import anyio
import structlog

from ha_controller.adapters.opennebula import (
    Client,
    HostStatus,
    OnedDatastore,
    OnedHost,
    OnedVm,
    OpenNebulaError,
    Withheld,
    storage,
    vm_state_name,
)
from ha_controller.adapters.recoverer.histories import Histories, tried_on
from ha_controller.adapters.recoverer.pace import Pace
from ha_controller.adapters.recoverer.pools import Pools, reach_of
from ha_controller.adapters.recoverer.scope import (
    DRILL,
    FENCED,
    IGNORE,
    IGNORE_REASON,
    MARK,
    RESTARTING,
    UNTIL,
    Scope,
    is_restarting,
    left_offline_by_us,
    noted_identity,
    zombies_of,
)
from ha_controller.adapters.recoverer.startup import startup_of
from ha_controller.adapters.recoverer.vms import VmOrder, not_as_decided, policy_of, result_of, travels, why_untouched
from ha_controller.core.effects import (
    HostStep,
    LockVm,
    MarkMaintenance,
    MoveVm,
    OrderHost,
    ReadHost,
    RecoverVm,
    RestartMonitoring,
    ResumeVm,
)
from ha_controller.core.events import (
    Event,
    HostOrderReported,
    HostRead,
    InventoryRead,
    MaintenanceMarked,
    MonitoringRestarted,
    OnedReadFailed,
    OrderResult,
    VmOrderReported,
)
from ha_controller.core.model import Device, Host, OnedHostState, Vm
from ha_controller.plugin import OnedView, one_line

log = structlog.get_logger(__name__)

DATASTORES_EVERY_S = 60.0
SAVE, POWER_OFF_HARD = 0, 2  #: kinds of migrate; a VM with PCI devices cannot be saved
_BACK_TO = {OnedHostState.DISABLED: HostStatus.DISABLE, OnedHostState.OFFLINE: HostStatus.OFFLINE}


@dataclass(frozen=True, kw_only=True)
class FencePlan:
    """The fence devices of one host, level by level."""

    levels: tuple[tuple[Device, ...], ...] = ()
    timeout_s: float = 20.0


@dataclass(kw_only=True)
class _Cache:
    datastores: dict[int, OnedDatastore] = field(default_factory=dict)
    datastores_at: float | None = None
    views: dict[int, OnedView] = field(default_factory=dict)


class Recoverer:
    """Feeds the core with what OpenNebula says, and carries out its orders there."""

    def __init__(
        self,
        client: Client,
        *,
        report: Callable[[Event], None],
        may_act: Callable[[int | None], Awaitable[bool]],
        clock: Callable[[], float],
        scope: Scope,
        poll_s: float,
        equip: Callable[[Sequence[OnedHost]], Mapping[int, FencePlan]],
        order_timeout_s: float = 15.0,
        confirms: bool = False,
        told: Callable[[OpenNebulaError], str] = str,
    ) -> None:
        """`equip` is called with every new inventory, before it is reported, and tells each host's fence devices.

        `confirms`: an order that oned accepted counts once the lead was proven behind it, in a zone that may lose it.
        `told`: an error of OpenNebula in words, with its remedy.
        """
        self._client = client
        self._report = report
        self._may_act = may_act
        self._clock = clock
        self.scope = scope  #: may be changed while running
        self.pace = Pace(poll_s)
        self._equip = equip
        self._order_timeout_s = order_timeout_s
        self._confirms = confirms
        self._told = told
        self._cache = _Cache()
        self._pools = Pools(client, clock)
        self._histories = Histories(client)

    def oned_view(self, host: int) -> OnedView | None:
        """What OpenNebula said about a host at the last inventory."""
        return self._cache.views.get(host)

    # --- reading ---

    async def run_inventory(self) -> None:
        """Read the inventory every `poll_s` or sooner; runs until cancelled. Errors are reported and never end it."""
        while True:
            began_at = anyio.current_time()
            await self.read_inventory()
            await self.pace.next(anyio.current_time() - began_at)

    async def read_inventory(self) -> None:
        """Read all hosts once and report them, or that OpenNebula did not answer."""
        try:
            await self._read_datastores()
            await self._pools.refresh()
            asked_at = self._clock()
            hosts = await self._client.hosts()
        except OpenNebulaError as error:
            log.warning("the inventory could not be read", error=str(error))
            self._report(OnedReadFailed(detail=self._told(error)))
            return
        self._note_views(hosts, asked_at)
        plans = self._equip(hosts)
        found = tuple(self._host(host, plans.get(host.id, FencePlan())) for host in hosts)
        self._report(InventoryRead(hosts=found, groups=self._pools.groups))

    async def _read_datastores(self) -> None:
        cache = self._cache
        if cache.datastores_at is None or self._clock() - cache.datastores_at >= DATASTORES_EVERY_S:
            cache.datastores = {datastore.id: datastore for datastore in await self._client.datastores()}
            cache.datastores_at = self._clock()

    def _note_views(self, hosts: Sequence[OnedHost], asked_at: float) -> None:
        before = self._cache.views
        self._cache.views = {
            host.id: OnedView(
                state=host.state,
                monitored_at=host.monitored_at,
                read_at=asked_at,
                previous_read_at=before[host.id].read_at if host.id in before else None,
            )
            for host in hosts
        }

    def _host(self, host: OnedHost, plan: FencePlan) -> Host:
        return Host(
            id=host.id,
            name=host.name,
            cluster=host.cluster_id,
            cluster_name=host.cluster,
            one_state=host.state,
            vm_mad=host.vm_mad,
            free_cpu=host.max_cpu - host.cpu_usage,
            free_memory_mb=(host.max_mem_kb - host.mem_usage_kb) // 1024,
            vms=host.vm_ids,
            pci=host.pci,
            numa=host.numa,
            **self._pools.for_requirements(host),
            places=self.scope.places_of(host),
            excluded=self.scope.why_excluded(host, self._clock()),
            maintenance=self.scope.in_maintenance(host, self._clock()),
            zombies=zombies_of(host),
            drill_by_itself=host.template.get(DRILL, "").upper() == "YES",
            monitoring_restarting=is_restarting(host),
            marked=host.template.get(MARK, "").startswith(FENCED),
            levels=plan.levels,
            identity=noted_identity(host),
            fence_timeout_s=plan.timeout_s,
        )

    async def why_not_empty(self, host: int) -> str:
        """Ask OpenNebula, now, whether VMs are on a host; returns why it cannot be said that none is, or nothing."""
        try:
            vms = (await self._client.host(host)).vm_ids
        except OpenNebulaError as error:
            return f"OpenNebula does not say whether VMs are there: {error}"
        return f"{len(vms)} VMs are there" if vms else ""

    async def read_host(self, order: ReadHost) -> None:
        """Read one host and its VMs, and the VMs asked for wherever they are."""
        asked_at = self._clock()
        try:
            host = await self._client.host(order.host)
            wanted = sorted({*host.vm_ids, *order.vms})
            vms = await self._histories.complete(await self._client.vms(wanted) if wanted else [], host)
        except OpenNebulaError as error:
            self._report(OnedReadFailed(host=order.host, detail=self._told(error)))
            return
        self._report(
            HostRead(
                host=host.id,
                asked_at=asked_at,
                one_state=host.state,
                monitored_at=float(host.monitored_at),
                marked=host.template.get(MARK, "").startswith(FENCED),
                monitoring_restarting=is_restarting(host),
                vms=tuple(self._vm(vm, host) for vm in vms),
            )
        )

    async def read_vms(self, vms: Sequence[int]) -> list[Vm]:
        """Read these VMs, wherever they are. Raises OpenNebulaError."""
        await self._read_datastores()
        return [self._vm(vm) for vm in await self._client.vms(vms)] if vms else []

    def _vm(self, vm: OnedVm, host: OnedHost | None = None) -> Vm:
        return Vm(
            id=vm.id,
            name=vm.name,
            state=vm.state,
            lcm_state=vm.lcm_state,
            host=vm.host_id,
            cluster=-1 if vm.cluster_id is None else vm.cluster_id,
            vm_mad=vm.vm_mad,
            cpu=round(vm.cpu * 100),
            memory_mb=vm.memory_mb,
            pci=vm.pci,
            numa=vm.numa,
            automatic_requirements=vm.automatic_requirements,
            requirements=vm.sched_requirements,
            group=vm.vmgroup_id,
            reach=reach_of(vm, self._cache.datastores),
            found_missing_at=float(vm.found_missing_at),
            obstacle=why_untouched(vm),
            storage_obstacle=storage.why_without_disks(vm, self._cache.datastores),
            disks_lost=storage.disks_are_lost(vm, self._cache.datastores),
            memory_obstacle=storage.why_without_memory(vm, self._cache.datastores),
            policy=policy_of(vm),
            lock_level=vm.lock_level,
            previous_host=vm.stays[-1].host_id if vm.stays and travels(vm) else None,
            tried_on=() if host is None else tried_on(vm, host),
            label=vm_state_name(vm.state, vm.lcm_state),
            datastores=storage.datastores_of(vm),
            startup=startup_of(vm),
        )

    # --- orders ---

    async def mark_maintenance(self, order: MarkMaintenance) -> None:
        """Write or remove the mark, and report `MaintenanceMarked`."""
        until = None if order.until is None else datetime.fromtimestamp(order.until, UTC).isoformat(timespec="seconds")
        value = (f"{UNTIL}{until}" if until else "YES") if order.on else ""
        attributes = {IGNORE: value, IGNORE_REASON: one_line(order.reason) if order.on else ""}
        failure = ""
        try:
            await self._proven(order.term).update_host(order.host, attributes)
        except OpenNebulaError as error:
            failure = "we no longer lead" if isinstance(error, Withheld) else str(error)
        self._report(MaintenanceMarked(host=order.host, request=order.request, failure=failure))
        if not failure:
            await self.read_inventory()

    async def restart_monitoring(self, order: RestartMonitoring) -> None:
        """Look at the host, take it OFFLINE and ENABLE it if it is still what the decision was made for; report it.

        The mark is written first and taken away last: a crash in between leaves a host that is found and enabled, or
        only loses the mark if a person has changed its state since.
        """
        try:
            failure = await self._restart_monitoring(order)
        except OpenNebulaError as error:
            failure = "we no longer lead" if isinstance(error, Withheld) else str(error)
        self._report(MonitoringRestarted(host=order.host, failure=failure))

    async def _restart_monitoring(self, order: RestartMonitoring) -> str:
        host, now, client = await self._client.host(order.host), self._clock(), self._proven(order.term)
        steps: Sequence[Callable[[], Awaitable[object]]]
        unmark = [lambda: client.update_host(order.host, {MARK: ""})]
        enable = [lambda: client.set_host_status(order.host, HostStatus.ENABLE)]
        if left_offline_by_us(host, now):
            steps = [*enable, *unmark]
        elif is_restarting(host):
            steps = unmark
        elif host.state == OnedHostState.ERROR:
            mark = f"{RESTARTING} {datetime.fromtimestamp(now, UTC).isoformat(timespec='seconds')}"
            steps = [
                lambda: client.update_host(order.host, {MARK: mark}),
                lambda: client.set_host_status(order.host, HostStatus.OFFLINE),
                *enable,
                *unmark,
            ]
        else:
            return f"its state is {host.state} by now"
        if now > order.not_after:
            return "too late"
        for step in steps:
            await step()
        return ""

    async def order_host(self, order: OrderHost) -> None:
        """Carry out a host order and report exactly one result."""
        result, detail = await self._host_order(order)
        self._report(
            HostOrderReported(host=order.host, incident=order.incident, step=order.step, result=result, detail=detail)
        )

    async def _host_order(self, order: OrderHost) -> tuple[OrderResult, str]:
        first, then = self._proven(order.term, order.not_after), self._proven(order.term)
        has_begun = False
        try:
            match order.step:
                case HostStep.OFFLINE:
                    await first.set_host_status(order.host, HostStatus.OFFLINE)
                case HostStep.ENABLE:
                    await first.set_host_status(order.host, HostStatus.ENABLE)
                case HostStep.DISABLE:
                    # the mark first: a crash in between leaves a mark on a host that is not disabled, which is harmless
                    await first.update_host(order.host, {MARK: f"{FENCED} {order.incident}"})
                    has_begun = True
                    await then.set_host_status(order.host, HostStatus.DISABLE)
                case HostStep.RESTORE:
                    await first.set_host_status(order.host, _BACK_TO.get(order.state_before, HostStatus.ENABLE))
                    has_begun = True
                    await then.update_host(order.host, {MARK: ""})
        except OpenNebulaError as error:
            result = result_of(error)
            return OrderResult.UNKNOWN if has_begun and result is OrderResult.NOT_NOW else result, str(error)
        return OrderResult.ACCEPTED, ""

    async def order_vm(self, order: VmOrder) -> None:
        """Look at the VM, carry the order out if it is still what the decision was made for, report one result."""
        result, detail = OrderResult.UNKNOWN, f"no answer within {self._order_timeout_s:g} s"
        with anyio.move_on_after(self._order_timeout_s):
            result, detail = await self._order_vm(order)
        self._report(
            VmOrderReported(vm=order.vm, incident=order.incident, attempt=order.attempt, result=result, detail=detail)
        )

    async def _order_vm(self, order: VmOrder) -> tuple[OrderResult, str]:
        try:
            vm = await self._client.vm(order.vm)
        except OpenNebulaError as error:
            return OrderResult.NOT_NOW, f"not sent: {error}"
        try:
            if changed := not_as_decided(vm, order):
                return OrderResult.SKIPPED, changed
            client = self._proven(order.term, order.not_after)
            if vm.locked and not isinstance(order, LockVm):
                await client.unlock(order.vm)  # its lock is on record, for whoever goes on
            await self._send(client, order, vm)
        except OpenNebulaError as error:
            return result_of(error), str(error)
        return OrderResult.ACCEPTED, ""

    def _proven(self, term: int | None, not_after: float = float("inf")) -> Client:
        """Each of its calls has the lead proven, and looks at the clock, after it was given its connection."""

        async def may_send() -> bool:
            return await self._may_act(term) and self._clock() <= not_after

        return self._client.proven(may_send, partial(self._may_act, term) if self._confirms else None)

    async def _send(self, client: Client, order: VmOrder, vm: OnedVm) -> None:
        match order:
            case MoveVm():
                kind = POWER_OFF_HARD if vm.pci else SAVE
                await client.migrate(order.vm, order.destination, type=kind)
            case ResumeVm():
                await client.vm_action(order.vm, "resume")
            case RecoverVm():
                await client.recover(order.vm, order.operation)
            case LockVm():
                await client.lock(order.vm, order.level)
