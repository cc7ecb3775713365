"""Which hosts are meant: names, ids, lists (`kvm-01,kvm-02`), ranges of ids (`1..4,7`), globs (`kvm-0*`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from ha_controller.cli import client, show

Json = Any

NO_SUCH, USAGE = client.NO_SUCH, 2
COMPLETION_MAX_S = 0.2  #: then nothing is completed: a person waits for the next key
RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
GLOB = re.compile(r"[*?\[]")
PLAIN = re.compile(r"[\w.:@-]+", re.ASCII)  #: names that no shell takes for anything else; others are not completed


def pick(words: Sequence[str], rows: Sequence[Json]) -> list[Json]:
    """The rows that the words name, each once, in the order of the words.

    Raises:
        Failure: a word names none, or more than one host has that name.
    """
    found: dict[int, Json] = {}
    for word in words:
        for row in _named(word, rows):
            found.setdefault(row["id"], row)
    return list(found.values())


def _named(word: str, rows: Sequence[Json]) -> list[Json]:
    """A name goes before what a word could mean otherwise, as hosts are named as their owners like."""
    if named := _exactly(word, rows):
        return named
    if "," in word:
        named = [row for part in word.split(",") if part for row in _named(part, rows)]
    elif span := RANGE.fullmatch(word):
        named = [row for row in rows if int(span[1]) <= row["id"] <= int(span[2])]
    elif GLOB.search(word):
        from fnmatch import fnmatchcase

        named = [row for row in rows if fnmatchcase(row["name"], word)]
    if not named:
        raise client.Failure(NO_SUCH, f"There is no host {word} in OpenNebula.{_near(word, rows)}")
    return named


def _exactly(word: str, rows: Sequence[Json]) -> list[Json]:
    named = [row for row in rows if row["name"] == word] or [row for row in rows if str(row["id"]) == word]
    if len(named) > 1:
        ids = ", ".join(str(row["id"]) for row in named)
        raise client.Failure(USAGE, f"{len(named)} hosts are called {word} (ids {ids}). Name one by its id.")
    return named


def _any(word: str, rows: Sequence[Json], also: str) -> list[Json]:
    try:
        return pick([word], rows)
    except client.Failure as failure:
        text = failure.text.replace("There is no host", f"There is no host{also}", 1)
        raise client.Failure(failure.code, text) from None


def _near(word: str, rows: Sequence[Json]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, [row["name"] for row in rows], n=1)
    return f" Did you mean {near[0]}?" if near else " See: ha-controller hosts"


def hosts_named(words: Sequence[str]) -> list[Json]:
    """Their rows; asks the controller."""
    return pick(words, client.request("GET", "/api/v1/hosts"))


def names_of(words: Sequence[str]) -> list[str]:
    """Their names; asks the controller."""
    return [row["name"] for row in hosts_named(words)]


def named_exactly(word: str) -> bool:
    """Whether a host has this name, or this id; asks the controller."""
    return bool(_exactly(word, client.request("GET", "/api/v1/hosts")))


def one_host(word: str, *, also: str = "") -> str:
    """The name of the one host that has this name, or this id; asks the controller.

    `also`: what else was looked for and not found, for what is said if there is none.

    A pattern that fits one host today may fit another one tomorrow, so it names none.
    """
    rows = client.request("GET", "/api/v1/hosts")
    found = _exactly(word, rows) or _any(word, rows, also)
    names = [row["name"] for row in found]
    if not _exactly(word, rows):
        fits = f"{word} is {len(names)} host{'s' if len(names) > 1 else ''} ({', '.join(names[:5])})"
        raise client.Failure(USAGE, f"{fits}. This takes one at a time: say its name or id.")
    return str(names[0])


# --- completion -------------------------------------------------------------------------------------------------------


def complete_hosts(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of hosts as the running controller has them; their states beside them, where the shell shows that."""
    del parameter
    before, comma, begun = incomplete.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{row['name']}", help=str(row["state"]).upper())
        for row in _asked(context, "/api/v1/hosts")
        if row["name"].startswith(begun) and PLAIN.fullmatch(row["name"])
    ]


def complete_incidents(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Numbers of incidents, newest first."""
    del parameter
    return [
        CompletionItem(str(row["id"]), help=show.safe(f"{row['host_name']} {row['state'].upper()}"))
        for row in _asked(context, "/api/v1/incidents")
        if str(row["id"]).startswith(incomplete)
    ]


def complete_pending(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Numbers of incidents that wait for a person."""
    del parameter
    return [
        CompletionItem(str(row["id"]), help=show.safe(row["host"]))
        for row in _asked(context, "/api/v1/pending")
        if str(row["id"]).startswith(incomplete)
    ]


def _asked(context: click.Context, path: str) -> list[Json]:
    """An answer of the controller within `COMPLETION_MAX_S`, else nothing: completion never waits and never complains.

    The alarm bounds all of it, whatever the answer comes through.
    """
    import signal

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, COMPLETION_MAX_S)
    try:
        with context.scope(cleanup=False):
            answer = client.request("GET", path)
        return answer if isinstance(answer, list) else []
    except (client.Failure, OSError):
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


host_argument = click.argument("host", shell_complete=complete_hosts)
hosts_argument = click.argument("hosts", nargs=-1, required=True, metavar="HOST...", shell_complete=complete_hosts)
some_hosts_argument = click.argument("hosts", nargs=-1, metavar="[HOST...]", shell_complete=complete_hosts)
