"""Makes text of others safe to show: devices, hosts and owners of VMs put into it what they like.

Control characters move a terminal's cursor and colour its lines, line breaks forge lines of a log, and marks of the
direction of writing turn what stands there around. Letters of all scripts stay.
"""

from __future__ import annotations

import re
from typing import Final

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
