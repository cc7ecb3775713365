"""The shared record and our journal: which one a new leader goes on from, and nothing leaves before both have it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import anyio
import pytest
from world import SETTINGS

from ha_controller.adapters.journal import Journal
from ha_controller.app import shared_ledger
from ha_controller.app.ledger import Ledger, of_shared, shared_changes
from ha_controller.app.shared_ledger import SharedLedger
from ha_controller.core.controller import Controller
from ha_controller.core.effects import Answer, Effect, Fence, Order, Severity, Tell
from ha_controller.core.events import LeadChanged, OperatorCommanded, RecordTakenOver, Verb
from ha_controller.core.incident import CloudRecord, Incident, VmRecord
from ha_controller.core.model import HostState, HostTrust
from ha_controller.engine import Commit, Engine, NotShared
from ha_controller.lead import Shared, SharedRecord
from ha_controller.plugin import ArbiterUnreachable, NotLeading

INCIDENT = Incident(id=4, host=3, host_name="kvm-03", opened_at=1.0, state=HostState.FENCED, verdict="dead")
THEIRS = Incident(id=9, host=2, host_name="kvm-02", opened_at=1.0, state=HostState.FENCED, verdict="dead")


async def test_what_is_not_on_the_shared_record_is_not_ordered_and_nobody_hears_that_it_is_done():
    """And the loop goes on: whoever lost the lead looks and tells."""
    out: list[Effect] = []

    class Record:
        async def commit(self, commit: Commit) -> None:
            raise NotShared("etcd is full")

    controller = Controller(SETTINGS, 0.0)
    engine = Engine(
        controller, journal=Record(), dispatch=out.append, record=lambda events, effects, now: None, clock=lambda: 1.0
    )
    controller.state.out += [
        Fence(host=3, incident=1, attempt=1, devices=("bmc",), send=True, not_after=99.0),
        Tell(severity=Severity.INFO, text="a", next_step="b"),
    ]
    engine.post(LeadChanged(term=1))
    async with anyio.create_task_group() as group:
        group.start_soon(engine.run)
        for request in (1, 2):
            engine.post(OperatorCommanded(request=request, verb=Verb.PAUSE, who="ann"))
            with anyio.fail_after(5):
                while not any(isinstance(each, Answer) and each.request == request for each in out):
                    await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert not [each for each in out if isinstance(each, Order)]
    assert any(isinstance(each, Tell) and each.text == "a" for each in out)
    answers = [each for each in out if isinstance(each, Answer)]
    assert {each.code for each in answers} == {6}
    assert "may not count: etcd is full" in answers[0].text


class SharedInMemory(SharedRecord):
    """What an engine of the lead would keep; it fails, or hangs, when it is told to."""

    def __init__(self, texts: dict[str, str], *, whole: bool, term: int) -> None:
        self.texts, self.whole, self.term = texts, whole, term
        self.fails: Exception | None = None
        self.hangs = False

    async def read(self, term: int) -> Shared:
        return Shared(texts=dict(self.texts), whole=self.whole, term=self.term)

    async def write(self, term: int, changes: Mapping[str, str | None]) -> None:
        if self.hangs:
            await anyio.sleep_forever()
        if self.fails is not None:
            raise self.fails
        for key, text in changes.items():
            self.texts.pop(key, None)
            if text is not None:
                self.texts[key] = text


@dataclass
class Leads:
    """As much of a leadership as the shared ledger asks for."""

    meanwhile: str = ""
    given_up: list[str] = field(default_factory=list)

    @property
    def arbiter(self) -> Leads:
        return self

    def led_meanwhile(self) -> str:
        return self.meanwhile

    def give_up(self, term: int, why: str) -> None:
        self.given_up.append(f"{term}: {why}")


@pytest.fixture
async def ours(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A journal in which incident 4 is open, written in term 5."""
    journal = Journal.open(tmp_path / "journal.db")
    ledger = Ledger(journal)
    await ledger.commit(Commit(incidents=[INCIDENT], cloud=CloudRecord(next_incident=5), term=5))
    yield ledger
    await journal.close()


def texts_of(incident: Incident) -> dict[str, str]:
    changes = shared_changes([incident], CloudRecord(next_incident=10), [], {})
    return {key: text for key, text in changes.items() if text is not None}


