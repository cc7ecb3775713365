"""From what the core tells to what people get."""

from __future__ import annotations

import pytest

from ha_controller.adapters.notifier import NotifierQueue
from ha_controller.adapters.plugins import find_plugins
from ha_controller.app import messages
from ha_controller.config import Config
from ha_controller.core.effects import Severity, Tell
from ha_controller.core.settings import Settings
from ha_controller.core.state import State

STATE = State(Settings())


def test_a_message_says_what_the_core_told() -> None:
    told = Tell(severity=Severity.CRITICAL, text="it failed", next_step="nothing", host=9, incident=3, ends=True)
    found = messages.message_of(told, STATE, 12.0)
    assert (found.severity, found.text, found.next_step, found.incident) == ("critical", "it failed", "nothing", 3)
    assert (found.host, found.ends, found.at) == (None, True, 12.0), "host 9 is not known here"


async def test_the_log_is_always_told_and_the_configured_ones_by_their_names() -> None:
    notify = [{"name": "shift", "notifier": "webhook", "url": "http://127.0.0.1:9/x", "severity": "critical"}]
    config = Config.model_validate({"opennebula": {"auth": "a:b"}, "notify": notify})
    sinks = messages.sinks(config, find_plugins())
    queue = NotifierQueue(sinks)
    rows = await messages.test(queue, ["log", "shift"], who="ann", now=1.0)
    assert rows[0] == {"name": "log", "ok": True, "trouble": ""}
    assert (rows[1]["ok"], rows[1]["trouble"].startswith("127.0.0.1:9: ")) == (False, True)
    standing = messages.standing(queue)
    assert [row["results"]["sent"] for row in standing] == [1, 0]
    assert standing[1]["trouble"] == rows[1]["trouble"]
    await sinks[1].notifier.close()


@pytest.mark.parametrize("severity", ["loud", "none"])
def test_an_unknown_severity_is_refused(severity: str) -> None:
    notify = [{"name": "shift", "notifier": "webhook", "severity": severity}]
    with pytest.raises(ValueError, match="severity"):
        Config.model_validate({"opennebula": {"auth": "a:b"}, "notify": notify})
