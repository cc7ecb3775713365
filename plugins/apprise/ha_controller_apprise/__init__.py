"""apprise for ha-controller: registers `Apprise` under the kind `apprise`."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr

from ha_controller.plugin import Message, NotDelivered, Notifier, NotifierConfig, Undeliverable, hookimpl, one_line
from ha_controller.process import run

SENDER = Path(__file__).with_name("sender.py")
TITLE_MAX = 120
TRY_AGAIN = (408, 425, 429)
KINDS = {"info": "info", "warning": "warning", "critical": "failure"}


def _can_be_sent(secret: SecretStr) -> SecretStr:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://\S", secret.get_secret_value()):
        raise ValueError("not a URL of apprise. Write it like ntfy://HOST/TOPIC")
    if importlib.util.find_spec("apprise") is None:
        raise ValueError("apprise is not installed. Run: pip install 'apprise>=2.2,<3'")
    return secret


class AppriseConfig(NotifierConfig):
    """Where to."""

    url: Annotated[SecretStr, AfterValidator(_can_be_sent)]


class Apprise(Notifier[AppriseConfig]):
    """Has a message sent by a process of its own: the library blocks, and what blocks in a thread cannot be ended."""

    kind = "apprise"
    config_model = AppriseConfig

    async def tell(self, message: Message) -> None:
        """Send it. What the process says of its troubles is never shown: it may quote the URL."""
        given = {"url": self.config.url.get_secret_value(), **self._written(message)}
        try:
            ended = await run([sys.executable, "-I", str(SENDER)], json.dumps(given))
        except OSError as error:
            raise NotDelivered(f"a process for apprise cannot be started: {error.strerror}") from None
        told = _told(ended.output)
        if ended.status != 0 or told is None:
            raise NotDelivered(f"the process for apprise ended with {ended.status}, and does not say what became of it")
        if told.get("delivered") is True:
            return
        if told.get("known") is not True:
            raise Undeliverable("apprise does not know such a URL, or something is wrong with it")
        service, status = one_line(str(told.get("service", "")), characters_max=40), told.get("status")
        if isinstance(status, int):
            final = 400 <= status < 500 and status not in TRY_AGAIN
            raise (Undeliverable if final else NotDelivered)(f"apprise, {service}: it answers {status}")
        raise NotDelivered(f"apprise, {service}: it was not delivered")

    def _written(self, message: Message) -> dict[str, str]:
        first, _, more = message.text.partition("\n")
        about = [f"Controller: {self.source}"]
        about += [f"Host: {message.host}"] if message.host else []
        if message.incident is not None:
            about.append(f"Incident: {message.incident}  (ha-controller incidents show {message.incident})")
        title = f"[ha-controller] {message.severity.upper()} {one_line(first, characters_max=TITLE_MAX)}"
        kind = "success" if message.ends else KINDS.get(message.severity, "failure")
        body = "\n".join([first, *more.splitlines(), "", message.next_step, "", *about])
        return {"title": title, "body": body, "kind": kind}


def _told(output: str) -> dict[str, Any] | None:
    """The last line of the process: services may print."""
    try:
        told = json.loads(output.strip().rpartition("\n")[2])
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


@hookimpl
def ha_controller_notifiers() -> Sequence[type[Notifier[Any]]]:
    """Register the notifier."""
    return [Apprise]
