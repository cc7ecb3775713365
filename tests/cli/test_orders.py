"""Orders: which hosts they go to, what has to be typed first, and what becomes of the others when one is refused."""

from __future__ import annotations

import io

import pytest

from ha_controller.cli import client, common
from tests.cli.pretended import Commands


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(commands: Commands, monkeypatch: pytest.MonkeyPatch):
    """A person at a terminal who types `text`."""

    def run(text: str, *words: str):
        monkeypatch.setattr(io, "StringIO", lambda *given: Terminal(*given))
        try:
            return commands(*words, stdin=text)
        finally:
            monkeypatch.undo()

    return run


def test_an_order_goes_to_every_host_that_is_meant_once(commands: Commands):
    assert commands("maintenance", "on", "kvm-01,2", "1..3", "--reason", "new RAM").code == 0
    assert [(verb, keys["host"]) for verb, keys in commands.ordered] == [
        ("maintenance on", "kvm-01"), ("maintenance on", "kvm-02"), ("maintenance on", "kvm-03"),
    ]  # fmt: skip


def test_a_host_that_is_refused_keeps_no_other_from_its_order(commands: Commands):
    commands.pretended.refusals["kvm-01"] = 409, {"code": 4, "detail": "kvm-01 is FAILED."}
    done = commands("maintenance", "on", "kvm-0[0-2]", "--reason", "new RAM")
    assert done.code == 4
    assert "kvm-01: kvm-01 is FAILED." in done.err
    assert "1 of 3 hosts: not done." in done.err
    assert [keys["host"] for _, keys in commands.ordered] == ["kvm-00", "kvm-01", "kvm-02"]


def test_nothing_is_ordered_when_one_of_the_names_is_wrong(commands: Commands):
    assert commands("hold", "kvm-01", "kvm-001").code == 3
    assert commands.ordered == []


@pytest.mark.parametrize("words", [["fence", "kvm-05", "--reason", "x"], ["confirm-off", "5"], ["unfence", "kvm-05"]])
def test_without_a_terminal_a_destructive_order_needs_yes(commands: Commands, words: list[str]):
    assert commands(*words).code == 2
    assert commands.ordered == []
    assert commands(*words, "--yes").code == 0
    assert [keys["host"] for _, keys in commands.ordered] == ["kvm-05"]


@pytest.mark.parametrize("words", [["fence", "kvm-0*", "--reason", "x"], ["confirm-off", "5,6"]])
def test_what_kills_is_ordered_for_one_host_at_a_time(commands: Commands, words: list[str]):
    assert commands(*words, "--yes").code == 2
    assert commands.ordered == []


def test_the_name_itself_is_typed_also_when_the_host_was_given_by_its_number(typed, commands: Commands):
    assert typed("5\n", "confirm-off", "5").code == 2
    assert commands.ordered == []
    done = typed("kvm-05\n", "confirm-off", "5")
    assert done.code == 0
    assert "If it still runs, its VMs will run twice" in done.err
    assert [keys["host"] for _, keys in commands.ordered] == ["kvm-05"]


def test_watching_goes_on_while_the_controller_is_away(commands: Commands, monkeypatch: pytest.MonkeyPatch):
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        commands.pretended.answers["/api/v1/hosts"] = []
        if len(slept) == 1:
            del commands.pretended.answers["/api/v1/hosts"]
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("ha_controller.cli.listing.time.sleep", sleep)
    done = commands("hosts", "-w", "-o", "json")
    assert done.code == 130
    assert len(done.out.splitlines()) == 2
    assert "There is no /api/v1/hosts here" in done.err


@pytest.mark.parametrize("word", [",", ",,", ""])
def test_names_that_were_left_empty_are_no_success(commands: Commands, word: str):
    """`maintenance on "$A,$B"` with both of them empty: somebody would work on a host that can be powered off."""
    assert commands("maintenance", "on", word, "--reason", "new RAM").code == 3
    assert commands("fence", word, "--reason", "x", "--yes").code in (2, 3)
    assert commands.ordered == []


@pytest.mark.parametrize("word", ["kvm-0[3]", "3..3", "*-03", "kvm-03,kvm-03"])
@pytest.mark.parametrize("command", [["confirm-off"], ["fence", "--reason", "x"], ["fencing", "test", "--real"]])
def test_what_kills_takes_no_pattern_though_it_fits_one_host_today(commands: Commands, command: list[str], word: str):
    assert commands(*command, word, "--yes").code == 2
    assert commands.ordered == []


@pytest.mark.parametrize("command", ["release", "maintenance off"])
def test_a_pattern_that_gives_many_back_is_asked_about(typed, commands: Commands, command: str):
    assert commands(*command.split(), "kvm-*").code == 2
    assert typed("n\n", *command.split(), "kvm-*").code == 2
    assert commands.ordered == []
    assert typed("y\n", *command.split(), "kvm-0[12]").code == 0
    assert [keys["host"] for _, keys in commands.ordered] == ["kvm-01", "kvm-02"]
    assert commands(*command.split(), "kvm-01", "kvm-02").code == 0, "they were named one by one"


def test_a_controller_that_is_gone_is_asked_once(commands: Commands, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def gone(verb: str, *, host: str, **_: object) -> None:
        asked.append(host)
        raise client.Failure(client.NO_CONTROLLER, "gone")

    monkeypatch.setattr(common, "order", gone)
    assert commands("maintenance", "on", "kvm-0[0-2]", "--reason", "x").code == 7
    assert len(asked) == 1


def test_a_pause_says_for_how_long_and_which_controllers_it_does_not_stop(commands: Commands):
    done = commands("pause", "--reason", "new switch", "--for", "30m")
    assert (done.code, commands.ordered) == (0, [("pause", {"reason": "new switch", "for_s": 1800.0, "here": False})])
    assert "pause --here" not in done.err, "there is no other controller"
    commands.pretended.answers["/api/v1/leader"]["members"].append(
        {"name": "one-2", "leads": False, "term": None, "this": False}
    )
    assert "one-2 would not be paused after taking the lead" in commands("pause", "--reason", "x").err
    assert "would not be paused" not in commands("pause", "--reason", "x", "--here").err
    assert commands.ordered[-1][1]["here"]
    assert commands("pause", "--reason", "x", "--for", "a while").code == 2
    commands.pretended.answers["/api/v1/leader"]["shares_record"] = True
    assert "would not be paused" not in commands("pause", "--reason", "x").err, "whoever leads next is, too"


def test_a_refused_pause_ends_with_its_code_and_says_no_more(commands: Commands, monkeypatch: pytest.MonkeyPatch):
    said = 421, {"code": 9, "detail": "one-2 leads, not this controller: nothing was paused. Pause it there."}
    monkeypatch.setattr(commands.pretended, "_ordered", lambda *_: said)
    done = commands("pause", "--reason", "x")
    assert (done.code, done.err.strip()) == (9, said[1]["detail"])


def test_a_reason_is_needed_to_power_off_and_none_to_ask_about_it(commands: Commands):
    assert commands("fence", "kvm-05", "--yes").code == 2
    assert commands("fence", "kvm-05", "--dry-run").code == 0
    assert commands.ordered == []
