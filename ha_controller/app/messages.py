"""What people are told, and through what: from the core's `Tell` to the configured notifiers."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from ha_controller.adapters.notifier import LogNotifier, NotifierQueue, Sink
from ha_controller.adapters.plugins import Registry
from ha_controller.config import Config
from ha_controller.core.effects import Tell
from ha_controller.core.state import State
from ha_controller.plugin import Message, NotifierConfig


def sinks(config: Config, registry: Registry) -> list[Sink]:
    """The log, and every notifier of the configuration."""
    source = socket.gethostname()
    found = [Sink(name="log", notifier=LogNotifier(NotifierConfig(), source))]
    for each in config.notify:
        chosen = registry.notifiers[each.notifier]
        notifier = chosen(chosen.config_model.model_validate(each.settings), source)
        found.append(Sink(name=each.name, notifier=notifier, severity=each.severity))
    return found


def message_of(told: Tell, state: State, now: float, trail: str = "") -> Message:
    """The message for people. `trail`: the head of the audit trail, in which the message stands already."""
    host = state.hosts.get(-1 if told.host is None else told.host)
    return Message(
        at=now,
        severity=told.severity.value,
        host=None if host is None else host.name,
        incident=told.incident,
        text=told.text,
        next_step=told.next_step,
        ends=told.ends,
        trail=trail,
    )


def standing(queue: NotifierQueue) -> list[dict[str, Any]]:
    """Each way to reach people: how its messages ended, and why the last one did not go out."""
    troubles = queue.troubles
    return [
        {"name": name, "trouble": troubles.get(name, ""), "results": dict(results)}
        for name, results in queue.results.items()
    ]


async def test(queue: NotifierQueue, names: Sequence[str], *, who: str, now: float) -> list[dict[str, Any]]:
    """Send a test message through these now."""
    text = f"This is a test of ha-controller on {socket.gethostname()}, ordered by {who}. Nothing has happened."
    message = Message(at=now, severity="critical", host=None, incident=None, text=text, next_step="Nothing to do.")
    found = await queue.test(message, names)
    return [{"name": name, "ok": not found[name], "trouble": found[name]} for name in names]
