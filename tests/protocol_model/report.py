"""What the model shows, as the page docs/protocol-model.md.

make model                     # look at every state, say whether the page is up to date
make model ARGS=--accept       # write it anew; read the diff
"""

from __future__ import annotations

import gc
import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from protocol_model import oned_store
from protocol_model.checker import Checker, Result
from protocol_model.protocol import Faults, Protocol, Rules, World, broken, has_outcome

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "protocol-model.md"
RIGHT = Rules()

#: what may happen in each, and how often
WORLDS = {
    "lies": Faults(silence=1, ignored=1, stale=1, crash=1),
    "people": Faults(silence=1, power_on=1, hiccup=1, crash=1),
    "lies and people": Faults(silence=2, power_on=1, stale=1),
    "power": Faults(power_cut=1, power_on=1, crash=1),
    "flapping": Faults(silence=2, lead_lost=1),
    "take-over": Faults(silence=1, power_on=1, lead_lost=1),
}
SHARED = replace(RIGHT, record_is_shared=True)
#: the same, with a shared record
SHARED_WORLDS = {
    "shared, killed": Faults(silence=1, power_on=1, crash=1),
    "shared, frozen": Faults(silence=1, lead_lost=1),
}
ALL_WORLDS = {**dict.fromkeys(WORLDS, RIGHT), **dict.fromkeys(SHARED_WORLDS, SHARED)}  #: and the rules in each


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The protocol with something left out, and what must come of it."""

    name: str
    rule: int  #: of docs/protocol.md
    rules: Rules
    world: str
    breaks: str


def faults(world: str) -> Faults:
    """What may happen in a world."""
    return {**WORLDS, **SHARED_WORLDS}[world]


def _variant(name: str, rule: int, world: str, breaks: str, *off: str) -> Variant:
    rules = replace(ALL_WORLDS[world], **dict.fromkeys(off, False))
    return Variant(name=name, rule=rule, rules=rules, world=world, breaks=breaks)


VARIANTS = (
    _variant("record after the order", 1, "lies", "D1", "record_comes_first"),
    _variant("record in memory only", 1, "lies", "D1", "record_survives"),
    _variant("no look at the lead before an effect", 2, "take-over", "G2", "lead_is_proven"),
    _variant("orders do not expire", 3, "lies", "S2", "orders_expire"),
    _variant("deadlines count from the answer", 3, "lies", "S2", "age_counts_from_the_question"),
    _variant("\"already off\" is believed, nothing is sent", 4, "lies", "S3", "off_is_always_sent"),
    _variant("an acknowledgement counts as off", 5, "lies", "S3", "order_is_read_back"),
    _variant("one reading of OFF is enough", 5, "lies", "S3", "off_is_read_twice"),
    _variant("an attempt that is not verified is the last, and nobody is told", 6, "lies", "L1", "unverified_goes_on"),
    _variant("the proof is not read again before a move", 7, "people", "S3", "proof_is_read_again"),
    _variant("one reading renews a proof after a gap", 7, "lies and people", "S3", "gap_is_bridged_by_two"),
    _variant("a destination is chosen anew at every try", 8, "lies", "D1", "destination_is_kept"),
    _variant("a lost move is repeated without a look", 9, "people", "S1", "vm_is_looked_at"),
    _variant("after a restart a move is ordered at once", 10, "lies", "D1", "restart_waits"),
    _variant("an accepted move counts as done", 11, "lies", "L0", "running_is_seen"),
    _variant("given back before its VM has an outcome", 12, "people", "L0", "outcome_comes_first"),
    _variant("given back as soon as it answers", 12, "lies", "D1", "release_waits"),
    _variant("a new leader acts at once", 13, "flapping", "G2", "new_leader_settles"),
    _variant("a take-over from the beginning, at once", 13, "take-over", "G2", "new_leader_settles", "takeover_asks"),
    _variant("the shared record is written after the order", 15, "shared, killed", "D1", "shared_comes_first"),
    _variant("the shared record is written whoever leads", 15, "shared, frozen", "D2", "shared_compares_term"),
    _variant("a new leader begins with its own record", 16, "shared, killed", "D2", "takeover_reads"),
)  # fmt: skip

#: what the protocol is not safe against: each is a fact about it as it is
LIMITS = {
    "an order that has its effect at any time after its last check": (
        WORLDS["take-over"], replace(RIGHT, calls_end=False), "S2"
    ),
    "a host that starts by itself, at power-on, the VMs it had": (
        WORLDS["take-over"], replace(RIGHT, hosts_start_nothing=False), "S1"
    ),
}  # fmt: skip

#: the model stays safe without it, because in it every call ends in time
SPARE = ("takeover_asks",)


#: the record in OpenNebula: what may happen in each world
STORES = {
    "killed": oned_store.Faults(killed=2, moved=2, unanswered=1),
    "cut off": oned_store.Faults(killed=1, unanswered=1, cut_off=1),
    "lost and edited": oned_store.Faults(killed=1, moved=1, lost=1, edited=1),
    "mixed versions": oned_store.Faults(killed=1, moved=2, unanswered=1, old_version=1),
}
#: (what is done instead, without which rule, in which world, what it breaks)
STORE_VARIANTS = (
    ("an incident is written over the one that counts", "has_two_names", "killed", "R2"),
    ("what makes it count is written first", "incident_comes_first", "killed", "R2"),
    ('a "true" counts as written', "majority_is_asked", "cut off", "D1"),
    ("the line on the user is seen at a majority, the hosts are not", "hosts_are_seen_too", "lost and edited", "D1"),
    ("what stands on a host is not compared with its digest", "digest_is_compared", "lost and edited", "R1"),
    ("after a write without an answer the same term writes on", "unanswered_is_the_last", "killed", "D2"),
    ("a new leader revokes no token", "tokens_are_revoked", "killed", "D2"),
    ("the first proof does not take the record over", "proof_takes_over", "killed", "R2"),
    ("nobody looks who proved a lead last", "prover_is_compared", "mixed versions", "R1"),
)
STORE_LIMIT = ("somebody puts an older line on the user back, and its incident still stands there", "D2")


def look(given: Faults, rules: Rules) -> Result:
    """Every state of the protocol by these rules in a world with these faults."""
    model = Protocol(rules)
    with _no_circles():
        return Checker(first=World(faults=given), steps=model.steps, broken=broken, goal=has_outcome).run()


def look_at_store(given: oned_store.Faults, *without: str) -> Result:
    """Every state of the record in OpenNebula, without some of its rules."""
    model = oned_store.Record(replace(oned_store.Rules(), **dict.fromkeys(without, False)))
    first = oned_store.World(faults=given)
    with _no_circles():
        return Checker(first=first, steps=model.steps, broken=lambda _: "", goal=oned_store.goes_on).run()


@contextmanager
def _no_circles() -> Iterator[None]:
    """Nothing in a model goes in circles, and all of it is kept."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@cache
