"""What belongs to one host on the shared record: what is known of it, and each of its incidents.

An engine that needs several writes for one round keeps that together: which boot of a host is accounted for must never
be read without the incident that its VMs are in. It must never guess: what no host is known for stays by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TypeVar

from ha_controller.lead import incident_of

Text = TypeVar("Text", bound=str | None)

OF_NONE = ""  #: the name of what belongs to no host


def by_host(changes: Mapping[str, Text], known: Mapping[int, int]) -> dict[str, dict[str, Text]]:
    """What belongs to no host, and then what belongs to each, under a name for that; all in their order.

    `known`: incident -> its host, of those that are on record; those of `changes` say it themselves.
    """
    hosts = {**known, **hosts_of(changes)}
    found: dict[str, dict[str, Text]] = {OF_NONE: {}}
    for key, text in changes.items():
        found.setdefault(_name(key, hosts), {})[key] = text
    return found


def hosts_of(texts: Mapping[str, str | None]) -> dict[int, int]:
    """Incident -> its host, of those that stand there."""
    found: dict[int, int] = {}
    for key, text in texts.items():
        number = incident_of(key)
        if number is not None and text is not None and key == f"incident/{number}":
            host = _host_in(text)
            found |= {} if host is None else {number: host}
    return found


def _host_in(head: str) -> int | None:
    try:
        return int(json.loads(head)["incident"]["host"])
    except (ValueError, KeyError, TypeError):
        return None  # whoever reads it says what is wrong with it


def _name(key: str, hosts: Mapping[int, int]) -> str:
    number, trust = incident_of(key), re.fullmatch(r"trust/(\d+)", key)
    if number is not None:
        return f"host {hosts[number]}" if number in hosts else f"incident {number}"
    return f"host {int(trust[1])}" if trust else OF_NONE