@pytest.mark.parametrize(
    ("whole", "term", "meanwhile", "taken", "inherited"),
    [
        (True, 7, "one led", [9], ""),  # the record has all
        (False, 0, "", None, ""),  # there is none, and nobody led but us: our journal has all
        (False, 4, "one led", None, "one led"),  # nobody has all: ours is the newer one
        (False, 6, "one led", [9], "one led"),  # nobody has all: that one is the newer one
    ],
)
async def test_which_record_a_new_leader_goes_on_from(ours, whole, term, meanwhile, taken, inherited):
    posted: list[RecordTakenOver] = []
    record = SharedInMemory(texts_of(THEIRS), whole=whole, term=term)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(meanwhile), post=posted.append)
    assert await shared.take_over(8) == inherited
    assert ([[each.id for each in event.incidents] for event in posted] or [None]) == [taken]


async def test_a_record_that_was_not_whole_is_written_as_a_whole_with_the_first_decision(ours):
    """A journal from before there was a shared record goes into it, and what does not belong there goes out."""
    record = SharedInMemory(texts_of(THEIRS), whole=False, term=0)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=lambda event: None)
    await shared.take_over(8)
    await shared.commit(Commit(cloud=CloudRecord(next_incident=6), term=8))
    state = of_shared(record.texts)
    assert (state.incidents, state.cloud.next_incident) == ((INCIDENT,), 6)
    record.texts["cloud"] = "a text that nobody changed is not written again"
    await shared.commit(Commit(incidents=[replace(INCIDENT, hold="x")], term=8))
    assert of_shared({**record.texts, "cloud": "{}"}).incidents == (replace(INCIDENT, hold="x"),)
    assert record.texts["cloud"].startswith("a text")
    await shared.commit(Commit(incidents=[replace(INCIDENT, closed_at=2.0)], term=8))
    assert list(record.texts) == ["cloud"]
    assert [each.id for each in (await ours.load())[0]] == [4], "our journal keeps what is over"


async def test_vms_whose_incident_never_came_are_removed_and_do_no_harm_to_one_of_the_same_number(ours):
    vm = VmRecord(id=7, name="vm-7", was_state=3, was_lcm_state=3)
    texts = texts_of(replace(THEIRS, vms=(vm,) * 40))
    del texts["incident/9"]
    record = SharedInMemory(texts, whole=True, term=8)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=lambda event: None)
    await shared.take_over(8)
    await shared.commit(Commit(incidents=[replace(THEIRS, vms=(vm,))], term=8))
    state = of_shared(record.texts)
    assert (state.incidents, state.unread) == ((replace(THEIRS, vms=(vm,)),), {})


def removed(number: int) -> tuple[dict[str, str], tuple[str, ...]]:
    """Somebody removed an incident, and not its VMs."""
    vm = VmRecord(id=7, name="vm-7", was_state=3, was_lcm_state=3)
    texts = texts_of(THEIRS) | texts_of(replace(INCIDENT, id=number, vms=(vm,) * 40))
    del texts[f"incident/{number}"]
    return texts, tuple(key for key in texts if key.startswith(f"incident/{number}/"))


@pytest.mark.parametrize("whole", [True, False])
async def test_what_is_left_of_an_incident_is_told_and_stays_until_a_person_has_released_ours(ours, whole):
    texts, keys = removed(4)
    record, posted = SharedInMemory(texts, whole=whole, term=6), list[RecordTakenOver]()
    shared = SharedLedger(ours, ours, record=record, leadership=Leads("one led"), post=posted.append)
    inherited = await shared.take_over(8)
    damaged = "one led (its record is damaged: incident 4 was removed, its VMs were not)"
    assert inherited == ("" if whole else damaged), "what else is open need not wait"
    assert [(event.unread, [each.id for each in event.incidents]) for event in posted] == [(((4, None),), [9])]
    assert [event.unread_vms for event in posted] == [((4, (7,)),)]
    await shared.commit(Commit(incidents=[replace(INCIDENT, hold="decided before, by who stood by")]))
    held = replace(INCIDENT, foreign="one led")
    await shared.commit(Commit(incidents=[held, THEIRS], cloud=CloudRecord(next_incident=12)))
    await shared.commit(Commit(term=8))
    state = of_shared(record.texts)
    assert (state.incidents, state.unread, state.cloud.next_incident) == ((THEIRS,), {4: keys}, 12)
    await shared.commit(Commit(incidents=[replace(held, foreign="")], term=8))
    state = of_shared(record.texts)
    assert (state.incidents, state.unread) == ((INCIDENT, THEIRS), {}), "it is gone on with"


