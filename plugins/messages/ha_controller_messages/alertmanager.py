"""Posts alerts to Prometheus' Alertmanager, for sites that route everything there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import encode_basic_auth
from pydantic import Field, SecretStr

from ha_controller.plugin import Duration, Message, Notifier, NotifierConfig, duration_field, hookimpl
from ha_controller_messages.post import Poster, SecretUrl

ONCE_S = 3600.0  #: an alert that belongs to no incident has no end of its own
INCIDENTS_MAX = 1000


class AlertmanagerConfig(NotifierConfig):
    """The Alertmanager; of a cluster, one `[[notify]]` for each member."""

    url: SecretUrl = Field(description="without path, like http://alertmanager:9093")
    username: str = ""
    password: SecretStr | None = None
    lasts_s: Duration = duration_field("12h", key="lasts", longest="30d")
    """An alert whose end was never told (the controller was gone by then) ends after this."""
    ca_file: Path | None = Field(None, description="CAs to trust beside the system's")


class Alertmanager(Notifier[AlertmanagerConfig]):
    """One alert for each incident and severity, which ends with the incident."""

    kind = "alertmanager"
    config_model = AlertmanagerConfig
    groups = False

    def __init__(self, config: AlertmanagerConfig, source: str) -> None:
        """Keep the settings."""
        super().__init__(config, source)
        self._poster = Poster(config.url, ca_file=config.ca_file)
        self._open: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()  #: incident -> its alerts

    async def tell(self, message: Message) -> None:
        """Post the alert, or the end of all alerts of its incident."""
        began = self._open.get(-1 if message.incident is None else message.incident, [])
        if message.ends:
            over = {"endsAt": _moment(message.at)}
            alerts = [{**each, **over} for each in began] or [{**self._alert(message), **over}]
        else:
            alerts = [self._alert(message)]
        await self._poster.post(alerts, path="api/v2/alerts", headers=self._login())
        if message.incident is None:
            return
        if message.ends:
            self._open.pop(message.incident, None)
            return
        known = [each for each in began if each["labels"] != alerts[0]["labels"]]
        self._open[message.incident] = [*known, *alerts]
        if len(self._open) > INCIDENTS_MAX:
            self._open.popitem(last=False)

    def _alert(self, message: Message) -> dict[str, Any]:
        lasts_s = ONCE_S if message.incident is None else self.config.lasts_s
        labels = {
            "alertname": "HaControllerMessage" if message.incident is None else "HaControllerIncident",
            "severity": message.severity,
            "controller": self.source,
            "host": message.host,
            "incident": message.incident,
        }
        return {
            "labels": {name: str(value) for name, value in labels.items() if value is not None},
            "annotations": {"summary": message.text, "description": message.next_step},
            "startsAt": _moment(message.at),
            "endsAt": _moment(message.at + lasts_s),
        }

    def _login(self) -> dict[str, str]:
        if self.config.password is None:
            return {}
        return {"Authorization": encode_basic_auth(self.config.username, self.config.password.get_secret_value())}

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


@hookimpl
def ha_controller_notifiers() -> Sequence[type[Notifier[Any]]]:
    """Register the notifier."""
    return [Alertmanager]
