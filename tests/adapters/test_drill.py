"""Drills and identity in the fencer, with devices kept in memory; whole drills over IPMI are in tests/whole."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from leads import always

from ha_controller.adapters.fencer import Device, Fencer, Looks
from ha_controller.core.effects import Drill, Fence
from ha_controller.core.events import DeviceChecked, DrillReported, Event, FenceReported, FenceResult
from ha_controller.plugin import (
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    Identity,
    PowerState,
)

OURS, OTHERS = Identity(system_uuid="aa"), Identity(system_uuid="bb")


class Machine(FenceAgent[AgentConfig]):
    """A device, and the machine that it really switches."""

    kind = "double"
    config_model = AgentConfig
    capabilities = Capability.READ_POWER | Capability.POWER_ON | Capability.IDENTITY
    sample_period_s = 0.1

    def __init__(self) -> None:
        super().__init__(AgentConfig())
        self.on = True
        self.offs = 0
        self.named: Identity | None = OURS
        self.hangs = False
        self.stays_off = False

    async def power_off(self) -> None:
        self.offs += 1
        self.on = False

    async def power_on(self) -> None:
        self.on = not self.stays_off

    async def power_state(self) -> PowerState:
        return PowerState.ON if self.on else PowerState.OFF

    async def identity(self) -> Identity | None:
        if self.hangs:
            await anyio.sleep_forever()
        if self.named is None:
            raise FenceError("it does not know")
        return self.named

    async def check(self) -> CheckReport:
        return CheckReport(ok=True, summary="ok", power=PowerState.ON)


class Bench:
    """A fencer whose host answers as long as `host_on()` says."""

    def __init__(self, machine: Machine) -> None:
        self.events: list[Event] = []
        self.machine = machine
        self.answers = lambda: machine.on
        self.asked, self.vms = True, ""
        self.fencer = Fencer(
            report=self.events.append,
            may_act=always,
            clock=lambda: asyncio.get_running_loop().time(),
            looks=Looks(
                shows_life=lambda host, moment: self.answers(),
                is_silent=lambda host, moment: self.asked and not self.answers(),
                why_not_empty=self.why_not_empty,
            ),
        )
        self.fencer.equip(3, {"bmc": Device(name="bmc", agent=machine, timeout_s=2.0, fingerprint="f")})

    async def why_not_empty(self, host: int) -> str:
        return self.vms

    async def drill(self) -> tuple[bool, str]:
        not_after = asyncio.get_running_loop().time() + 3
        await self.fencer.drill(Drill(host=3, request=1, devices=("bmc",), not_after=not_after))
        (report,) = [event for event in self.events if isinstance(event, DrillReported)]
        ((name, fingerprint, switched, detail),) = report.results
        assert (name, fingerprint) == ("bmc", "f")
        return switched, detail

    async def fence(self) -> FenceReported:
        not_after = asyncio.get_running_loop().time() + 3
        order = Fence(host=3, incident=1, attempt=1, devices=("bmc",), send=True, not_after=not_after, identity=OURS)
        await self.fencer.fence(order)
        (report,) = [event for event in self.events if isinstance(event, FenceReported)]
        return report


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the times, with their proportions."""
    for name, seconds in (("BOOTS_WITHIN_S", 1.0), ("DRILL_LOOK_S", 0.3), ("DRILL_POLL_S", 0.05)):
        monkeypatch.setattr(f"ha_controller.adapters.fencer.drill.{name}", seconds)
    for name, seconds in (("OFF_SPACING_S", 0.2), ("POLL_S", 0.05)):
        monkeypatch.setattr(f"ha_controller.adapters.fencer.switch.{name}", seconds)


@pytest.fixture
def bench() -> Bench:
    return Bench(Machine())


async def test_a_drill_sees_the_host_fall_silent_and_switches_it_on_again(bench):
    switched, detail = await bench.drill()
    assert switched
    assert "the host fell silent; switched on again" in detail
    assert bench.machine.on


async def test_a_device_that_reads_off_while_the_host_answers_is_another_machines(bench):
    bench.answers = lambda: True
    switched, detail = await bench.drill()
    assert not switched
    assert "ANOTHER machine" in detail


async def test_a_host_that_does_not_answer_is_not_switched(bench):
    bench.answers = lambda: False
    switched, detail = await bench.drill()
    assert not switched
    assert bench.machine.offs == 0
    assert "not done" in detail


