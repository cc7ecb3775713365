"""The real library, in a process of its own, and a receiver over a real socket."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from ha_controller_apprise import Apprise, AppriseConfig
from pydantic import ValidationError

from ha_controller.plugin import Message, NotDelivered, Undeliverable

SECRET = "hunter2-is-no-password"
MESSAGE = Message(
    at=1795694400.0, severity="critical", host="kvm-07", incident=3, text='kvm-07 has "FAILED"',
    next_step="Nothing to do: it is being fenced.",
)  # fmt: skip


@dataclass
class Receiver:
    port: int = 0
    status: int = 200
    wait_s: float = 0.0
    got: list[Any] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        await anyio.sleep(self.wait_s)
        return web.Response(status=self.status)

    def notifier(self, scheme: str = "json") -> Apprise:
        url = f"{scheme}://ha:{SECRET}@127.0.0.1:{self.port}/room"
        return Apprise(AppriseConfig.model_validate({"url": url}), "fe-1")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    application = web.Application()
    application.router.add_post("/{path:.*}", found.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


def senders() -> set[str]:
    """Processes that send, by their command lines."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "ha_controller_apprise/sender.py" in line and str(os.getpid()) == _parent(path.parent):
            found.add(line)
    return found


def _parent(process: Path) -> str:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return ""


async def until(holds: Callable[[], object]) -> None:
    with anyio.fail_after(15):
        while not holds():  # noqa: ASYNC110 - processes call nobody
            await anyio.sleep(0.02)


async def test_a_message_arrives_with_what_to_do_and_no_secret_is_in_the_process_list(receiver: Receiver):
    receiver.wait_s = 0.3
    seen: set[str] = set()
    async with anyio.create_task_group() as group:
        group.start_soon(receiver.notifier().tell, MESSAGE)
        await until(lambda: seen.update(senders()) or receiver.got)
    [got] = receiver.got
    assert got["title"] == '[ha-controller] CRITICAL kvm-07 has "FAILED"'
    assert got["type"] == "failure"
    assert "Nothing to do: it is being fenced." in got["message"]
    assert "ha-controller incidents show 3" in got["message"]
    assert seen
    assert SECRET not in str(seen)


@pytest.mark.parametrize(("status", "kind"), [(401, Undeliverable), (503, NotDelivered)])
async def test_a_refusal_says_its_number_and_no_secret(receiver: Receiver, status: int, kind: type[NotDelivered]):
    receiver.status = status
    with pytest.raises(NotDelivered) as caught:
        await receiver.notifier().tell(MESSAGE)
    assert type(caught.value) is kind
    assert str(caught.value) == f"apprise, JSON: it answers {status}"


async def test_nobody_there_and_a_scheme_that_nobody_knows(receiver: Receiver):
    port, receiver.port = receiver.port, 1
    with pytest.raises(NotDelivered) as gone:
        await receiver.notifier().tell(MESSAGE)
    receiver.port = port
    with pytest.raises(Undeliverable) as unknown:
        await receiver.notifier("no-such-service").tell(MESSAGE)
    for caught in (gone, unknown):
        assert SECRET not in str(caught.value)
    assert gone.value.retryable


async def test_a_delivery_that_is_cut_off_leaves_no_process(receiver: Receiver):
    """The deadline is that of the queue of messages, and ends what hangs in the library."""
    receiver.wait_s = 60.0
    async with anyio.create_task_group() as group:
        group.start_soon(receiver.notifier().tell, MESSAGE)
        await until(lambda: receiver.got)
        assert senders()
        group.cancel_scope.cancel()
    await until(lambda: not senders())


async def test_a_sender_that_says_nonsense_has_not_delivered(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A real program in the place of ours: no way is known to make that one say so."""
    monkeypatch.setattr("ha_controller_apprise.SENDER", tmp_path / "sender.py")
    for said in ("", "[]", "null", "[" * 100_000, '{"delivered": "yes"}'):
        (tmp_path / "sender.py").write_text(f"print({said!r})")
        with pytest.raises(NotDelivered):
            await receiver.notifier().tell(MESSAGE)


def test_what_is_no_url_is_refused_without_showing_it():
    with pytest.raises(ValidationError) as caught:
        AppriseConfig.model_validate({"url": SECRET})
    assert "Write it like" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_without_the_library_the_configuration_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ValidationError, match=r"pip install 'apprise>=2\.2,<3'"):
        AppriseConfig.model_validate({"url": "ntfy://host/topic"})


def test_the_url_is_in_no_repr(receiver: Receiver):
    assert SECRET not in repr(receiver.notifier().config)
