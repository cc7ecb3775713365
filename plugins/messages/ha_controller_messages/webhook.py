"""Posts each message as JSON to a URL of yours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr

from ha_controller.plugin import Message, Notifier, NotifierConfig, hookimpl
from ha_controller_messages.post import Poster, SecretUrl


class WebhookConfig(NotifierConfig):
    """Where to post, and how to log in."""

    url: SecretUrl
    token: SecretStr | None = None  #: sent as "Authorization: Bearer ..."
    ca_file: Path | None = Field(default=None, description="CAs to trust beside the system's")


class Webhook(Notifier[WebhookConfig]):
    """Posts each message as JSON: schema, source, at, severity, host, incident, text, next_step, ends, trail."""

    kind = "webhook"
    config_model = WebhookConfig
    groups = False

    def __init__(self, config: WebhookConfig, source: str) -> None:
        """Keep the settings."""
        super().__init__(config, source)
        self._poster = Poster(config.url, ca_file=config.ca_file)

    async def tell(self, message: Message) -> None:
        """Post it."""
        token = self.config.token
        headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
        await self._poster.post(as_json(message, self.source), headers=headers)

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()


def as_json(message: Message, source: str) -> dict[str, Any]:
    """A message for programs; `at` is in seconds since 1970."""
    return {
        "schema": "ha-controller/message/v1",
        "source": source,
        "at": round(message.at, 3),
        "severity": message.severity,
        "host": message.host,
        "incident": message.incident,
        "text": message.text,
        "next_step": message.next_step,
        "ends": message.ends,
        "trail": message.trail,
    }


@hookimpl
def ha_controller_notifiers() -> Sequence[type[Notifier[Any]]]:
    """Register the notifier."""
    return [Webhook]
