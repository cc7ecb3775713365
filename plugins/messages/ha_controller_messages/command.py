"""Runs a program of yours for each message: for SMS gateways, sirens, ticket systems."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ha_controller.plugin import Message, NotDelivered, Notifier, NotifierConfig, hookimpl, one_line
from ha_controller.process import run
from ha_controller_messages.webhook import as_json


def _is_a_program(command: tuple[str, ...]) -> tuple[str, ...]:
    path = Path(command[0])
    if not path.is_absolute() or not path.is_file() or not os.access(path, os.X_OK):
        raise ValueError(f"{path} is no program that we may run. Write its whole path, then its arguments")
    return command


class CommandConfig(NotifierConfig):
    """The program."""

    command: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_is_a_program)]


class Command(Notifier[CommandConfig]):
    """Runs a program with the message as JSON on its standard input; exit code 0 says that it was delivered."""

    kind = "command"
    config_model = CommandConfig
    groups = False

    async def tell(self, message: Message) -> None:
        """Run it."""
        name = Path(self.config.command[0]).name
        try:
            ended = await run(self.config.command, json.dumps(as_json(message, self.source)) + "\n")
        except OSError as error:
            raise NotDelivered(f"{name} cannot be started: {error.strerror}") from None
        if ended.status != 0:
            said = one_line(ended.errors or ended.output)
            raise NotDelivered(f"{name} ended with {ended.status}{f': {said}' if said else ''}")


@hookimpl
def ha_controller_notifiers() -> Sequence[type[Notifier[Any]]]:
    """Register the notifier."""
    return [Command]
