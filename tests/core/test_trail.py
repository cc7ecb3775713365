"""What leaves a line in the trail: every order before it leaves, every result, every word of a person."""

from __future__ import annotations

from typing import get_args

import anyio
import pytest

from ha_controller.core.controller import Controller, Decision
from ha_controller.core.effects import (
    Answer,
    AskDomains,
    DestroyDomain,
    Drill,
    Effect,
    Explain,
    Fence,
    HostStep,
    LiftOrders,
    LockVm,
    MarkMaintenance,
    MoveVm,
    Order,
    OrderHost,
    PowerOn,
    ReadHost,
    RecoverVm,
    RenewOrders,
    RestartMonitoring,
    ResumeVm,
    Severity,
    Tell,
    WriteAttributes,
)
from ha_controller.core.events import (
    DomainDestroyed,
    DrillReported,
    Event,
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    FenceResult,
    HostOrderReported,
    MonitoringRestarted,
    OperatorCommanded,
    OrderResult,
    OrdersLifted,
    OrdersRenewed,
    PoweredOn,
    TimePassed,
    Verb,
    VmOrderReported,
)
from ha_controller.core.incident import TrailEntry
from ha_controller.core.settings import Settings
from ha_controller.core.vm_table import Recover
from ha_controller.engine import Commit, Engine, _announced, _reported

KEYS = {"host": 3, "incident": 9}
WHEN = {"not_after": 20.0, "term": 4}
DEVICES = {"devices": ("bmc", "pdu")}
ORDERS: dict[Order, str] = {
    Fence(**KEYS, **WHEN, **DEVICES, attempt=2, send=True): "power off with bmc, pdu, attempt 2",
    Fence(**KEYS, **WHEN, **DEVICES, attempt=2, send=False): "read back with bmc, pdu, attempt 2",
    Drill(host=3, request=1, **WHEN, **DEVICES): "drill: power off and on with bmc, pdu",
    MarkMaintenance(host=3, request=1, on=True, until=None, reason="ann", term=4): "maintenance on (ann)",
    MarkMaintenance(host=3, request=1, on=False, until=None, reason="ann", term=4): "maintenance off (ann)",
    RestartMonitoring(host=3, **WHEN): "tell OpenNebula: monitor host 3 anew",
    RenewOrders(**KEYS, **WHEN, **DEVICES): "renew the order of bmc, pdu",
    LiftOrders(**KEYS, **WHEN, **DEVICES, number=1): "lift the order of bmc, pdu",
    PowerOn(**KEYS, **WHEN, **DEVICES): "power on with bmc, pdu",
    DestroyDomain(**KEYS, **WHEN, vm=5, runs_on=4, attempt=1): (
        "destroy the leftover domain one-5, attempt 1; it runs on 4"
    ),
    OrderHost(**KEYS, **WHEN, step=HostStep.DISABLE, state_before=2): "tell OpenNebula: disable host 3",
    MoveVm(vm=5, incident=9, attempt=1, source=3, destination=4, **WHEN): "migrate VM 5 to host 4",
    ResumeVm(vm=5, attempt=1, **KEYS, **WHEN): "resume VM 5 on host 3",
    RecoverVm(vm=5, attempt=1, **KEYS, **WHEN, lcm_state=1, operation=Recover.RETRY): (
        "recover VM 5 on host 3: retry of 1"
    ),
    LockVm(vm=5, attempt=1, level=2, **KEYS, **WHEN): "lock VM 5 again, level 2",
    WriteAttributes(**KEYS, vm=5, text="moved", at=1.0, term=4): "write on VM 5: moved",
    WriteAttributes(**KEYS, vm=None, text="fenced", at=1.0, term=4): "write on the host: fenced",
}


