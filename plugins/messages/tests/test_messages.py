"""The five notifiers against receivers over real sockets. The services themselves were not at hand."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from ha_controller_messages import post
from ha_controller_messages.alertmanager import Alertmanager, AlertmanagerConfig
from ha_controller_messages.command import Command, CommandConfig
from ha_controller_messages.pagerduty import PagerDuty, PagerDutyConfig
from ha_controller_messages.slack import Slack, SlackConfig
from ha_controller_messages.webhook import Webhook, WebhookConfig
from pydantic import ValidationError

from ha_controller.plugin import Message, NotDelivered, Notifier, Undeliverable

SECRET = "s3cret-path"


def message(text: str = "kvm-07 has FAILED", **changes: Any) -> Message:
    values = {"at": 1_790_000_000.0, "severity": "critical", "host": "kvm-07", "incident": 3}
    return Message(**{**values, "text": text, "next_step": "Nothing for you to do.", **changes})


@asynccontextmanager
async def opened(notifier: Notifier[Any]) -> AsyncIterator[Notifier[Any]]:
    try:
        yield notifier
    finally:
        await notifier.close()


def webhook(receiver: Any, **settings: Any) -> Webhook:
    config = {"url": f"{receiver.url}/{SECRET}", **settings}
    return Webhook(WebhookConfig.model_validate(config), "one-1")


async def test_a_webhook_gets_everything_as_json_and_our_token(receiver):
    async with opened(webhook(receiver, token="t0ken")) as notifier:
        await notifier.tell(message(ends=True, trail="41:0123456789ab"))
    assert receiver.got == [
        {
            "schema": "ha-controller/message/v1",
            "source": "one-1",
            "at": 1_790_000_000.0,
            "severity": "critical",
            "host": "kvm-07",
            "incident": 3,
            "text": "kvm-07 has FAILED",
            "next_step": "Nothing for you to do.",
            "ends": True,
            "trail": "41:0123456789ab",
        }
    ]
    assert receiver.headers[0]["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("status", "final"), [(500, False), (503, False), (429, False), (408, False), (404, True), (403, True), (307, True)]
)
async def test_a_refusal_is_for_good_or_for_the_moment_and_names_no_secret(receiver, status, final):
    receiver.status = status
    async with opened(webhook(receiver, token="t0ken")) as notifier:
        with pytest.raises(NotDelivered) as caught:
            await notifier.tell(message())
    assert isinstance(caught.value, Undeliverable) is final
    assert str(status) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(receiver.got) == 1, "a redirect is not followed"


async def test_a_receiver_that_is_slow_or_gone_is_told_as_such(receiver, monkeypatch):
    monkeypatch.setattr(post, "SOCKET_S", 0.1)
    receiver.wait_s = 1
    async with opened(webhook(receiver)) as notifier:
        with pytest.raises(NotDelivered, match=r"no answer within 0\.1 s"):
            await notifier.tell(message())
    receiver.url = "http://127.0.0.1:9"
    async with opened(webhook(receiver)) as notifier:
        with pytest.raises(NotDelivered, match=r"127\.0\.0\.1:9") as caught:
            await notifier.tell(message())
    assert caught.value.retryable


async def test_a_name_that_does_not_exist_is_told(receiver):
    receiver.url = "http://receiver.invalid"
    async with opened(webhook(receiver)) as notifier:
        with pytest.raises(NotDelivered, match="cannot be resolved"):
            await notifier.tell(message())


@pytest.mark.parametrize("url", ["ftp://x/y", "no url", "https://", "http://[::1"])
def test_what_is_no_url_is_refused_without_showing_it(url):
    with pytest.raises(ValidationError, match="not a URL") as caught:
        WebhookConfig(url=url)
    assert not url.startswith("ftp") or "ftp://x" not in str(caught.value)


async def test_slack_by_webhook_escapes_names(receiver):
    config = SlackConfig.model_validate({"url": f"{receiver.url}/{SECRET}"})
    async with opened(Slack(config, "one-1")) as notifier:
        await notifier.tell(message("<!channel> & co has FAILED"))
    [body] = receiver.got
    assert body["text"].startswith(":rotating_light: *CRITICAL* &lt;!channel&gt; &amp; co has FAILED\n")


async def test_slack_by_a_bot_makes_one_thread_for_each_incident(receiver):
    receiver.answer = {"ok": True, "ts": "17.5"}
    config = SlackConfig.model_validate({"url": receiver.url, "token": "xoxb", "channel": "C1"})
    async with opened(Slack(config, "one-1")) as notifier:
        await notifier.tell(message())
        await notifier.tell(message("kvm-07 is off", severity="info"))
        await notifier.tell(message("kvm-07 is RECOVERED", severity="info", ends=True))
        await notifier.tell(message("another", incident=4))
    assert receiver.paths[0] == "/chat.postMessage"
    threads = [(body.get("thread_ts"), body.get("reply_broadcast")) for body in receiver.got]
    assert threads == [(None, None), ("17.5", False), ("17.5", True), (None, None)]


@pytest.mark.parametrize(("error", "final"), [("channel_not_found", True), ("ratelimited", False)])
async def test_slack_refuses_with_status_200(receiver, error, final):
    receiver.answer = {"ok": False, "error": error}
    config = SlackConfig.model_validate({"url": receiver.url, "token": "xoxb", "channel": "C1"})
    async with opened(Slack(config, "one-1")) as notifier:
        with pytest.raises(NotDelivered, match=error) as caught:
            await notifier.tell(message())
    assert isinstance(caught.value, Undeliverable) is final


@pytest.mark.parametrize("settings", [{}, {"token": "xoxb"}, {"channel": "C1"}])
def test_half_of_a_slack_configuration_is_told(settings):
    with pytest.raises(ValidationError, match="token and channel"):
        SlackConfig.model_validate(settings)


async def test_pagerduty_pages_once_for_an_incident_and_resolves_it(receiver):
    config = PagerDutyConfig.model_validate({"routing_key": "r0ute", "url": receiver.url})
    async with opened(PagerDuty(config, "one-1")) as notifier:
        await notifier.tell(message())
        await notifier.tell(message("kvm-07 is RECOVERED", severity="info", ends=True))
        await notifier.tell(message("no room", incident=None, host=None))
    first, end, other = receiver.got
    assert (first["event_action"], end["event_action"]) == ("trigger", "resolve")
    assert first["dedup_key"] == end["dedup_key"] != other["dedup_key"]
    assert first["payload"]["summary"] == "kvm-07 has FAILED. Nothing for you to do."
    assert first["payload"]["timestamp"] == "2026-09-21T14:13:20+00:00"


async def test_alerts_end_with_their_incident_whatever_their_severity(receiver):
    config = AlertmanagerConfig.model_validate({"url": receiver.url, "username": "a", "password": "b"})
    async with opened(Alertmanager(config, "one-1")) as notifier:
        await notifier.tell(message(severity="warning"))
        await notifier.tell(message())
        await notifier.tell(message("kvm-07 is RECOVERED", severity="info", ends=True, at=1_790_000_060.0))
    assert receiver.paths[0] == "/api/v2/alerts"
    assert receiver.headers[0]["Authorization"].startswith("Basic ")
    began = [body[0]["labels"] for body in receiver.got[:2]]
    assert [labels["severity"] for labels in began] == ["warning", "critical"]
    assert receiver.got[0][0]["endsAt"] == "2026-09-22T02:13:20+00:00"
    assert [alert["labels"] for alert in receiver.got[2]] == began
    assert {alert["endsAt"] for alert in receiver.got[2]} == {"2026-09-21T14:14:20+00:00"}


def script(folder: Path, text: str) -> Path:
    path = folder / "horn"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


async def test_a_program_gets_the_message_on_its_standard_input(tmp_path):
    path = script(tmp_path, 'cat > "$1"')
    notifier = Command(CommandConfig.model_validate({"command": [str(path), str(tmp_path / "got")]}), "one-1")
    await notifier.tell(message())
    assert json.loads((tmp_path / "got").read_text())["text"] == "kvm-07 has FAILED"


async def test_a_program_that_fails_or_hangs_is_told_and_leaves_nothing_behind(tmp_path):
    notifier = Command(CommandConfig.model_validate({"command": [str(script(tmp_path, "echo no >&2; exit 3"))]}), "x")
    with pytest.raises(NotDelivered, match="horn ended with 3: no"):
        await notifier.tell(message())
    hung = script(tmp_path, f"sleep 30; touch {tmp_path}/late")
    notifier = Command(CommandConfig.model_validate({"command": [str(hung)]}), "x")
    with anyio.move_on_after(0.3) as scope:
        await notifier.tell(message())
    assert scope.cancelled_caught


def test_what_is_no_program_is_told(tmp_path):
    (tmp_path / "text").write_text("")
    for command in (["horn"], [str(tmp_path / "text")], []):
        with pytest.raises(ValidationError):
            CommandConfig.model_validate({"command": command})
