"""How answers are printed: as text for people, or in a form for programs, once or again and again.

A command says what it asks and how that looks; the forms are the same for all: `-o`, `-l`, `--no-header`, `-w`.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from ha_controller.cli import client, show

Json = Any

WATCH_EVERY_S = 2.0
HOME = "\x1b[H\x1b[J"  #: of a terminal: to the upper left corner, and all below is cleared


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a listing."""

    title: str
    value: Callable[[Json], object]
    wide: bool = False  #: shown with -o wide, -o csv and -l only
    cut: int | None = None  #: so many characters in a table; a wide one has them all
    #: its name and value in CSV, where they are others: durations as numbers, with the unit in the name; None: empty
    csv: tuple[str, Callable[[Json], object]] | None = None

    @property
    def for_programs(self) -> tuple[str, Callable[[Json], object]]:
        """Its name and value in CSV."""
        return self.csv or (self.title, self.value)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """An answer that is a list of things with names."""

    columns: Sequence[Column]
    name: Callable[[Json], object]  #: what `-o name` prints of each row
    empty: str = ""  #: what is said in place of an empty table
    rows: Callable[[Json], Sequence[Json]] = field(default=lambda answer: list(answer))
    as_text: Callable[[Sequence[Json]], None] | None = None  #: lines in place of a table, where columns say less


@dataclass(frozen=True, kw_only=True)
class Form:
    """The form that was asked for."""

    output: str
    watch: bool = False
    columns: tuple[str, ...] = ()
    header: bool = True

    def show(self, ask: Callable[[], Json], looks: Listing | Callable[[Json], None]) -> Json:
        """Print what `ask` gives, and return it; with `-w` again and again, until the command is interrupted."""
        if not self.watch:
            answer = ask()
            self._print(answer, looks)
            return answer
        while True:
            self._watch_once(ask, looks)
            time.sleep(WATCH_EVERY_S)

    def _watch_once(self, ask: Callable[[], Json], looks: Listing | Callable[[Json], None]) -> None:
        """A controller that does not answer, as while it is restarted, ends nothing."""
        try:
            answer = ask()
        except client.Failure as failure:
            click.echo(show.safe(failure.text), err=True)
            return
        if self.output == "json":
            show.as_json_line(answer)
        else:
            if sys.stdout.isatty():
                click.echo(f"{HOME}{show.clock(time.time())}   every {WATCH_EVERY_S:g} s, ended with Ctrl-C\n")
            elif self.output == "yaml":
                click.echo("---")
            self._print(answer, looks)
        sys.stdout.flush()

    def _print(self, answer: Json, looks: Listing | Callable[[Json], None]) -> None:
        match self.output:
            case "json":
                show.as_json(answer)
            case "yaml":
                show.as_yaml(answer)
            case "name" if isinstance(looks, Listing):
                for row in looks.rows(answer):
                    click.echo(show.safe(looks.name(row)))
            case _ if isinstance(looks, Listing):
                self._list(looks, looks.rows(answer))
            case _ if callable(looks):
                looks(answer)

    def _list(self, looks: Listing, rows: Sequence[Json]) -> None:
        if self.output == "table" and not rows and looks.empty:
            click.echo(looks.empty, err=True)
            return
        if self.output == "table" and looks.as_text is not None and not self.columns:
            looks.as_text(rows)
            return
        columns = _chosen(looks.columns, self.columns, wide=self.output in ("wide", "csv"))
        if self.output == "csv":
            fields = [column.for_programs for column in columns]
            names = [name for name, _ in fields] if self.header else None
            show.as_csv(names, [[value(row) for _, value in fields] for row in rows])
            return
        titles = [column.title for column in columns] if self.header else None
        cuts = [column.cut if self.output == "table" else None for column in columns]
        cells = [[_cell(column.value(row), cut) for column, cut in zip(columns, cuts, strict=True)] for row in rows]
        show.table(titles, cells)


def _cell(value: object, cut: int | None) -> object:
    return value if cut is None or isinstance(value, int) else show.safe(value)[:cut]


def _chosen(columns: Sequence[Column], names: Sequence[str], *, wide: bool) -> Sequence[Column]:
    if not names:
        return [column for column in columns if wide or not column.wide]
    known = {column.title: column for column in columns}
    titles = ", ".join(known)
    known |= {column.csv[0].upper(): column for column in columns if column.csv}
    if unknown := [name for name in names if name.upper() not in known]:
        raise client.Failure(2, f"There is no column {unknown[0]}. There are: {titles}")
    return [known[name.upper()] for name in names]


# --- options ----------------------------------------------------------------------------------------------------------


_Function = Callable[..., Any]
_watch = click.option("-w", "--watch", is_flag=True, help="Again every 2 s, until Ctrl-C.")


def document_options(function: _Function) -> _Function:
    """For a command that shows one thing: `-o table|json|yaml`, `-w`; it gets a `form`."""

    @click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print.")
    @_watch
    @functools.wraps(function)
    def command(*args: Any, output: str, watch: bool, **kwargs: Any) -> Any:
        return function(*args, form=Form(output=output, watch=watch), **kwargs)

    return command


def answer_options(function: _Function) -> _Function:
    """For a command that does something and shows what came of it: `-o table|json|yaml`; it gets a `form`."""

    @click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print.")
    @functools.wraps(function)
    def command(*args: Any, output: str, **kwargs: Any) -> Any:
        return function(*args, form=Form(output=output), **kwargs)

    return command


def listing_options(function: _Function) -> _Function:
    """For a command that lists things; it gets a `form`."""

    @click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "wide", "json", "yaml", "csv", "name"]),
        default="table",
        help="How to print.",
    )
    @click.option("-l", "--list", "columns", metavar="COLUMNS", default="", help="These columns, like NAME,STATE.")
    @click.option("--no-header", is_flag=True, help="No line with the names of the columns.")
    @_watch
    @functools.wraps(function)
    def command(*args: Any, output: str, columns: str, no_header: bool, watch: bool, **kwargs: Any) -> Any:
        names = tuple(name.strip() for name in columns.split(",") if name.strip())
        form = Form(output=output, watch=watch, columns=names, header=not no_header)
        return function(*args, form=form, **kwargs)

    return command
