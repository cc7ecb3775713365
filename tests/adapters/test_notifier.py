"""Telling people: nobody waits for a notifier, and what must go is the quietest and oldest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ha_controller.adapters import notifier as module
from ha_controller.adapters.notifier import LogNotifier, NotifierQueue, Sink
from ha_controller.plugin import Message, NotDelivered, Notifier, NotifierConfig, Undeliverable


def message(text: str, severity: str = "info", *, incident: int | None = 3, ends: bool = False) -> Message:
    return Message(
        at=1.0, severity=severity, host="kvm-07", incident=incident, text=text, next_step="nothing", ends=ends
    )


class Pocket(Notifier[NotifierConfig]):
    """Keeps what it is told; can be made to hang or to fail."""

    kind = "pocket"
    config_model = NotifierConfig
    groups = False

    def __init__(self) -> None:
        super().__init__(NotifierConfig(), "here")
        self.closed = 0
        self.texts: list[str] = []
        self.tried: list[str] = []
        self.open = anyio.Event()
        self.open.set()
        self.failure: Exception | None = None

    async def tell(self, message: Message) -> None:
        self.tried.append(message.text)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        self.texts.append(message.text)

    def hang(self) -> None:
        self.open = anyio.Event()

    async def close(self) -> None:
        self.closed += 1


def queue_of(*pockets: Pocket, severity: str = "info", **patience: Any) -> NotifierQueue:
    sinks = [Sink(name=f"pocket {number}", notifier=each, severity=severity) for number, each in enumerate(pockets)]
    return NotifierQueue(sinks, **{"first_pause_s": 0.02, **patience})


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.002)


async def run_while(queue: NotifierQueue, condition: Callable[[], bool]) -> None:
    """Run the queue until the condition holds."""
    async with anyio.create_task_group() as group:
        group.start_soon(queue.run)
        await until(condition)
        group.cancel_scope.cancel()


async def test_messages_arrive_in_order_before_and_while_running() -> None:
    pocket = Pocket()
    queue = queue_of(pocket)
    queue.post(message("first"))
    async with anyio.create_task_group() as group:
        group.start_soon(queue.run)
        await until(lambda: pocket.texts == ["first"])
        queue.post(message("second"))
        queue.post(message("third"))
        await until(lambda: pocket.texts == ["first", "second", "third"])
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("waiting", "newest", "kept"),
    [
        (["warning", "info", "info"], "info", ["warning 0", "info 2", "info 3"]),
        (["critical", "warning", "info"], "critical", ["critical 0", "warning 1", "critical 3"]),
        (["critical", "warning", "warning"], "critical", ["critical 0", "warning 2", "critical 3"]),
        (["critical", "warning", "critical"], "info", ["critical 0", "warning 1", "critical 2"]),
        (["critical", "critical", "critical"], "critical", ["critical 1", "critical 2", "critical 3"]),
        (["fatal", "info", "info"], "critical", ["fatal 0", "info 2", "critical 3"]),
    ],
)
async def test_a_full_queue_drops_the_oldest_of_the_quietest(waiting: list[str], newest: str, kept: list[str]) -> None:
    pocket = Pocket()
    queue = queue_of(pocket, waiting_max=3)
    with capture_logs() as lines:
        for number, severity in enumerate([*waiting, newest]):
            queue.post(message(f"{severity} {number}", severity))
    assert queue.results["pocket 0"]["dropped"] == 1
    assert [line["event"] for line in lines] == ["a message was dropped: too many wait"]
    await run_while(queue, lambda: len(pocket.texts) == 3)
    assert pocket.texts == kept


async def test_a_hung_notifier_delays_neither_the_caller_nor_another_one() -> None:
    hung, well = Pocket(), Pocket()
    hung.hang()
    queue = queue_of(hung, well, waiting_max=10)
    async with anyio.create_task_group() as group:
        group.start_soon(queue.run)
        for number in range(5):
            queue.post(message(str(number)))
        await until(lambda: len(well.texts) == 5)
        assert hung.tried == ["0"]
        group.cancel_scope.cancel()


async def test_a_delivery_that_takes_too_long_is_repeated_and_nobody_waits_for_ever() -> None:
    pocket = Pocket()
    pocket.hang()
    queue = queue_of(pocket, timeout_s=0.05)
    with capture_logs() as lines:
        async with anyio.create_task_group() as group:
            group.start_soon(queue.run)
            queue.post(message("first", "critical"))
            await until(lambda: bool(lines))
            pocket.open.set()
            queue.post(message("second"))
            await until(lambda: pocket.texts == ["first", "second"])
            group.cancel_scope.cancel()
    assert lines[0]["event"] == "a message was not delivered; again in 0.02 s: no end within 0.05 s"
    assert (lines[0]["sink"], lines[0]["severity"], lines[0]["incident"]) == ("pocket 0", "critical", 3)
    assert pocket.closed == 1


async def test_what_cannot_be_delivered_now_is_given_up_in_the_end() -> None:
    pocket = Pocket()
    pocket.failure = NotDelivered("the line is dead")
    queue = queue_of(pocket, give_up_s=0.1)
    queue.post(message("lost"))
    with capture_logs() as lines:
        await run_while(queue, lambda: queue.results["pocket 0"]["given_up"] == 1)
    assert pocket.tried.count("lost") == 1 + queue.results["pocket 0"]["repeated"] >= 3
    assert lines[-1]["event"] == "a message was not delivered and is given up: the line is dead"
    assert queue.troubles == {"pocket 0": "the line is dead"}
    pocket.failure = None
    queue.post(message("arrives"))
    await run_while(queue, lambda: pocket.texts == ["arrives"])
    assert queue.troubles == {}


@pytest.mark.parametrize("failure", [Undeliverable("no such channel"), ValueError("secret")])
async def test_what_is_refused_or_a_bug_is_not_repeated(failure: Exception) -> None:
    pocket = Pocket()
    pocket.failure = failure
    queue = queue_of(pocket)
    queue.post(message("lost"))
    with capture_logs() as lines:
        await run_while(queue, lambda: queue.results["pocket 0"]["given_up"] == 1)
    assert pocket.tried == ["lost"]
    assert "secret" not in str(lines), "the text of a bug may hold one"


async def test_many_at_once_go_out_as_one_loudest_first() -> None:
    pocket, single = Pocket(), Pocket()
    pocket.groups = True  # type: ignore[misc]
    queue = queue_of(pocket, single)
    for number in range(40):
        queue.post(message(f"text {number}", "critical" if number == 7 else "info"))
    await run_while(queue, lambda: len(single.texts) == 40 and len(pocket.texts) == 1)
    lines = pocket.texts[0].splitlines()
    assert lines[0] == "40 messages at once:"
    assert lines[1] == "CRITICAL text 7 nothing"
    assert lines[-1] == "and 10 more: ha-controller events"


async def test_a_quiet_pocket_hears_the_end_of_every_story_that_it_was_told() -> None:
    pocket = Pocket()
    queue = queue_of(pocket, severity="warning")
    queue.post(message("unheard", "info", incident=1))
    queue.post(message("its end", "info", incident=1, ends=True))
    queue.post(message("failed", "critical", incident=2))
    queue.post(message("VM runs", "info", incident=2))
    queue.post(message("recovered", "info", incident=2, ends=True))
    queue.post(message("readmitted", "info", incident=2, ends=True))
    queue.post(message("of none", "warning", incident=None))
    await run_while(queue, lambda: len(pocket.texts) == 3)
    assert pocket.texts == ["failed", "recovered", "of none"]


async def test_a_test_message_goes_out_now_past_what_waits_and_says_why_not() -> None:
    well, dead, unasked = Pocket(), Pocket(), Pocket()
    dead.failure = NotDelivered("the line is dead")
    queue = queue_of(well, dead, unasked)
    found = await queue.test(message("a test"), ["pocket 0", "pocket 1"])
    assert found == {"pocket 0": "", "pocket 1": "the line is dead"}
    assert (well.texts, unasked.texts) == (["a test"], [])


async def test_stories_that_never_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORIES_MAX", 2)
    pocket = Pocket()
    queue = queue_of(pocket, severity="critical")
    for number in (1, 2, 3):
        queue.post(message(f"failed {number}", "critical", incident=number))
    for number in (1, 3):
        queue.post(message(f"over {number}", incident=number, ends=True))
    await run_while(queue, lambda: len(pocket.texts) == 4)
    assert pocket.texts[-1] == "over 3"


@pytest.mark.parametrize(
    ("severity", "level"),
    [("info", "info"), ("warning", "warning"), ("critical", "critical"), ("fatal", "critical")],
)
async def test_the_log_is_as_loud_as_the_message(severity: str, level: str) -> None:
    notifier = LogNotifier(NotifierConfig(), "here")
    with capture_logs() as lines:
        await notifier.tell(message("host kvm-07 failed", severity))
    assert lines == [
        {
            "event": "host kvm-07 failed",
            "log_level": level,
            "host": "kvm-07",
            "incident": 3,
            "next_step": "nothing",
            "trail": "",
        }
    ]
