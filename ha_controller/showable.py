"""Makes text of others safe to show: devices, hosts and owners of VMs put into it what they like.

Control characters move a terminal's cursor and colour its lines, line breaks forge lines of a log, and marks of the
direction of writing turn what stands there around. Letters of all scripts stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

#: C0 without the line feed, DEL, C1, separators of lines and paragraphs, direction marks, the byte order mark
UNSAFE: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def one_line(text: str, *secrets: str, characters_max: int = 200) -> str:
    """Return what a device said as one short line that is safe to show: no secret, no control character."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:characters_max]


def without_escapes(text: str) -> str:
    """Return a text with all its lines, and nothing in them that a terminal would obey."""
    return UNSAFE.sub("?", text)


def safe(text: object) -> str:
    """Text from elsewhere without terminal escapes or other control characters, on one line."""
    return without_escapes(str(text)).replace("\n", " ")


def status_lines(answer: Any) -> Iterator[str]:
    """The answer of `/api/v1/status` for people with a terminal."""
    yield safe(answer["verdict"])
    hosts = answer["hosts"]
    counts = "   ".join(f"{hosts[state]} {state}" for state in ("ok", "suspect", "failed", "fenced", "recovered"))
    others = f"stands by: {safe(answer['leader'])} leads" if answer["leader"] else "does not lead"
    lead = f"leads, term {answer['term']}" if answer["term"] is not None else others
    oned = f"oned answered {answer['oned_age_s']} s ago" if answer["oned_age_s"] is not None else "oned: no answer yet"
    yield ""
    yield f"  mode {answer['mode']}     {lead}     {oned}"
    yield f"  hosts {hosts['total']}:  {counts}   ({answer['excluded']} excluded)"
    if answer["paused_until"] is not None:
        moment = datetime.fromtimestamp(answer["paused_until"], UTC)
        yield f"  the pause ends by itself at {moment:%Y-%m-%d %H:%M:%S} UTC"
    if answer["settling_s"]:
        yield f"  settling: nothing is powered off for {answer['settling_s']} s"
