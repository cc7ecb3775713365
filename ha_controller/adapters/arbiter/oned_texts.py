"""What the record of a zone's leader looks like in OpenNebula: on our user, and an incident on its host.

It must never take what somebody changed for what was written. It reads and writes nothing itself (`oned_record` does).
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, TypeVar

from ha_controller.adapters.arbiter.claim import Claim
from ha_controller.adapters.opennebula import OnedUser
from ha_controller.lead import incident_of
from ha_controller.plugin import ArbiterUnreachable

RECORD = "HA_RECORD"  #: attribute of our OpenNebula user
SLOTS = ("HA_RECORD_0", "HA_RECORD_1")  #: attributes of a host
FOR_PEOPLE = "HA_INCIDENT"  #: attribute of a host
VERSION = 1  #: of all of this
UNPACKED_MAX = 64 << 20

Texts = dict[str, str]
Text = TypeVar("Text", bound=str | None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an incident stands."""

    host: int
    slot: int
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What stands on our user. No two writes make the same of it."""

    number: int = 0  #: of writes so far
    term: int = 0  #: in which it was written, or taken over: the record has all that was ordered until then
    instance: str = ""  #: whose term that is
    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  #: of no incident
    places: Mapping[int, Place] = field(default_factory=lambda: MappingProxyType({}))  #: of each open incident

    def __str__(self) -> str:
        """As it stands in OpenNebula; nothing before the first write."""
        if not self.number:
            return ""
        places = {str(number): [each.host, each.slot, each.digest] for number, each in self.places.items()}
        about = packed({"texts": dict(self.texts), "incidents": places})
        line = f"{VERSION} {self.number} {self.term} {self.instance} {about}"
        return f"{line} {digest_of(line)}"

    @classmethod
    def of(cls, user: OnedUser) -> Written:
        """What stands on the user.

        Raises:
            ArbiterUnreachable: a newer version has written it: then it is not ours to lead.
            Damaged: it is not as any leader wrote it.
        """
        text = user.template.get(RECORD, "")
        if not text:
            return cls()
        line, _, digest = text.rpartition(" ")
        if digest != digest_of(line):
            raise Damaged(f"{RECORD} of the OpenNebula user {user.name} was changed by somebody")
        version, *fields = line.split(" ")
        if not version.isdecimal() or int(version) > VERSION:
            raise ArbiterUnreachable(
                f"a newer ha-controller has written {RECORD} on the OpenNebula user {user.name} (version "
                f"{version[:9]}, this one knows up to {VERSION}): this one cannot lead. Install the newer version here"
            )
        try:
            number, term, instance, text = fields
            about = unpacked(text)
            places = {
                int(incident): Place(host=host, slot=slot, digest=digest)
                for incident, (host, slot, digest) in about["incidents"].items()
            }
            return cls(number=int(number), term=int(term), instance=instance, texts=about["texts"], places=places)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{RECORD} of the OpenNebula user {user.name} is none of ours") from error


class Damaged(Exception):
    """What stands there is not as it was written."""


def incident_in(attributes: Mapping[str, str] | None, number: int, place: Place) -> Texts:
    """What stands on its host. Raises Damaged."""
    if attributes is None:
        gone = "is not in OpenNebula, or our user has no right to it"
        raise Damaged(f"host {place.host}, on which incident {number} stood, {gone}")
    block = attributes.get(SLOTS[place.slot], "")
    if digest_of(block) != place.digest:
        what = "was changed by somebody" if block else "was removed by somebody"
        raise Damaged(f"incident {number} on host {place.host} ({SLOTS[place.slot]}) {what}")
    found: Texts = unpacked(block)
    return found


def by_incident_of(texts: Mapping[str, Text]) -> tuple[dict[int, dict[str, Text]], dict[str, Text]]:
    """What belongs to each incident, and what to none."""
    found, of_none = dict[int, dict[str, Text]](), dict[str, Text]()
    for key, text in texts.items():
        number = incident_of(key)
        (of_none if number is None else found.setdefault(number, {}))[key] = text
    return found, of_none


def in_words(number: int, head: Mapping[str, Any], claim: Claim) -> str:
    state = re.sub(r"\W", "", str(head["incident"]["state"]))
    return f"{number} {state}, VMs: {int(head['vms'])}. Written by {claim.name} in term {claim.term}"


def packed(value: object) -> str:
    """Of letters and digits that OpenNebula's templates take as they are."""
    return base64.b64encode(zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 6)).decode()


def unpacked(text: str) -> Any:
    """Of what has its digest, so we have packed it. Raises Damaged all the same."""
    try:
        unpacker = zlib.decompressobj()
        return json.loads(unpacker.decompress(base64.b64decode(text, validate=True), UNPACKED_MAX))
    except (ValueError, zlib.error, RecursionError) as error:
        raise Damaged(f"what is on record cannot be read ({type(error).__name__})") from error


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]