@pytest.mark.parametrize("whole", [True, False])
async def test_what_is_left_of_an_incident_that_ends_before_anybody_released_it_stays(ours, whole):
    texts, keys = removed(4)
    record = SharedInMemory(texts, whole=whole, term=6)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads("one led"), post=lambda event: None)
    await shared.take_over(8)
    await shared.commit(Commit(incidents=[replace(INCIDENT, foreign="one led"), THEIRS], term=8))
    await shared.commit(Commit(incidents=[replace(INCIDENT, foreign="one led", closed_at=2.0)], term=8))
    assert of_shared(record.texts).unread == {4: keys}


async def test_what_is_left_of_an_incident_is_removed_when_nobody_else_led(ours):
    """Its writer was this controller, which died in the middle, and whose own journal says what is open."""
    record, posted = SharedInMemory(removed(6)[0], whole=True, term=6), list[RecordTakenOver]()
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=posted.append)
    assert await shared.take_over(8) == ""
    await shared.commit(Commit(incidents=[INCIDENT], term=8))
    state = of_shared(record.texts)
    assert (state.incidents, state.unread) == ((INCIDENT, THEIRS), {})


async def test_an_incident_that_the_engine_found_damaged_is_no_incident_that_is_over(ours):
    class Damaged(SharedInMemory):
        async def read(self, term: int) -> Shared:
            return replace(await super().read(term), damage="incident 4 on host 3 was changed", unread={4: 3})

    record, posted = Damaged(texts_of(THEIRS), whole=False, term=6), list[RecordTakenOver]()
    shared = SharedLedger(ours, ours, record=record, leadership=Leads("one led"), post=posted.append)
    assert "incident 4 on host 3 was changed" in await shared.take_over(8)
    assert [event.unread for event in posted] == [((4, 3),)]


@pytest.mark.parametrize("fault", ["refused", "over", "hangs", "another term"])
async def test_what_cannot_be_shared_ends_the_lead_in_time(ours, fault, monkeypatch):
    monkeypatch.setattr(shared_ledger, "WRITE_TIMEOUT_S", 0.1)
    record, leads = SharedInMemory({}, whole=True, term=8), Leads()
    shared = SharedLedger(ours, ours, record=record, leadership=leads, post=lambda event: None)
    await shared.take_over(9 if fault == "another term" else 8)
    record.fails = {"refused": ArbiterUnreachable("etcd refuses: x"), "over": NotLeading("y")}.get(fault)
    record.hangs = fault == "hangs"
    with anyio.fail_after(2), pytest.raises(NotShared):
        await shared.commit(Commit(incidents=[INCIDENT], term=8))
    words = {"refused": "etcd refuses: x", "over": "y", "hangs": "did not answer within 0.1 s", "another term": "over"}
    assert words[fault] in leads.given_up[0]
    assert (await ours.load())[0] == [INCIDENT], "it is in our own journal, and nothing came of it"
    record.fails, record.hangs = None, False
    with pytest.raises(NotShared):
        await shared.commit(Commit(incidents=[replace(INCIDENT, hold="later")], term=8))
    assert record.texts == {}, "what comes after a gap does not belong there"


async def test_who_led_is_told_with_what_somebody_did_to_the_record(ours):
    """And our own journal, which is not older, is gone on from."""

    class Damaged(SharedInMemory):
        async def read(self, term: int) -> Shared:
            return replace(await super().read(term), damage="incident 9 on host 2 was changed")

    record, posted = Damaged({}, whole=False, term=5), []
    shared = SharedLedger(ours, ours, record=record, leadership=Leads("one led"), post=posted.append)
    assert await shared.take_over(8) == "one led (its record is damaged: incident 9 on host 2 was changed)"
    assert posted == []
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=posted.append)
    assert await shared.take_over(9) == "", "nobody led but us"


async def test_what_is_known_of_devices_stays_our_own_where_the_engine_does_not_keep_it(ours):
    class Small(SharedInMemory):
        keeps_trusts = False

    record = Small({}, whole=False, term=0)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=lambda event: None)
    await shared.take_over(8)
    await shared.commit(Commit(incidents=[INCIDENT], trusts=[HostTrust(host=3)], term=8))
    assert set(record.texts) == {"cloud", "incident/4"}
    assert [trust.host for trust in (await ours.load())[2]] == [3]


