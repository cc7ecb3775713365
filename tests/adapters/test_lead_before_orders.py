"""No order leaves before the lead of its own term was proven, and nothing is waited for between the two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import anyio
import pytest
from pydantic import SecretStr

from ha_controller.adapters.fencer import Device, Fencer
from ha_controller.adapters.opennebula import Client
from ha_controller.adapters.opennebula.gate import Lane
from ha_controller.adapters.recoverer import Recoverer, Scope
from ha_controller.core.effects import (
    Drill,
    Fence,
    HostStep,
    LiftOrders,
    MarkMaintenance,
    MoveVm,
    OrderHost,
    RenewOrders,
    ResumeVm,
)
from ha_controller.core.events import Event, FenceReported, FenceResult, HostOrderReported, OrderResult, VmOrderReported
from ha_controller.plugin import AgentConfig, Capability, CheckReport, FenceAgent, Identity, PowerState
from ha_controller.sim.cloud import EmbeddedCloud

TERM = 7
OURS = Identity(system_uuid="4c4c4544-0000-4000-8000-000000000001")


@dataclass
class Lead:
    """Is proven as often as `proofs` says, and then lost; keeps what was asked for."""

    proofs: int = 1000
    asked: list[int | None] = field(default_factory=list)

    async def may_act(self, term: int | None) -> bool:
        self.asked.append(term)
        return len(self.asked) <= self.proofs


class Bmc(FenceAgent[AgentConfig]):
    kind = "fake"
    config_model = AgentConfig
    capabilities = Capability.READ_POWER | Capability.IDENTITY | Capability.POWER_ON | Capability.LASTING
    sample_period_s = 0.0

    def __init__(self) -> None:
        super().__init__(AgentConfig())
        self.orders: list[str] = []
        self.power = PowerState.OFF

    async def power_off(self) -> None:
        self.orders.append("off")

    async def power_on(self) -> None:
        self.orders.append("on")

    async def power_state(self) -> PowerState:
        return self.power

    async def check(self) -> CheckReport:
        return CheckReport(ok=True, summary="ok")

    async def identity(self) -> Identity:
        return OURS


def fencer(bmc: Bmc, lead: Lead, events: list[Event]) -> Fencer:
    made = Fencer(report=events.append, may_act=lead.may_act, clock=asyncio.get_running_loop().time)
    made.equip(3, {"bmc": Device(name="bmc", agent=bmc, timeout_s=4.0)})
    return made


def recoverer(
    client: Client,
    lead: Lead | Callable[[int | None], Awaitable[bool]],
    events: list[Event],
    clock: Callable[[], float] = lambda: 0.0,
    confirms: bool = False,
) -> Recoverer:
    may_act = lead.may_act if isinstance(lead, Lead) else lead
    return Recoverer(
        client,
        report=events.append,
        may_act=may_act,
        clock=clock,
        scope=Scope(),
        poll_s=5.0,
        equip=lambda hosts: {},
        confirms=confirms,
    )


def shot(term: int | None = TERM) -> Fence:
    return Fence(term=term, host=3, incident=1, attempt=1, devices=("bmc",), send=True, not_after=1e12, identity=OURS)


@pytest.mark.parametrize("proofs", [0, 1])
async def test_a_lead_that_ends_before_the_shot_or_while_the_device_is_asked_whose_it_is(proofs: int):
    """The second proof comes after the device has told its identity, which may take seconds."""
    bmc, lead, events = Bmc(), Lead(proofs=proofs), list[Event]()
    await fencer(bmc, lead, events).fence(shot())
    assert bmc.orders == []
    assert lead.asked == [TERM] * (proofs + 1)
    [report] = [event for event in events if isinstance(event, FenceReported)]
    assert report.result is FenceResult.NOT_SENT
    assert "no longer lead" in report.detail


@pytest.mark.parametrize("proofs", [0, 1])
async def test_what_was_acknowledged_before_a_restart_is_never_called_without_effect(proofs: int):
    """It is only read back now; that this does not happen says nothing of the shot."""
    lead, events = Lead(proofs=proofs), list[Event]()
    await fencer(Bmc(), lead, events).fence(replace(shot(), send=False))
    [report] = [event for event in events if isinstance(event, FenceReported)]
    assert report.result is FenceResult.UNVERIFIED


async def test_a_shot_is_sent_in_its_own_term():
    bmc, lead, events = Bmc(), Lead(), list[Event]()
    await fencer(bmc, lead, events).fence(shot())
    assert bmc.orders == ["off"]
    assert set(lead.asked) == {TERM}


async def test_orders_that_last_and_drills_are_asked_for_in_their_own_term():
    lasting = {"term": TERM, "host": 3, "incident": 1, "devices": ("bmc",), "not_after": 1e12}
    for lead in (Lead(proofs=0), Lead()):
        bmc, events = Bmc(), list[Event]()
        made = fencer(bmc, lead, events)
        await made.renew(RenewOrders(**lasting))
        bmc.power = PowerState.ON
        await made.lift(LiftOrders(**lasting, number=1))
        assert bmc.orders == (["off", "on"] if lead.proofs else [])
        assert set(lead.asked) == {TERM}
    bmc, lead = Bmc(), Lead(proofs=0)
    await fencer(bmc, lead, []).drill(Drill(term=TERM, host=3, request=1, devices=("bmc",), not_after=1e12))
    assert bmc.orders == []


@pytest.mark.parametrize("leads", [True, False])
async def test_orders_to_opennebula_are_proven_right_before_they_leave(leads: bool):
    events: list[Event] = []
    calls_at_proof: list[int] = []
    async with (
        EmbeddedCloud(hosts=3, vms_per_host=1) as cloud,
        Client(cloud.endpoint, SecretStr(cloud.session), timeout_s=5.0) as client,
    ):
        for vm in cloud.oned.vms.values():
            vm.state, vm.lcm_state = 8, 0  # POWEROFF: may be moved, and resumed

        async def may_act(term: int | None) -> bool:
            calls_at_proof.append(len(cloud.server.calls))
            assert term == TERM
            return leads

        ours = recoverer(client, may_act, events)
        move = MoveVm(term=TERM, vm=0, incident=1, attempt=1, source=0, destination=1, not_after=1e12)
        await ours.order_vm(move)
        calls = [call.method for call in cloud.server.calls]
        assert calls[: calls_at_proof[0]] == ["one.vm.info"], "it looks first, and then asks"
        assert calls[calls_at_proof[0] :] == (["one.vm.migrate"] if leads else [])
        await ours.order_vm(ResumeVm(term=TERM, vm=1, incident=1, attempt=1, host=1, not_after=1e12))
        disable = HostStep.DISABLE
        await ours.order_host(OrderHost(term=TERM, host=2, incident=1, step=disable, state_before=2, not_after=1e12))
        await ours.mark_maintenance(MarkMaintenance(term=TERM, host=2, request=1, on=True, until=None, reason="test"))
        written = {call.method for call in cloud.server.calls} - {"one.vm.info", "one.hostpool.info"}
        assert bool(written) is leads, written
    vm_results = {event.result for event in events if isinstance(event, VmOrderReported)}
    host_results = {event.result for event in events if isinstance(event, HostOrderReported)}
    expected = {OrderResult.ACCEPTED if leads else OrderResult.NOT_NOW}
    assert (vm_results, host_results) == (expected, expected)


@pytest.mark.parametrize("step", [HostStep.DISABLE, HostStep.RESTORE])
@pytest.mark.parametrize("proofs", [0, 1, 2])
async def test_each_call_of_a_host_order_is_proven_by_itself(step: HostStep, proofs: int):
    """Both are two calls, and the first may take its time. What is half done was sent."""
    lead, events = Lead(proofs=proofs), list[Event]()
    async with (
        EmbeddedCloud(hosts=3, vms_per_host=1) as cloud,
        Client(cloud.endpoint, SecretStr(cloud.session), timeout_s=5.0) as client,
    ):
        order = OrderHost(term=TERM, host=2, incident=1, step=step, state_before=2, not_after=1e12)
        await recoverer(client, lead, events).order_host(order)
        assert len(cloud.server.calls) == proofs
    [report] = [event for event in events if isinstance(event, HostOrderReported)]
    assert report.result is (OrderResult.NOT_NOW, OrderResult.UNKNOWN, OrderResult.ACCEPTED)[proofs]


@pytest.mark.parametrize("proofs", [0, 1, 2])
async def test_where_opennebula_may_lose_what_it_accepts_an_order_counts_with_a_proof_behind_it(proofs: int):
    """One proof before it, one after it; without the second one nobody knows what becomes of it."""
    lead, events = Lead(proofs=proofs), list[Event]()
    async with (
        EmbeddedCloud(hosts=3, vms_per_host=1) as cloud,
        Client(cloud.endpoint, SecretStr(cloud.session), timeout_s=5.0) as client,
    ):
        cloud.oned.vms[0].state, cloud.oned.vms[0].lcm_state = 8, 0
        ours = recoverer(client, lead, events, confirms=True)
        await ours.order_vm(MoveVm(term=TERM, vm=0, incident=1, attempt=1, source=0, destination=1, not_after=1e12))
        assert ("one.vm.migrate" in [call.method for call in cloud.server.calls]) is (proofs > 0)
    [report] = [event for event in events if isinstance(event, VmOrderReported)]
    assert report.result is (OrderResult.NOT_NOW, OrderResult.UNKNOWN, OrderResult.ACCEPTED)[proofs]


async def test_an_order_that_waited_for_a_connection_is_proven_when_it_has_one():
    """oned is slow, its connections are taken: a proof from before the wait would be old by then."""
    lead, events = Lead(proofs=1), list[Event]()
    async with (
        EmbeddedCloud(hosts=3, vms_per_host=1) as cloud,
        Client(cloud.endpoint, SecretStr(cloud.session), timeout_s=5.0, connections=2) as client,
        asyncio.TaskGroup() as group,
    ):
        order = OrderHost(term=TERM, host=2, incident=1, step=HostStep.OFFLINE, state_before=2, not_after=1e12)
        async with client._gate.slot(Lane.ORDER):
            group.create_task(recoverer(client, lead, events).order_host(order))
            await anyio.wait_all_tasks_blocked()
            assert lead.asked == [], "not before it could leave"
            lead.proofs = 0  # the lead ends while it waits
    assert lead.asked == [TERM]
    assert cloud.server.calls == []
    [report] = [event for event in events if isinstance(event, HostOrderReported)]
    assert report.result is OrderResult.NOT_NOW


async def test_an_order_that_became_late_while_it_waited_for_a_connection_is_not_sent():
    lead, events, now = Lead(), list[Event](), 0.0
    async with (
        EmbeddedCloud(hosts=3, vms_per_host=1) as cloud,
        Client(cloud.endpoint, SecretStr(cloud.session), timeout_s=5.0, connections=2) as client,
        asyncio.TaskGroup() as group,
    ):
        order = OrderHost(term=TERM, host=2, incident=1, step=HostStep.OFFLINE, state_before=2, not_after=3.0)
        async with client._gate.slot(Lane.ORDER):
            group.create_task(recoverer(client, lead, events, clock=lambda: now).order_host(order))
            await anyio.wait_all_tasks_blocked()
            now = 4.0
    assert cloud.server.calls == []
