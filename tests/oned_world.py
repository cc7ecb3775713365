"""The small cloud of `world`, with the embedded OpenNebula and the real executor in the place of its tiny ones.

Everything that the core orders goes through `Recoverer` to the embedded oned, and what the core reads comes from its
documents. Hardware tells what is true.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from leads import always
from world import SETTINGS, Cloud

from ha_controller.adapters.opennebula import Locked, NotAllowedNow, OpenNebulaError, Unauthorized, Withheld
from ha_controller.adapters.opennebula import OnedHost as ReadHostModel
from ha_controller.adapters.opennebula import OnedVm as ReadVmModel
from ha_controller.adapters.opennebula.documents import DATASTORES, HOST, VM
from ha_controller.adapters.opennebula.reader import DocumentReader
from ha_controller.adapters.recoverer import AttributeWriter, Recoverer, Scope
from ha_controller.adapters.recoverer.names import names_of_nobody
from ha_controller.adapters.recoverer.scope import zombies_of
from ha_controller.core.effects import (
    AskDomains,
    AskNames,
    Effect,
    Fence,
    LockVm,
    MoveVm,
    OrderHost,
    ReadHost,
    RecoverVm,
    ResumeVm,
    WriteAttributes,
)
from ha_controller.core.events import DomainsRead, NamesRead, VmOrderReported
from ha_controller.core.incident import VmRecord
from ha_controller.core.model import Host
from ha_controller.core.settings import Settings
from ha_controller.sim import oned_xml
from ha_controller.sim.checker import check
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault
from ha_controller.sim.oned_model import NOT_AUTHORIZED, History, OnedRefusal, OnedVm, Timings

HOSTS, VMS_PER_HOST = 4, 2
TIMINGS = Timings(ssh_timeout_s=3.0, scheduler_s=5.0)


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


class ProvenClient:
    """A client's orders, each of which asks first whether it may leave."""

    def __init__(self, client: DirectClient, may_send: Callable[[], Awaitable[bool]]) -> None:
        self._client, self._may_send = client, may_send

    def __getattr__(self, name: str) -> Callable[..., Awaitable[None]]:
        order = getattr(self._client, name)

        async def proven(*values: Any, **named: Any) -> None:
            if not await self._may_send():
                raise Withheld(name, "not sent")
            await order(*values, **named)

        return proven


class DirectClient:
    """The client's methods, answered by the embedded oned without a network."""

    def __init__(self, cloud: OnedCloud) -> None:
        self._cloud = cloud
        self.calls: list[tuple[str, int, object]] = []  #: what was ordered

    def proven(self, may_send: Callable[[], Awaitable[bool]], is_confirmed: None = None) -> ProvenClient:
        return ProvenClient(self, may_send)

    async def host(self, host: int) -> ReadHostModel:
        oned = self._cloud.oned
        return _read(HOST, oned_xml.host(oned, oned.hosts[host]))

    async def vm(self, vm: int) -> ReadVmModel:
        return _read(VM, oned_xml.vm(self._cloud.oned, self._cloud.oned.vms[vm], all_history=True))

    async def vms(self, vms: Iterable[int]) -> list[ReadVmModel]:
        oned = self._cloud.oned
        return [_read(VM, oned_xml.vm(oned, oned.vms[vm], all_history=False)) for vm in vms]

    async def all_vms(self) -> list[ReadVmModel]:
        return await self.vms(sorted(self._cloud.oned.vms))

    async def set_host_status(self, host: int, status: int) -> None:
        self._cloud.oned.set_status(host, status, self._cloud.now)

    async def update_host(self, host: int, attributes: dict[str, Any]) -> None:
        self._cloud.oned.update_host(host, attributes, 1)

    async def note_host(self, host: int, attributes: dict[str, Any]) -> None:
        self._cloud.oned.update_host(host, attributes, 1)

    async def note_vm(self, vm: int, attributes: dict[str, Any]) -> None:
        try:
            self._cloud.oned.lifecycle.update(vm, attributes, 1)
        except OnedRefusal as error:
            raise Locked("one.vm.update", error.text) from error

    async def migrate(self, vm: int, host: int, *, type: int = 0) -> None:
        del type  # the embedded VMs have no PCI devices
        oned, now = self._cloud.oned, self._cloud.now
        keys = {"live": False, "enforce": True, "datastore": -1, "now": now}
        self._order("migrate", vm, host, lambda: oned.lifecycle.migrate(vm, oned.hosts[host], **keys))

    async def vm_action(self, vm: int, action: str) -> None:
        self._order("action", vm, action, lambda: self._cloud.oned.lifecycle.action(vm, action, self._cloud.now))

    async def recover(self, vm: int, operation: int) -> None:
        call = int(operation)
        self._order("recover", vm, call, lambda: self._cloud.oned.lifecycle.recover(vm, call, self._cloud.now))

    async def lock(self, vm: int, level: int) -> None:
        self._order("lock", vm, level, lambda: self._cloud.oned.lifecycle.lock("one.vm.lock", vm, level))

    async def unlock(self, vm: int) -> None:
        self._order("unlock", vm, None, lambda: self._cloud.oned.lifecycle.lock("one.vm.unlock", vm, 0))

    def _order(self, what: str, vm: int, value: object, call: Any) -> None:
        self.calls.append((what, vm, value))
        try:
            call()
        except OnedRefusal as error:
            raise _error(error) from error


