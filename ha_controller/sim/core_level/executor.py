"""Carries out what the core orders, as fencer and recoverer do: looks first, refuses what is late or of an old term.

An order to a device or to oned that has left is done, whatever becomes of the process that waits for its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from ha_controller.core.effects import (
    Answer,
    AskDomains,
    AskNames,
    AskReady,
    DestroyDomain,
    Drill,
    Effect,
    Explain,
    Fence,
    LiftOrders,
    LockVm,
    MarkMaintenance,
    MoveVm,
    Order,
    OrderHost,
    PowerOn,
    ReadHost,
    ReadPower,
    RecoverVm,
    RenewOrders,
    RestartMonitoring,
    ResumeVm,
    Tell,
    WatchClosely,
    WriteAttributes,
)
from ha_controller.core.events import (
    DomainDestroyed,
    DomainsRead,
    FenceAccepted,
    FenceReported,
    FenceResult,
    HostOrderReported,
    MonitoringRestarted,
    OnedReadFailed,
    OrderResult,
    OrdersLifted,
    OrdersRenewed,
    PoweredOn,
    PowerRead,
    Readiness,
    ReadyRead,
    VmOrderReported,
)
from ha_controller.core.model import PowerState
from ha_controller.sim import oned_model as one
from ha_controller.sim.core_level.devices import SAMPLE_PERIOD_S

if TYPE_CHECKING:
    from ha_controller.sim.core_level.process import Process
    from ha_controller.sim.core_level.world import World

FENCE_TIMEOUT_S, ANSWER_TIMEOUT_S, POLL_S, SPACING_S = 20.0, 15.0, 1.0, 2.0
VmOrder = MoveVm | ResumeVm | RecoverVm | LockVm
_Order = Fence | PowerOn | RenewOrders | LiftOrders | DestroyDomain | OrderHost | RestartMonitoring | VmOrder


class _Shot:
    """One level of devices that is being used."""

    def __init__(self, order: Fence) -> None:
        self.order = order
        self.waiting = {*order.devices}
        self.acknowledged: set[str] = set()
        self.off_at: dict[str, float] = {}
        self.refused: set[str] = set()
        self.mismatched: set[str] = set()
        self.first_off: dict[str, float] = {}


class Executor:
    """All executors of one process."""

    def __init__(self, world: World, process: Process) -> None:
        """Nothing is under way."""
        self.world, self.process = world, process
        self.fencing: set[int] = set()  #: hosts whose devices are in use

    def carry_out(self, effect: Effect) -> None:
        """Begin with an effect; it reports later."""
        process = self.process
        match effect:
            case WatchClosely(host=host, on=on):
                (process.probing.watched.add if on else process.probing.watched.discard)(host)
            case ReadHost():
                self._read_host(effect)
            case ReadPower():
                asked_at = process.clock()
                dead = not all(self.world.devices.answers(effect.host, name) for name in effect.devices)
                process.after(4.0 if dead else 0.2, lambda: self._read_power(effect, asked_at))
            case AskDomains(host=host):
                process.after(0.3, lambda: self._ask_domains(host))
            case AskReady(vm=vm, incident=incident):
                process.after(0.3, lambda: self._ask_ready(vm, incident))
            case Tell():
                self.world.judge.told_people(effect)
            case Answer():
                self.world.people.answered(effect)
            case WriteAttributes() | Explain():
                pass  # for people to read: nothing depends on it
            case Drill() | MarkMaintenance() | AskNames():
                raise NotImplementedError(f"nothing in this world leads to {type(effect).__name__}")
            case _:
                self._order(effect)

    def _order(self, order: _Order) -> None:
        """What only a leader may have done."""
        process, oned_s = self.process, self._oned_s()
        match order:
            case Fence():
                process.after(0.02, lambda: self._fence(order))
            case PowerOn():
                process.after(0.3, lambda: self._power_on(order))
            case RenewOrders() | LiftOrders():
                process.after(0.3, lambda: self._lasting(order))
            case DestroyDomain():
                process.after(0.3, lambda: self._destroy(order))
            case OrderHost():
                process.after(oned_s, lambda: self._order_host(order))
            case MoveVm() | ResumeVm() | RecoverVm() | LockVm():
                process.after(oned_s, lambda: self._order_vm(order))
            case RestartMonitoring():
                process.after(oned_s, lambda: self._restart_monitoring(order))
            case _:
                assert_never(order)

    def _may_act(self, order: Order, not_after: float) -> bool:
        """The lead is proven right before, and what is late is dropped."""
        return self.world.arbiter.holds(self.process, order.term) and self.process.clock() <= not_after

    # --- devices ---

    def _read_power(self, order: ReadPower, asked_at: float) -> None:
        states = tuple((name, self.world.devices.read(order.host, name)) for name in order.devices)
        self.process.post(PowerRead(host=order.host, asked_at=asked_at, states=states))

    def _fence(self, order: Fence) -> None:
        if not self._may_act(order, order.not_after):
            result = FenceResult.NOT_SENT if order.send else FenceResult.UNVERIFIED
            self._fence_reported(order, result, None, "too late, or we no longer lead")
            return
        self.fencing.add(order.host)
        shot = _Shot(order)
        if order.send:
            self.world.judge.fence_begins(self.process, order)
        self.process.after(FENCE_TIMEOUT_S, lambda: self._shot_ends(shot))
        for name in order.devices:
            self._use(shot, name)
        if order.send:
            self._interrupted()

    def _interrupted(self) -> None:
        """What was ordered is on its way, and nobody may be left who waits for it."""
        trouble = self.world.trouble
        if trouble.strikes("crash-after-effect"):
            self.process.kill(trouble.down_s(), "a device or oned has just been ordered")
        elif trouble.strikes("pause-after-effect"):
            self.process.pause(trouble.dice.uniform(1, 40))

    def _use(self, shot: _Shot, name: str) -> None:
        world, order = self.world, shot.order
        machine = world.devices.machine_of(order.host, name)
        if not world.devices.answers(order.host, name):
            return
        if order.identity is not None and name == "bmc" and machine != order.host:
            shot.refused.add(name)
            shot.mismatched.add(name)
            self._device_done(shot, name)
            return
        if world.devices.of(order.host, name).busy_until > world.now and order.send:
            shot.refused.add(name)
            self.process.after(SPACING_S, lambda: self._device_done(shot, name))
            return
        if order.send:
            world.judge.sent(order.host, machine)
            world.devices.order_off(order.host, name)
            world.trouble.at_the_shot(machine)
        if not (order.send and world.trouble.strikes("answer-lost")):
            self.process.after(0.3, lambda: self._acknowledged(shot, name))
        if not world.layout.device(order.host, name).proves_off:
            self.process.after(0.3, lambda: self._carried_out(shot, name))
            return
        ordered_at = world.now
        self.process.after(POLL_S, lambda: self._poll(shot, name, ordered_at))

    def _acknowledged(self, shot: _Shot, name: str) -> None:
        shot.acknowledged.add(name)
        order = shot.order
        if order.send and shot.acknowledged == {*order.devices}:
            self.process.post(FenceAccepted(host=order.host, incident=order.incident, attempt=order.attempt))

    def _carried_out(self, shot: _Shot, name: str) -> None:
        """A device that cannot be read has said that it did it."""
        shot.off_at[name] = self.process.clock()
        self._device_done(shot, name)

    def _poll(self, shot: _Shot, name: str, ordered_at: float) -> None:
        now = self.world.now
        if name not in shot.waiting:
            return
        if self.world.devices.read(shot.order.host, name) is not PowerState.OFF:
            shot.first_off.pop(name, None)
        elif name not in shot.first_off:
            shot.first_off[name] = now
        elif now >= max(shot.first_off[name] + SPACING_S, ordered_at + SAMPLE_PERIOD_S):
            shot.off_at[name] = self.process.clock()
            self._device_done(shot, name)
            return
        self.process.after(POLL_S, lambda: self._poll(shot, name, ordered_at))

    def _device_done(self, shot: _Shot, name: str) -> None:
        shot.waiting.discard(name)
        if not shot.waiting:
            self._shot_ends(shot)

    def _shot_ends(self, shot: _Shot) -> None:
        order = shot.order
        if order.host not in self.fencing or shot.first_off.get("ended"):
            return
        shot.first_off["ended"] = 1.0
        shot.waiting.clear()
        self.fencing.discard(order.host)
        readable = [name for name in order.devices if self.world.layout.device(order.host, name).proves_off]
        together = all(self.world.devices.read(order.host, name) is PowerState.OFF for name in readable)
        if len(shot.off_at) == len(order.devices) and together:
            self.world.trouble.after_off(order.host)
            self._fence_reported(order, FenceResult.OFF_READ, max(shot.off_at.values()), "read off twice")
        elif shot.refused == {*order.devices}:
            self._fence_reported(order, FenceResult.REFUSED, None, "refused", tuple(sorted(shot.mismatched)))
        else:
            detail = "; ".join(f"{name}: not read off" for name in order.devices if name not in shot.off_at)
            self._fence_reported(order, FenceResult.UNVERIFIED, None, detail, tuple(sorted(shot.mismatched)))

    def _fence_reported(
        self, order: Fence, result: FenceResult, off_at: float | None, detail: str, mismatched: tuple[str, ...] = ()
    ) -> None:
        self.process.post(
            FenceReported(
                host=order.host,
                incident=order.incident,
                attempt=order.attempt,
                result=result,
                off_read_at=off_at,
                detail=detail,
                mismatched=mismatched,
            )
        )

    def _power_on(self, order: PowerOn) -> None:
        failed: tuple[tuple[str, str], ...] = ()
        if not self._may_act(order, order.not_after):
            failed = tuple((name, "too late, or we no longer lead") for name in order.devices)
        else:
            self.world.judge.powers_on(self.process, order)
            for name in order.devices:
                self.world.devices.order_on(order.host, name)
        self.process.post(PoweredOn(host=order.host, incident=order.incident, failed=failed))

    def _lasting(self, order: RenewOrders | LiftOrders) -> None:
        keys = {"host": order.host, "incident": order.incident}
        may, devices = self._may_act(order, order.not_after), self.world.devices
        dead = [name for name in order.devices if not devices.answers(order.host, name)]
        failed = tuple((name, "no answer") for name in dead) if may else (("all", "too late, or we no longer lead"),)
        if isinstance(order, RenewOrders):
            self.process.post(OrdersRenewed(**keys, failed=failed))
            return
        if not failed:
            devices.cut_storage(order.host, False)
        self.process.post(OrdersLifted(**keys, number=order.number, failed=failed))

    def _destroy(self, order: DestroyDomain) -> None:
        vm, failure = self.world.oned.vms[order.vm], ""
        if not self._may_act(order, order.not_after):
            failure = "too late, or we no longer lead"
        elif (vm.state, vm.lcm_state, vm.host) != (one.ACTIVE, one.RUNNING, order.runs_on):
            failure = f"it is {vm.label} on host {vm.host}"
        elif not self.world.truth.answers(order.host):
            failure = "no answer"
        else:
            self.world.judge.destroys(order)
            self.world.truth.strays.get(order.host, set()).discard(order.vm)
            self.world.truth.stop_vm(order.host, order.vm)
        keys = {"host": order.host, "incident": order.incident, "vm": order.vm}
        self.process.post(DomainDestroyed(**keys, attempt=order.attempt, failure=failure))

    # --- oned ---

    def _oned_s(self) -> float:
        return self.world.trouble.dice.uniform(1, 6) if self.world.trouble.oned_slow else 0.05

    def _read_host(self, order: ReadHost) -> None:
        asked_at = self.process.clock()
        host = order.host

        def answer() -> None:
            if self.world.trouble.oned_down:
                self.process.post(OnedReadFailed(host=host, detail="no answer"))
            else:
                self.process.post(self.world.inventory.host_read(host, order.vms, asked_at))

        self.process.after(self._oned_s(), answer)

    def _ask_domains(self, host: int) -> None:
        asked_at, truth = self.process.clock(), self.world.truth
        if not truth.answers(host):
            self.process.post(DomainsRead(host=host, asked_at=asked_at, failure="no answer"))
            return
        running, others = tuple(sorted(truth.machines[host].vms)), tuple(sorted(truth.strays.get(host, ())))
        self.process.post(DomainsRead(host=host, asked_at=asked_at, running=running, others=others))

    def _ask_ready(self, vm: int, incident: int) -> None:
        """Guests boot at once here; how they boot is no concern of the core's safety."""
        asked_at = self.process.clock()
        self.process.post(ReadyRead(vm=vm, incident=incident, asked_at=asked_at, readiness=Readiness.READY))

    def _order_host(self, order: OrderHost) -> None:
        if not self._may_act(order, order.not_after):
            self._host_reported(order, OrderResult.NOT_NOW, "too late, or we no longer lead")
        elif self.world.trouble.oned_down:
            self._host_reported(order, OrderResult.UNKNOWN, "no answer")
        else:
            if not self.world.trouble.strikes("oned-forgets"):
                self.world.inventory.host_order(order)
            self._host_reported(order, OrderResult.ACCEPTED, "")

    def _host_reported(self, order: OrderHost, result: OrderResult, detail: str) -> None:
        if result is OrderResult.ACCEPTED and self.world.trouble.strikes("answer-lost"):
            result, detail = OrderResult.UNKNOWN, "the answer was lost"
        keys = {"host": order.host, "incident": order.incident}
        self.process.post(HostOrderReported(**keys, step=order.step, result=result, detail=detail))

    def _restart_monitoring(self, order: RestartMonitoring) -> None:
        failure = "no answer" if self.world.trouble.oned_down else ""
        if not self._may_act(order, order.not_after):
            failure = "too late, or we no longer lead"
        elif not failure:
            failure = self.world.inventory.restart_monitoring(order.host)
        self.process.post(MonitoringRestarted(host=order.host, failure=failure))

    def _order_vm(self, order: VmOrder) -> None:
        world = self.world
        if world.trouble.oned_down:
            self._vm_reported(order, OrderResult.UNKNOWN, "no answer")
            return
        if changed := world.inventory.not_as_decided(order):
            self._vm_reported(order, OrderResult.SKIPPED, changed)
        elif not self._may_act(order, order.not_after):
            self._vm_reported(order, OrderResult.NOT_NOW, "too late, or we no longer lead")
        elif world.trouble.strikes("order-late"):
            world.inventory.vm_order_late(order, world.trouble.dice.uniform(1, 15))
            self.process.after(ANSWER_TIMEOUT_S, lambda: self._vm_reported(order, OrderResult.UNKNOWN, "no answer"))
        elif world.trouble.strikes("oned-forgets"):
            self._vm_reported(order, OrderResult.ACCEPTED, "")
        elif refused := world.inventory.vm_order(order):
            self._vm_reported(order, OrderResult.REFUSED, refused)
        elif world.trouble.strikes("answer-lost"):
            self._vm_reported(order, OrderResult.UNKNOWN, "the answer was lost")
        else:
            self._interrupted()
            self.process.after(0.0, lambda: self._vm_reported(order, OrderResult.ACCEPTED, ""))

    def _vm_reported(self, order: VmOrder, result: OrderResult, detail: str) -> None:
        keys = {"vm": order.vm, "incident": order.incident, "attempt": order.attempt}
        report = VmOrderReported(**keys, result=result, detail=detail)
        self.world.judge.vm_reported(self.process, report)
        self.process.post(report)