async def test_a_host_that_nobody_asked_has_not_fallen_silent(bench):
    """Our own probes stood still meanwhile."""
    bench.asked = False
    assert (await bench.drill())[0] is False


async def test_a_host_with_vms_is_not_switched_whatever_the_inventory_said(bench):
    bench.vms = "1 VMs are there"
    switched, detail = await bench.drill()
    assert (switched, detail) == (False, "not done: 1 VMs are there")
    assert bench.machine.offs == 0


class SelfReset(Machine):
    """A device that has its host reset itself; the host boots at once, and answers before the device reads off."""

    capabilities = Machine.capabilities | Capability.LASTING | Capability.SELF_RESET
    boots = 1

    async def boot_id(self) -> str | None:
        return f"boot-{self.boots}"


@pytest.mark.parametrize(("silent_s", "boots", "passes"), [(0.4, True, True), (0.0, True, False), (0.4, False, False)])
async def test_a_host_that_resets_itself_must_have_fallen_silent_and_booted(silent_s, boots, passes):
    bench = Bench(SelfReset())
    now = asyncio.get_running_loop().time
    bench.answers = lambda: True
    power_off = bench.machine.power_off

    async def reset() -> None:
        await power_off()
        ends_at = now() + silent_s
        bench.machine.boots += boots
        bench.answers = lambda: now() >= ends_at

    bench.machine.power_off = reset  # type: ignore[method-assign]
    switched, detail = await bench.drill()
    assert switched is passes
    assert detail.endswith("; lifted")  # whatever it showed, the order does not stay in force
    assert bench.machine.on


async def test_an_order_that_lasts_is_lifted_also_when_the_drill_is_cut_off():
    """The controller is being stopped in the middle of it."""
    bench = Bench(SelfReset())
    ordered = anyio.Event()
    power_off = bench.machine.power_off

    async def hang_after_the_order() -> None:
        await power_off()
        ordered.set()
        await anyio.sleep_forever()

    bench.machine.power_off = hang_after_the_order  # type: ignore[method-assign]
    not_after = asyncio.get_running_loop().time() + 3
    async with anyio.create_task_group() as group:
        group.start_soon(bench.fencer.drill, Drill(host=3, request=1, devices=("bmc",), not_after=not_after))
        await ordered.wait()
        assert not bench.machine.on
        group.cancel_scope.cancel()
    assert bench.machine.on


async def test_a_host_whose_boot_nobody_knows_was_not_seen_to_be_reset(bench):
    """The reading failed: that is no proof that it booted."""

    class Silent(SelfReset):
        async def boot_id(self) -> str | None:
            raise FenceError("the datastore does not answer")

    bench = Bench(Silent())
    switched, detail = await bench.drill()
    assert not switched
    assert "it is not known which boot" in detail


async def test_a_drill_without_its_device_is_reported(bench):
    bench.fencer.equip(3, {})
    await bench.fencer.drill(Drill(host=3, request=1, devices=("bmc",), not_after=1e18))
    (report,) = [event for event in bench.events if isinstance(event, DrillReported)]
    assert report.results[0][2] is False


async def test_a_host_that_stays_off_is_told(bench):
    bench.machine.stays_off = True
    switched, detail = await bench.drill()
    assert switched
    assert "does NOT read on again" in detail


async def test_a_device_that_names_another_machine_right_before_the_shot_is_not_used(bench):
    bench.machine.named = OTHERS
    report = await bench.fence()
    assert bench.machine.offs == 0
    assert report.result is FenceResult.REFUSED
    assert report.mismatched == ("bmc",)
    assert "it belongs to UUID bb, the host is UUID aa" in report.detail


@pytest.mark.parametrize("trouble", ["hangs", "does not know"])
async def test_a_device_that_cannot_tell_now_is_used_on_what_is_on_record(bench, trouble):
    bench.machine.hangs, bench.machine.named = trouble == "hangs", None
    assert (await bench.fence()).result is FenceResult.OFF_READ


async def test_a_check_tells_the_identity(bench):
    await bench.fencer.check_now(3)
    (checked,) = [event for event in bench.events if isinstance(event, DeviceChecked)]
    assert checked.identity == OURS
