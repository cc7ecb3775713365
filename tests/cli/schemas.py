"""What a command prints as JSON, held against its schema: every key must be there, with its type, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import click
import jsonschema_rs

from ha_controller.app.printed import schema_of
from ha_controller.cli.main import commands

Json = Any


@cache
def _validator(command: str) -> Any:
    return jsonschema_rs.Draft202012Validator(schema_of(command, strict=True))


def faults(command: str, document: Json) -> list[str]:
    """What does not fit, each with its place."""
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message[:300]}"
        for error in _validator(command).iter_errors(document)
    ]


def printing_json(group: click.Group = commands, words: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command of the tree that can print JSON."""
    for name, command in sorted(group.commands.items()):
        path = (*words, name)
        if any(_offers_json(parameter) for parameter in command.params):
            yield " ".join(path)
        if isinstance(command, click.Group):
            yield from printing_json(command, path)


def _offers_json(parameter: click.Parameter) -> bool:
    return isinstance(parameter.type, click.Choice) and "json" in parameter.type.choices
