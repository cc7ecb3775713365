"""Commands whose modules are imported when they are called: `--help` names them all and imports none.

A table says of each command where it is and what it does in one line; tests/cli/test_deferred.py holds that line
against the command's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import click


class Deferred(MutableMapping[str, click.Command]):
    """Commands by their names. Names are known at once, a command is imported when it is looked up."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """`places`: "module:command" by name."""
        self._places = dict(places)
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        """Import it, the first time."""
        if name not in self._loaded:
            module, _, attribute = self._places[name].partition(":")
            import importlib

            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        """Put one that is there already."""
        self._places.setdefault(name, "")
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        """Take one out."""
        del self._places[name]
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)


class DeferredGroup(click.Group):
    """A group that tells of its commands without importing them. `table`: place and one line, by name."""

    def __init__(self, name: str | None = None, *, table: Mapping[str, tuple[str, str]], **more: Any) -> None:
        commands = Deferred({name: place for name, (place, _) in table.items()})
        super().__init__(name, commands, **more)
        self.summaries = {name: summary for name, (_, summary) in table.items()}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, by our table."""
        limit = formatter.width - 6 - max(map(len, self.summaries))
        rows = [(name, self._short(name, limit)) for name in sorted(self.summaries)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """As click does, by our table: a person waits for it at every press of Tab."""
        from click.shell_completion import CompletionItem

        names = [name for name in sorted(self.summaries) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=self._short(name, 45)) for name in names), *options]

    def _short(self, name: str, limit: int) -> str:
        return click.Command(name, help=self.summaries[name]).get_short_help_str(limit)
