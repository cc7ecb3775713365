"""Posts to a channel of Slack, Mattermost or Rocket.Chat."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator

from ha_controller.plugin import Message, NotDelivered, Notifier, NotifierConfig, Undeliverable, hookimpl, one_line
from ha_controller_messages.post import Poster, SecretUrl

SIGNS = {"info": ":information_source:", "warning": ":warning:", "critical": ":rotating_light:"}
THREADS_MAX = 1000
#: what Slack says with status 200 and may take back
PASSING = ("ratelimited", "rate_limited", "internal_error", "fatal_error", "request_timeout", "service_unavailable")


class SlackConfig(NotifierConfig):
    """An incoming webhook; or, for a thread for each incident, a bot's token and its channel."""

    url: SecretUrl = Field(SecretStr("https://slack.com/api"), description="of the incoming webhook")
    token: SecretStr | None = Field(None, description="of a bot with the right chat:write")
    channel: str = Field("", description="id of the channel that the bot writes to")
    ca_file: Path | None = Field(None, description="CAs to trust beside the system's")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.token is None) != (not self.channel):
            raise ValueError("token and channel go together")
        if self.token is None and "url" not in self.model_fields_set:
            raise ValueError("is missing: url of the incoming webhook, or token and channel of a bot")
        return self


class Slack(Notifier[SlackConfig]):
    """Writes to a channel; with a bot's token, one thread for each incident."""

    kind = "slack"
    config_model = SlackConfig

    def __init__(self, config: SlackConfig, source: str) -> None:
        """Keep the settings."""
        super().__init__(config, source)
        self._poster = Poster(config.url, ca_file=config.ca_file)
        self._threads: OrderedDict[int, str] = OrderedDict()  #: incident -> its first message

    async def tell(self, message: Message) -> None:
        """Post it."""
        text = _escaped(f"{message.text}\n{message.next_step}")
        body: dict[str, Any] = {"text": f"{SIGNS.get(message.severity, '')} *{message.severity.upper()}* {text}"}
        if self.config.token is None:
            await self._poster.post(body)
        else:
            await self._post_as_bot(message, body, self.config.token)

    async def _post_as_bot(self, message: Message, body: dict[str, Any], token: SecretStr) -> None:
        thread = self._threads.get(-1 if message.incident is None else message.incident)
        loud = message.severity == "critical" or message.ends
        body |= {"channel": self.config.channel}
        if thread is not None:
            body |= {"thread_ts": thread, "reply_broadcast": loud}
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"}
        answer = _document(await self._poster.post(body, path="chat.postMessage", headers=headers))
        if answer.get("ok") is not True:
            why = one_line(str(answer.get("error", "no reason given")), token.get_secret_value())
            raise (NotDelivered if why in PASSING else Undeliverable)(f"Slack refuses it: {why}")
        if message.incident is not None and thread is None and isinstance(answer.get("ts"), str):
            self._threads[message.incident] = answer["ts"]
            if len(self._threads) > THREADS_MAX:
                self._threads.popitem(last=False)

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()


def _escaped(text: str) -> str:
    """A name of a host or a VM must not become a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _document(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        raise NotDelivered("Slack's answer is no JSON") from None
    return found if isinstance(found, dict) else {}


@hookimpl
def ha_controller_notifiers() -> Sequence[type[Notifier[Any]]]:
    """Register the notifier."""
    return [Slack]