def right() -> dict[str, Result]:
    """The protocol, in each world."""
    return {name: look(faults(name), rules) for name, rules in ALL_WORLDS.items()}


@cache
def naive() -> dict[str, Result]:
    """Its variants."""
    return {variant.name: look(faults(variant.world), variant.rules) for variant in VARIANTS}


@cache
def beyond() -> dict[str, Result]:
    """The protocol in worlds that it was not made for."""
    return {name: look(given, rules) for name, (given, rules, _) in LIMITS.items()}


@cache
def right_store() -> dict[str, Result]:
    """The record in OpenNebula, in each world."""
    return {name: look_at_store(given) for name, given in STORES.items()}


@cache
def naive_store() -> dict[str, Result]:
    """Its variants, and what it is not safe against."""
    found = {name: look_at_store(STORES[world], rule) for name, rule, world, _ in STORE_VARIANTS}
    return {**found, STORE_LIMIT[0]: look_at_store(oned_store.Faults(killed=1, put_back=1))}


def _faults(given: Faults | oned_store.Faults) -> str:
    words = [f"{name.replace('_', ' ')}{f' ({times} times)' if times > 1 else ''}" for name, times in
             zip(given._fields, given, strict=True) if times]  # fmt: skip
    return ", ".join(words)


def _story(result: Result) -> list[str]:
    """A numbered list; time that passes in one go is one line."""
    lines = []
    for told, same in itertools.groupby(result.story):
        times = len(list(same))
        lines.append(f"{told}, {times} ticks" if times > 1 else told)
    return [f"{number}. {line}" for number, line in enumerate(lines, start=1)]


_STORIES = ("## The shortest stories", "", "C1 and C2 are the controllers, A is the host, B and C may take its VM.")


def _of_store() -> list[str]:
    """The record in OpenNebula: worlds, variants, limit."""
    lines = ["", "## The record in OpenNebula", "", "| world | what may happen | states |", "|---|---|---|"]
    lines += [f"| {name} | {_faults(STORES[name])} | {result.states:,} |" for name, result in right_store().items()]
    lines += ["", "| instead | breaks | steps | world |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {naive_store()[name].broken} | {len(naive_store()[name].story)} | {world} |"
        for name, _, world, _ in STORE_VARIANTS
    ]
    limit = naive_store()[STORE_LIMIT[0]]
    return [*lines, "", f"Not safe against: {STORE_LIMIT[0]} ({limit.broken}, {len(limit.story)} steps)."]


def page() -> str:
    """The whole page."""
    lines = [
        "# What the model of the protocol shows",
        "",
        "Written by `make model ARGS=--accept`; a test looks at every state again and compares. The protocol, what the",
        "invariants mean, and what the model leaves out: [the protocol](protocol.md).",
        "",
        "## As it is, it is safe and live in",
        "",
        "| world | what may happen, once if nothing else is said | states |",
        "|---|---|---|",
    ]
    results = right()
    lines += [f"| {name} | {_faults(faults(name))} | {results[name].states:,} |" for name in ALL_WORLDS]
    lines += [f"| all | | {sum(result.states for result in results.values()):,} |", ""]
    lines += ["## Naive variants", "", "| variant | without rule | breaks | steps | world |", "|---|---|---|---|---|"]
    for variant in VARIANTS:
        result = naive()[variant.name]
        row = f"| {variant.name} | {variant.rule} | {result.broken} | {len(result.story)} | {variant.world} |"
        lines.append(row)
    lines += ["", "## What it is not safe against", "", "| what | breaks | steps |", "|---|---|---|"]
    lines += [f"| {name} | {result.broken} | {len(result.story)} |" for name, result in beyond().items()]
    lines += [*_of_store(), "", *_STORIES]
    for name, result in {**naive(), **beyond(), **naive_store()}.items():
        lines += ["", f"### {name[0].upper()}{name[1:]}: {result.broken}", "", *_story(result)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the figures; write the page or say whether it is up to date."""
    begun = time.monotonic()
    text = page()
    print(text.partition("## The shortest stories")[0])
    print(f"{time.monotonic() - begun:.0f} s")
    if "--accept" in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        print(f"{PAGE.relative_to(ROOT)} is not up to date: make model ARGS=--accept")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