@pytest.mark.parametrize(("order", "text"), ORDERS.items(), ids=lambda value: type(value).__name__)
def test_an_order_is_announced_in_words_with_its_host_and_its_term(order, text):
    line = _announced(order, 7.0)
    assert line is not None
    assert (line.at, line.kind, line.text, line.host) == (7.0, "intent", text, 3)
    assert line.incident == getattr(order, "incident", None)
    assert line.data == {"term": 4}


def test_no_kind_of_order_is_missing():
    """A new order that nobody announces fails here."""
    assert {type(order) for order in ORDERS} == {kind for kind in get_args(Effect) if issubclass(kind, Order)}


def test_questions_leave_no_line():
    assert _announced(ReadHost(host=3, vms=()), 7.0) is None
    assert _announced(AskDomains(host=3), 7.0) is None


def test_what_people_are_told_and_why_is_kept():
    told = _announced(Tell(severity=Severity.INFO, text="It is off", next_step="Nothing to do.", **KEYS), 7.0)
    assert (told.kind, told.text) == ("told", "It is off. Nothing to do.")
    explained = _announced(Explain(**KEYS, what="power off", because="dead", guards=("lead: held",)), 7.0)
    assert (explained.kind, explained.text) == ("decision", "power off (dead)")
    assert explained.data["guards"] == ("lead: held",)
    assert _announced(Explain(**KEYS, what="power off", because=""), 7.0).text == "power off"


FAILED = {"failed": (("bmc", "no answer"),)}
ACCEPTED, LOST = OrderResult.ACCEPTED, OrderResult.UNKNOWN
REPORTS: dict[Event, tuple[str, str]] = {
    FenceAccepted(**KEYS, attempt=2): ("report", "power-off attempt 2 acknowledged (proves nothing)"),
    FenceReported(**KEYS, attempt=2, result=FenceResult.OFF_READ, off_read_at=1.0, detail="off twice"): (
        "report", "power-off attempt 2: off read. off twice"),
    DrillReported(host=3, request=1, results=(("bmc", "f", True, "off and on"),)): ("drill", "drill: bmc: off and on"),
    MonitoringRestarted(host=3, failure=""): ("report", "OpenNebula, monitor anew: accepted"),
    MonitoringRestarted(host=3, failure="too late"): ("report", "OpenNebula, monitor anew: too late"),
    OrdersRenewed(**KEYS): ("report", "orders renewed"),
    OrdersRenewed(**KEYS, **FAILED): ("report", "orders not renewed: bmc: no answer"),
    OrdersLifted(**KEYS, number=1): ("report", "orders lifted"),
    OrdersLifted(**KEYS, number=1, **FAILED): ("report", "orders not lifted: bmc: no answer"),
    PoweredOn(**KEYS): ("report", "powered on"),
    PoweredOn(**KEYS, **FAILED): ("report", "bmc: no answer"),
    DomainDestroyed(**KEYS, vm=5, attempt=1): ("report", "leftover domain one-5: destroyed"),
    HostOrderReported(**KEYS, step=HostStep.ENABLE, result=LOST, detail="no answer"): (
        "report", "OpenNebula, enable: unknown. no answer"),
    VmOrderReported(vm=5, incident=9, attempt=1, result=ACCEPTED, detail=""): (
        "report", "OpenNebula, VM 5: accepted. "),
    OperatorCommanded(request=1, verb=Verb.HOLD, who="ann", reason="new disks", **KEYS): (
        "operator", "ann orders hold: new disks"),
}  # fmt: skip


@pytest.mark.parametrize(("event", "line"), REPORTS.items(), ids=lambda value: type(value).__name__)
def test_a_result_is_on_record_in_words(event, line):
    entry = _reported(event, 7.0)
    assert (entry.kind, entry.text) == line
    assert getattr(event, "incident", None) == entry.incident
    assert entry.host == getattr(event, "host", None)


def test_evidence_and_time_leave_no_line():
    assert _reported(EvidenceTaken(channel="icmp", readings=()), 7.0) is None
    assert _reported(TimePassed(), 7.0) is None