def _error(refusal: OnedRefusal) -> OpenNebulaError:
    kind = Unauthorized if refusal.code == NOT_AUTHORIZED else NotAllowedNow
    return kind(refusal.text)


def _read(kind: Any, document: str) -> Any:
    reader = DocumentReader(kind)
    reader.feed(document)
    return reader.close()[0]


@dataclass
class OnedCloud(Cloud):
    """`host` 0 is the one that dies in most tests; VM 0 and 1 are on it."""

    hosts: int = HOSTS
    vms_per_host: int = VMS_PER_HOST
    settings: Settings = field(default_factory=lambda: _fast(SETTINGS))

    def __post_init__(self) -> None:
        self.embedded = EmbeddedCloud(
            hosts=self.hosts, vms_per_host=self.vms_per_host, network=19, timings=TIMINGS, clock=lambda: self.now
        )
        self.oned, self.hardware = self.embedded.oned, self.embedded.hardware
        self.client = DirectClient(self)
        self.recoverer = Recoverer(
            self.client,  # type: ignore[arg-type]
            report=lambda event: self.feed(event) and None,
            may_act=always,
            clock=lambda: self.now,
            scope=Scope(),
            poll_s=10.0,
            equip=lambda hosts: {},
        )
        self.writer = AttributeWriter(
            self.client,  # type: ignore[arg-type]
            may_act=always,
            while_leading=nullcontext,
            clock=lambda: self.now,
        )
        self.recoverer._cache.datastores = {
            store.id: _read(DATASTORES, oned_xml.pool("DATASTORE_POOL", [oned_xml.datastore(store)]))
            for store in self.oned.datastores.values()
        }
        super().__post_init__()

    def host(self, host: int) -> Host:
        read = finish(self.client.host(host))
        return Host(
            id=host,
            name=read.name,
            cluster=read.cluster_id,
            cluster_name=read.cluster,
            one_state=read.state,
            vm_mad=read.vm_mad,
            free_cpu=read.max_cpu - read.cpu_usage,
            free_memory_mb=(read.max_mem_kb - read.mem_usage_kb) // 1024,
            vms=read.vm_ids,
            zombies=zombies_of(read),
            levels=self.levels,
        )

    # --- what happens ---

    def kill(self, host: int, power: str = "off") -> None:
        super().kill(host, power)
        self.hardware.break_machine(host, Fault.POWER_LOSS if power == "off" else Fault.HANG)

    def put(self, vm: int, state: int, lcm_state: int = 0, *, hosts: tuple[int, ...] = (0,)) -> OnedVm:
        """OpenNebula shows a VM in a state, after it was on these hosts."""
        known = self.oned.vms[vm]
        known.become(state, lcm_state)
        known.history = [History(seq=seq, host=host, started_at=self.now) for seq, host in enumerate(hosts)]
        return known

    def runs_on(self, vm: int, host: int | None) -> None:
        """Where its process really is."""
        for machine in self.hardware.machines:
            self.hardware.stop_vm(machine, vm)
        if host is not None:
            self.hardware.start_vm(host, vm)

    def _probe(self) -> None:
        self.oned.advance(self.now)
        super()._probe()

    def _do(self, effect: Effect) -> None:
        match effect:
            case ReadHost():
                finish(self.recoverer.read_host(effect))
            case OrderHost():
                finish(self.recoverer.order_host(effect))
            case MoveVm() | ResumeVm() | RecoverVm() | LockVm():
                result, detail = finish(self.recoverer._order_vm(effect))
                keys = {"vm": effect.vm, "incident": effect.incident, "attempt": effect.attempt}
                self.feed(VmOrderReported(**keys, result=result, detail=detail))
            case WriteAttributes():
                with suppress(Locked):
                    finish(self.writer.write(effect))
            case AskNames():
                missing = names_of_nobody(effect.names, finish(self.client.all_vms()))
                keys = {"host": effect.host, "incident": effect.incident, "names": effect.names}
                self.feed(NamesRead(**keys, missing=missing))
            case AskDomains(host=host):
                self._tell_truth(host)
            case Fence(host=host):
                self.hardware.power(host, False)
                super()._do(effect)
            case _:
                super()._do(effect)

    def _tell_truth(self, host: int) -> None:
        if host in self.no_answer or not self.hardware.answers(host):
            self.feed(DomainsRead(host=host, asked_at=self.now, failure="no answer"))
            return
        running = tuple(sorted(self.hardware.machines[host].vms))
        self.feed(DomainsRead(host=host, asked_at=self.now, running=running))

    # --- what is asserted ---

    def record(self, vm: int, host: int = 0) -> VmRecord:
        """What is on record of a VM of a dead host."""
        found = self.incident(host).vm(vm)
        assert found is not None
        return found

    def calls(self, vm: int) -> list[tuple[str, object]]:
        """What OpenNebula was asked to do with a VM."""
        return [(what, value) for what, number, value in self.client.calls if number == vm]

    def ran_twice(self) -> list[str]:
        """VMs that ran on two hosts at once, or too early, by the hardware's own log."""
        said = check(self.hardware, vms_must_wait=False)
        return [line for line in said if "at once" in line or "had power" in line or "healthy" in line]


def _fast(settings: Settings) -> Settings:
    return replace(settings, ssh_timeout_s=TIMINGS.ssh_timeout_s, vm_wait_max_s=60.0)
