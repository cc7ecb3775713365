"""Pages through PagerDuty's Events API v2: one page for each incident, which resolves itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr

from ha_controller.plugin import Message, Notifier, NotifierConfig, hookimpl
from ha_controller_messages.post import Poster, SecretUrl

SUMMARY_MAX = 1024  #: PagerDuty's own limit


class PagerDutyConfig(NotifierConfig):
    """The integration to page."""

    routing_key: SecretStr = Field(description="of an integration of the kind Events API v2")
    url: SecretUrl = SecretStr("https://events.pagerduty.com/v2/enqueue")
    ca_file: Path | None = Field(None, description="CAs to trust beside the system's")


class PagerDuty(Notifier[PagerDutyConfig]):
    """One page for each incident; resolved when nobody has to care for it any more."""

    kind = "pagerduty"
    config_model = PagerDutyConfig
    groups = False

    def __init__(self, config: PagerDutyConfig, source: str) -> None:
        """Keep the settings."""
        super().__init__(config, source)
        self._poster = Poster(config.url, ca_file=config.ca_file)

    async def tell(self, message: Message) -> None:
        """Trigger or resolve."""
        body: dict[str, Any] = {
            "routing_key": self.config.routing_key.get_secret_value(),
            "event_action": "resolve" if message.ends else "trigger",
            "dedup_key": self._key(message),
        }
        if not message.ends:
            body["payload"] = {
                "summary": f"{message.text}. {message.next_step}"[:SUMMARY_MAX],
                "source": message.host or self.source,
                "severity": message.severity if message.severity in ("info", "warning") else "critical",
                "timestamp": datetime.fromtimestamp(message.at, UTC).isoformat(),
                "component": "ha-controller",
                "custom_details": {"incident": message.incident, "controller": self.source},
            }
        await self._poster.post(body)

    def _key(self, message: Message) -> str:
        """The same for all that belongs together."""
        if message.incident is not None:
            return f"ha-controller/{self.source}/{message.incident}"
        about = hashlib.sha256(f"{message.host} {message.text}".encode()).hexdigest()[:16]
        return f"ha-controller/{self.source}/{about}"

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()


@hookimpl
def ha_controller_notifiers() -> Sequence[type[Notifier[Any]]]:
    """Register the notifier."""
    return [PagerDuty]
