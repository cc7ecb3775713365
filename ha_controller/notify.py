"""The public interface of notifiers: ways to reach people. Plugins import it from `ha_controller.plugin`.

The controller queues, repeats and groups; a notifier delivers one message, or says that it could not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class NotDelivered(Exception):
    """A message may not have arrived. Its text must never contain a secret."""

    retryable = True


class Undeliverable(NotDelivered):
    """The other end refuses this message or this login: to repeat it cannot help."""

    retryable = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What people are told. Holds no secret and no control character but the line ends of a group."""

    at: float  #: unix seconds
    severity: str  #: "info", "warning" or "critical"
    host: str | None  #: its name
    incident: int | None
    text: str
    next_step: str  #: what happens next, and what the reader must do ("nothing" is an answer)
    ends: bool = False  #: nobody has to care for the incident any more
    trail: str = ""  #: the head of the audit trail, NUMBER:SEAL; kept elsewhere, it shows what is done to it later


class NotifierConfig(BaseModel):
    """Base of a notifier's own settings. Unknown keys are refused; secrets are `SecretStr`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


NotifierConfigT = TypeVar("NotifierConfigT", bound=NotifierConfig)


class Notifier(ABC, Generic[NotifierConfigT]):
    """Delivers messages one after the other; only that of `notify test` may come beside another.

    Deadlines, repetition and cancellation are the controller's. It must be safe to cancel at any await, must not block
    the event loop, and raises nothing but `NotDelivered`. A message may come twice: after a deadline it is sent again.
    """

    kind: ClassVar[str]  #: the name used in `notifier = "..."`; equals the entry-point name
    config_model: ClassVar[type[NotifierConfig]]
    groups: ClassVar[bool] = True  #: False: it wants each message by itself, also when many come at once

    def __init__(self, config: NotifierConfigT, source: str) -> None:
        """Keep the settings. No I/O here. `source` names this controller for people."""
        self.config = config
        self.source = source

    @abstractmethod
    async def tell(self, message: Message) -> None:
        """Deliver one message.

        Raises:
            Undeliverable: it is refused.
            NotDelivered: it may not have arrived.
        """

    async def close(self) -> None:
        """Close connections."""
        return


__all__ = ["Message", "NotDelivered", "Notifier", "NotifierConfig", "Undeliverable"]