# --- the loop ---------------------------------------------------------------------------------------------------------


class Core(Controller):
    """Wants what the test wants, once."""

    def __init__(self, *effects: Effect, term: int | None = 4) -> None:
        super().__init__(Settings(), 0.0)
        self.given: list[Event] = []
        self._wanted = Decision(effects=effects, term=term)

    def resume(self, now: float) -> Decision:
        return Decision()

    def round(self, events, now: float) -> Decision:
        self.given.extend(events)
        wanted, self._wanted = self._wanted, Decision()
        return wanted

    def next_deadline(self, now: float) -> float | None:
        return now + 0.01


class Journal:
    """Notes what comes, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.commits: list[tuple[list[TrailEntry], int | None]] = []
        self._fails = fails

    async def commit(self, commit: Commit) -> None:
        if self._fails:
            raise OSError("no space")
        self.commits.append((list(commit.entries), commit.term))


async def run(core: Core, journal: Journal, happened: list[object], seconds: float = 0.1) -> Engine:
    engine = Engine(
        core,
        journal=journal,
        dispatch=lambda effect: happened.append((effect, len(journal.commits))),
        record=lambda events, effects, now: None,
        clock=anyio.current_time,
    )
    engine.post(TimePassed())
    with anyio.move_on_after(seconds):
        await engine.run()
    return engine


ORDER = Fence(**KEYS, **WHEN, **DEVICES, attempt=1, send=True)


async def test_an_order_leaves_after_the_record_that_announces_it():
    journal, happened = Journal(), []
    await run(Core(ORDER), journal, happened)
    assert happened == [(ORDER, 1)]
    assert journal.commits[0][0][0].text == "power off with bmc, pdu, attempt 1"


async def test_the_answer_to_a_command_is_on_record_before_it_is_given():
    """What was refused is on the audit trail like what was done."""
    refusal = Answer(request=1, code=4, text="Refused: icmp answers.")
    core, journal, happened = Core(refusal, Answer(request=9, code=7, text="of nobody")), Journal(), []
    engine = Engine(
        core,
        journal=journal,
        dispatch=lambda effect: happened.append((effect, len(journal.commits))),
        record=lambda events, effects, now: None,
        clock=anyio.current_time,
    )
    engine.post(OperatorCommanded(request=1, verb=Verb.CONFIRM_OFF, who="ann", origin="the page", **KEYS))
    with anyio.move_on_after(0.1):
        await engine.run()
    ((asked, answered, strange),) = [entries for entries, _ in journal.commits]
    assert (asked.kind, asked.data["origin"], asked.data["request"]) == ("operator", "the page", 1)
    assert (answered.kind, answered.text) == ("answer", "ann's confirm-off: refused. Refused: icmp answers.")
    assert answered.data == {"request": 1, "code": 4, "result": "Refused: icmp answers."}
    assert (answered.host, answered.incident) == (asked.host, asked.incident)
    assert strange.text == "order 9: code 7. of nobody"
    assert happened[0] == (refusal, 1)


async def test_nothing_leaves_when_the_record_cannot_be_written():
    happened: list[object] = []
    with pytest.raises(OSError, match="no space"):
        await run(Core(ORDER), Journal(fails=True), happened)
    assert happened == []


async def test_a_term_is_put_on_record_once_and_before_anything_is_done_in_it():
    journal, happened = Journal(), []
    await run(Core(term=4), journal, happened)
    assert [term for _, term in journal.commits] == [4]


async def test_an_order_that_is_taken_back_does_not_leave_and_is_reported():
    class Careful(Core):
        def taken_back(self, effect, inbox):
            return FenceAccepted(**KEYS, attempt=1) if effect is ORDER else None

    core, happened = Careful(ORDER), []
    await run(core, Journal(), happened)
    assert happened == []
    assert FenceAccepted(**KEYS, attempt=1) in core.given