async def test_figures_in_what_an_incident_waits_for_cost_no_write(ours):
    """They change every second, or in all incidents with each host that falls silent."""
    record = SharedInMemory({}, whole=True, term=8)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=lambda event: None)
    await shared.take_over(8)

    async def holds(hold: str, **others: Any) -> Incident:
        incident = replace(INCIDENT, hold=hold, **others)
        await shared.commit(Commit(incidents=[incident], term=8))
        return incident

    first = await holds("dump: it is writing a crash dump, for 7 of at most 600 s")
    await holds("dump: it is writing a crash dump, for 8 of at most 600 s")
    assert of_shared(record.texts).incidents == (first,)
    kind = await holds("storm: 3 of 8 hosts silent or fenced")
    assert of_shared(record.texts).incidents == (kind,)
    decided = await holds("storm: 4 of 8 hosts silent or fenced", approved_by="ann")
    assert of_shared(record.texts).incidents == (decided,)
    assert (await ours.load())[0] == [decided], "our own journal has every word"


async def test_a_standby_writes_its_own_journal_only(ours):
    record = SharedInMemory({}, whole=True, term=8)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=lambda event: None)
    await shared.commit(Commit(incidents=[replace(INCIDENT, hold="z")]))
    assert record.texts == {}


async def test_what_was_seen_while_the_lead_was_in_doubt_is_on_the_record_with_the_next_decision(ours):
    """A proof that was voided then must not be taken over as good by the next leader."""
    record = SharedInMemory(texts_of(THEIRS), whole=True, term=8)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=lambda event: None)
    await shared.take_over(8)
    await shared.commit(Commit(incidents=[replace(THEIRS, hold="older")]))
    voided, trust = replace(THEIRS, stopped="it answers"), HostTrust(host=2)
    await shared.commit(Commit(incidents=[voided], cloud=CloudRecord(next_incident=12), trusts=[trust]))
    assert of_shared(record.texts).incidents == (THEIRS,), "nothing is written without the lead"
    await shared.commit(Commit(term=8))
    state = of_shared(record.texts)
    assert (state.incidents, state.cloud.next_incident, state.trusts) == ((voided,), 12, (trust,))
    del record.texts["incident/9"]
    await shared.commit(Commit(term=8))
    assert "incident/9" not in record.texts, "once"


async def test_a_first_write_that_breaks_off_anywhere_leaves_whole_incidents(ours):
    """What goes out of an incident goes in its transaction; else nobody could read it, nor lead."""
    vm = VmRecord(id=7, name="vm-7", was_state=3, was_lcm_state=3)
    theirs = texts_of(replace(INCIDENT, vms=(vm,) * 40)) | texts_of(replace(THEIRS, vms=(vm,) * 40))
    written: list[str] = []

    class Record(SharedInMemory):
        async def write(self, term: int, changes: Mapping[str, str | None]) -> None:
            written.extend(changes)
            await super().write(term, changes)

    record = Record(theirs, whole=False, term=0)
    shared = SharedLedger(ours, ours, record=record, leadership=Leads(), post=lambda event: None)
    await shared.take_over(8)
    await shared.commit(Commit(incidents=[replace(INCIDENT, vms=(vm,) * 20), other := replace(THEIRS, id=5)], term=8))
    groups = [key for key, _ in groupby("/".join(key.split("/")[:2]) for key in written)]
    assert sorted(groups) == sorted(set(groups)), "each in one piece"
    assert of_shared(record.texts).incidents == (replace(INCIDENT, vms=(vm,) * 20), other)


async def test_a_field_of_a_vm_that_a_newer_version_wrote_is_refused(ours):
    vm = VmRecord(id=7, name="vm-7", was_state=3, was_lcm_state=3)
    texts = texts_of(replace(THEIRS, vms=(vm,)))
    texts["incident/9/vms/0000"] = texts["incident/9/vms/0000"].replace('"id":7', '"id":7,"holds":1')
    shared = SharedLedger(ours, ours, record=SharedInMemory(texts, whole=True, term=8), leadership=Leads(), post=print)
    with pytest.raises(NotLeading, match="holds"):
        await shared.take_over(9)
