"""The audit trail: what is noted beside the core's commands, and the commands that show and check it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from ha_controller.adapters.journal import Entry, Journal, JournalError
from ha_controller.app.audit import REFUSALS_PER_MINUTE, Audit
from ha_controller.app.ledger import Ledger
from ha_controller.cli import client
from ha_controller.cli.audit import audit

BOB = {"who": "bob", "origin": "local socket, uid 1000"}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = Journal.open(tmp_path / "journal.db")
    yield opened
    await opened.close()


class Clock:
    now = 600.0

    def __call__(self) -> float:
        return self.now


async def test_an_act_is_noted_with_who_from_where_what_why_and_the_outcome(journal: Journal) -> None:
    noted = Audit(lambda: Ledger(journal), Clock())
    await noted.note(
        **BOB, what="leader step-down", reason="update\n\x1b[31mof it", code=4, result="An incident is open."
    )
    (line,) = await journal.entries()
    assert line.text == "bob was refused leader step-down: update [31mof it: An incident is open."
    assert line.data == {
        **BOB, "verb": "leader step-down", "reason": "update [31mof it", "code": 4, "result": "An incident is open."
    }  # fmt: skip
    assert (line.kind, line.at) == ("operator", 600.0)


async def test_what_has_no_reason_or_no_outcome_is_one_sentence_all_the_same(journal: Journal) -> None:
    noted = Audit(lambda: Ledger(journal), Clock())
    await noted.note(who="root", origin="here", what="start", result="version 1.0, mode auto")
    await noted.note(who="root", origin="here", what="stop")
    assert [line.text for line in await journal.entries()] == [
        "root orders start: version 1.0, mode auto",
        "root orders stop",
    ]


async def test_who_floods_the_door_does_not_fill_the_disk(journal: Journal) -> None:
    clock = Clock()
    noted = Audit(lambda: Ledger(journal), clock)
    for _ in range(REFUSALS_PER_MINUTE + 30):
        await noted.note(**BOB, what="GET /", code=8, result="no")
    assert len(await journal.entries()) == REFUSALS_PER_MINUTE
    await noted.note(who="root", origin="here", what="stop")
    clock.now += 60
    await noted.note(**BOB, what="GET /", code=8, result="no")
    *_, stop, again = await journal.entries()
    assert "30 more refusals were not written down" in stop.text, "what was done is always written"
    assert "more refusals" not in again.text


async def test_a_journal_that_fails_or_is_not_open_stops_nothing(journal: Journal, logged: list[Any]) -> None:
    await Audit(lambda: None, Clock()).note(**BOB, what="start")

    class Broken(Ledger):
        async def note(self, entry: Entry) -> None:
            raise JournalError("the disk is full")

    await Audit(lambda: Broken(journal), Clock()).note(**BOB, what="start")
    assert "an act is not on the trail" in [line["event"] for line in logged]


# --- commands ---------------------------------------------------------------------------------------------------------


class Door:
    """In place of the controller: the entries of a real journal, which tests may change."""

    def __init__(self, entries: list[dict[str, Any]], head: dict[str, Any]) -> None:
        self.entries, self.head = entries, head

    def request(self, method: str, path: str, body: Any = None) -> Any:
        assert method == "GET"
        parts = urlsplit(path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/api/v1/audit/head":
            return self.head
        if parts.path == "/api/v1/hosts":
            return [{"id": 7, "name": "kvm-07"}]
        found = [
            line
            for line in self.entries
            if line["id"] > int(asked.get("after", 0)) and asked.get("kind", line["kind"]) == line["kind"]
        ]
        limit = int(asked["limit"])
        return json.loads(json.dumps(found[-limit:] if "newest" in asked else found[:limit]))


def order(request: int, verb: str, who: str = "ann") -> Entry:
    data = {"who": who, "origin": "local socket, uid 0", "verb": verb, "reason": "disk", "request": request}
    return Entry(at=1.0, kind="operator", host=7, incident=None, text=f"{who} orders {verb}: disk", data=data)


def answer(request: int, code: int, result: str) -> Entry:
    data = {"request": request, "code": code, "result": result}
    return Entry(at=2.0, kind="answer", host=7, incident=None, text=result, data=data)


@pytest.fixture
async def door(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Door:
    intent = Entry(at=3.0, kind="intent", host=7, incident=3, text="power off with bmc, attempt 1", data={"term": 1})
    await journal.commit({}, [order(1, "hold"), answer(1, 0, "Held."), intent, order(2, "release", "bob")])
    # a new process counts from one again
    await journal.commit({}, [order(1, "confirm-off"), answer(1, 4, "Refused: icmp answers."), order(2, "pause")])
    found = Door([asdict(line) for line in await journal.entries()], asdict(journal.head))
    monkeypatch.setattr(client, "request", found.request)
    return found


def run(*words: str) -> Result:
    return CliRunner().invoke(audit, words)


def test_each_act_is_shown_with_its_own_answer(door: Door) -> None:
    acts = json.loads(run("list", "-o", "json").output)
    assert [(act["what"], act["who"], act["code"], act["result"]) for act in acts] == [
        ("hold", "ann", 0, "Held."),
        ("release", "bob", None, ""),
        ("confirm-off", "ann", 4, "Refused: icmp answers."),
        ("pause", "ann", None, ""),
    ]
    assert {act["host"] for act in acts} == {"kvm-07"}
    table = run("list").output
    assert "refused: Refused: icmp answers." in table
    assert "local socket, uid 0" in table


def test_one_may_ask_for_one_person_and_for_what_the_controller_did(door: Door) -> None:
    assert [act["what"] for act in json.loads(run("list", "--who", "bob", "-o", "json").output)] == ["release"]
    (own,) = json.loads(run("list", "--all", "--who", "ha-controller", "-o", "json").output)
    assert (own["what"], own["why"]) == ("power off with bmc, attempt 1", "incident 3")


def test_an_untouched_trail_passes_and_says_its_head(door: Door, tmp_path: Path) -> None:
    ended = run("verify", "--head", f"7:{door.head['seal'][:12]}")
    assert ended.exit_code == 0
    assert "7 entries are as they were written, and 1 noted head fit" in ended.output
    assert f"7:{door.head['seal'][:12]}" in ended.output
    file = tmp_path / "trail"
    for after in ("0", "3"):
        file.write_text(run("export", "--after", after).output)
        ended = run("verify", str(file))
        assert ended.exit_code == 0, ended.output
        assert "Without a --head" in ended.output


def test_the_command_line_finds_what_was_done_by_itself(door: Door) -> None:
    door.entries[3]["text"] = "bob did nothing"
    ended = run("verify")
    assert (ended.exit_code, "entry 4 does not fit its seal" in ended.output) == (1, True)
    found = json.loads(run("verify", "-o", "json").output)
    assert len(found["faults"]) == 1


def test_an_end_that_the_controller_hides_is_found(door: Door) -> None:
    door.entries.pop()
    assert "the end was cut off" in run("verify").output
    seal = door.head["seal"]
    door.head = {"id": 6, "seal": door.entries[-1]["seal"]}
    assert run("verify").exit_code == 0
    assert "the head of entry 7 was noted" in run("verify", "--head", f"7:{seal}").output


def test_an_export_that_was_changed_or_cut_off_is_found(door: Door, tmp_path: Path) -> None:
    file = tmp_path / "trail"
    lines = run("export").output.splitlines(keepends=True)
    for changed, fault in (
        (lines[:-1], "the file has no end"),
        (lines[:4] + lines[5:], "entry 4 is missing"),
        (lines[:7] + lines[8:], "the end speaks of 7 entries"),
        ([*lines, lines[1]], "something stands after the end"),
        ([line.replace("ann", "bob") for line in lines], "entry 1 does not fit"),
        ([*lines[:3], "rubbish\n", *lines[3:]], "something that is no entry"),
    ):
        file.write_text("".join(changed))
        ended = run("verify", str(file))
        assert (ended.exit_code, fault in ended.output) == (1, True), (fault, ended.output)


def test_a_head_of_an_entry_that_is_not_in_an_export_was_not_compared_and_is_said_so(
    door: Door, tmp_path: Path
) -> None:
    file = tmp_path / "trail"
    file.write_text(run("export", "--after", "3").output)
    ended = run("verify", str(file), "--head", f"2:{door.entries[1]['seal']}")
    assert (ended.exit_code, "nothing was compared with it" in ended.output) == (1, True), ended.output
    assert run("verify", str(file), "--head", f"5:{door.entries[4]['seal']}").exit_code == 0


def test_what_is_no_trail_and_what_is_no_head_is_refused(door: Door, tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"format": "something"}\n')
    with pytest.raises(client.Failure, match="this is no trail"):
        CliRunner().invoke(audit, ["verify", str(tmp_path / "other")], catch_exceptions=False)
    with pytest.raises(client.Failure, match="is no head"):
        CliRunner().invoke(audit, ["verify", "--head", "7"], catch_exceptions=False)
