"""Reads what controllers share in OpenNebula, for the checkers: by its form, and not by the code that writes it."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

Texts = dict[str, str]


def texts_in(user: Mapping[str, Any], hosts: Mapping[int, Mapping[str, Any]]) -> Texts:
    """The texts that count: those on the user, and of each open incident what stands under the name that counts.

    `written` is made of what stands around them, as etcd has it. An incident that somebody has changed is left out.
    """
    line = str(user.get("HA_RECORD", ""))
    if not line:
        return {}
    _, number, term, _, packed, _ = line.split(" ")
    about = _unpacked(packed)
    texts: Texts = {**about["texts"], "written": json.dumps({"number": int(number), "term": int(term)})}
    for incident, (host, slot, _) in about["incidents"].items():
        block = hosts.get(host, {}).get(f"HA_RECORD_{slot}", "")
        texts |= {key: text for key, text in (_unpacked(block) if block else {}).items() if _is_of(key, incident)}
    return texts


def _is_of(key: str, incident: str) -> bool:
    return key == f"incident/{incident}" or key.startswith(f"incident/{incident}/")


def _unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))
