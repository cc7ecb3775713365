"""Telling people: nobody waits for a notifier, and what must go is the quietest and oldest."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from structlog.testing import capture_logs

from ha_controller.adapters.notifier import LogNotifier, Message, Notifier, NotifierQueue


def message(text: str, severity: str = "info") -> Message:
    return Message(at=1.0, severity=severity, host="kvm-07", incident=3, text=text, next_step="nothing")


class Pocket:
    """Keeps what it is told; can be made to hang or to fail."""

    def __init__(self) -> None:
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
    queue = NotifierQueue([pocket])
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
    queue = NotifierQueue([pocket], waiting_max=3)
    with capture_logs() as lines:
        for number, severity in enumerate([*waiting, newest]):
            queue.post(message(f"{severity} {number}", severity))
    assert queue.dropped == 1
    assert [line["event"] for line in lines] == ["a message was dropped: too many wait"]
    await run_while(queue, lambda: len(pocket.texts) == 3)
    assert pocket.texts == kept


async def test_a_hung_notifier_delays_neither_the_caller_nor_another_one() -> None:
    hung, well = Pocket(), Pocket()
    hung.hang()
    queue = NotifierQueue([hung, well], waiting_max=10)
    async with anyio.create_task_group() as group:
        group.start_soon(queue.run)
        for number in range(5):
            queue.post(message(str(number)))
        await until(lambda: len(well.texts) == 5)
        assert hung.tried == ["0"]
        group.cancel_scope.cancel()


async def test_a_delivery_that_takes_too_long_is_given_up_and_the_next_one_goes_out() -> None:
    pocket = Pocket()
    pocket.hang()
    queue = NotifierQueue([pocket], timeout_s=0.05)
    with capture_logs() as lines:
        async with anyio.create_task_group() as group:
            group.start_soon(queue.run)
            queue.post(message("lost", "critical"))
            await until(lambda: bool(lines))
            pocket.open.set()
            queue.post(message("arrives"))
            await until(lambda: pocket.texts == ["arrives"])
            group.cancel_scope.cancel()
    assert lines[0]["event"] == "a message was not delivered within 0.05 s"
    assert (lines[0]["notifier"], lines[0]["severity"], lines[0]["incident"]) == ("Pocket", "critical", 3)


async def test_a_notifier_that_raises_is_logged_with_its_traceback_and_goes_on() -> None:
    pocket = Pocket()
    pocket.failure = ValueError("the web hook is misspelt")
    queue = NotifierQueue([pocket])
    queue.post(message("lost"))
    with capture_logs() as lines:
        await run_while(queue, lambda: bool(lines))
    assert (lines[0]["event"], lines[0]["exc_info"]) == ("a message was not delivered", True)
    pocket.failure = None
    queue.post(message("arrives"))
    await run_while(queue, lambda: pocket.texts == ["arrives"])


@pytest.mark.parametrize(
    ("severity", "level"),
    [("info", "info"), ("warning", "warning"), ("critical", "critical"), ("fatal", "critical")],
)
async def test_the_log_is_as_loud_as_the_message(severity: str, level: str) -> None:
    notifier: Notifier = LogNotifier()
    with capture_logs() as lines:
        await notifier.tell(message("host kvm-07 failed", severity))
    assert lines == [
        {
            "event": "host kvm-07 failed",
            "log_level": level,
            "host": "kvm-07",
            "incident": 3,
            "next_step": "nothing",
        }
    ]
