"""The lead by etcd: a key that one controller can make, on a lease that ends by itself when its holder falls silent.

Keys, below the prefix: `leader` (on the lease; exists while somebody leads), `term` (for good: the last term, whose it
was, and in which cluster of etcd), `members/INSTANCE` (on a lease of its own). Taking the lead is one transaction: if
`leader` is not there and `term` is what was read, both are written. Below `record/` is what the next leader has to know
(`etcd_record`).

It must never take a time-out for a proof, nor a keep-alive alone: an etcd member that was cut off or frozen may answer
one by itself for a moment, and a lease may outlive its time. So every renewal also reads `leader` through a quorum.
"""

from __future__ import annotations

import json
import math
import ssl
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

import anyio
from pydantic import Field, field_validator, model_validator

from ha_controller.adapters.arbiter.etcd_record import EtcdRecord, Written
from ha_controller.adapters.arbiter.gateway import NOT_FOUND, Gateway, Kept, Refused
from ha_controller.plugin import (
    Arbiter,
    ArbiterConfig,
    ArbiterContext,
    ArbiterUnreachable,
    Duration,
    Member,
    NotLeading,
    SecretStr,
    duration_field,
    one_line,
)

MARGIN_S = 2.0  #: our deadline is that much earlier than the lease: etcd's election time-out, and clocks that run apart
PRESENCE_S = 30  #: a controller that is gone is shown as a member for so long
PRESENCE_TIMEOUT_S = 1.0
RELEASE_TIMEOUT_S = 3.0
TERM_MAX = 2**62  #: so that the next ones fit into a database, too
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class EtcdConfig(ArbiterConfig):
    """How to reach etcd, and how long a lead lasts without a word of its holder."""

    endpoints: Annotated[tuple[str, ...], Field(min_length=1)]  #: client addresses of the members
    prefix: Annotated[str, Field(pattern=r"^/[\w./-]*\w$")] = "/ha-controller"  #: one for each cloud
    lease_s: Duration = duration_field("10s", key="lease", longest="5m")
    timeout_s: Duration = duration_field("1s", key="timeout", longest="10s")  #: of one request to one member
    username: str = ""
    password: SecretStr | None = None
    ca_file: Path | None = None  #: PEM, of the authority that signed the members; default: the system's
    cert_file: Path | None = None  #: PEM, ours
    key_file: Path | None = None

    @field_validator("endpoints")
    @classmethod
    def _are_addresses(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in endpoints:
            parts = urlsplit(endpoint)
            _ = parts.port  # raises when it is none
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
                raise ValueError('not the address of an etcd member. Write it like "https://192.0.2.11:2379"')
            if parts.username is not None:  # it would be logged
                raise ValueError("must not name a user. Use leader.username and leader.password")
        return endpoints

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _can_be_read(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("no such file. Name a PEM file that the controller's user may read")
        return path

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.lease_s != int(self.lease_s):
            raise ValueError("leader.lease must be whole seconds")
        if self.lease_s < 2 * MARGIN_S + 2 * self.timeout_s:
            least = math.ceil(2 * MARGIN_S + 2 * self.timeout_s)
            raise ValueError(f"leader.lease is too short for that leader.timeout. Set it to {least}s at least")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("leader.cert_file and leader.key_file belong together. Name both or none")
        if bool(self.username) != (self.password is not None):
            raise ValueError("leader.username and leader.password belong together. Set both or none")
        plain = [each for each in self.endpoints if urlsplit(each).scheme == "http"]
        if self.username and any(urlsplit(each).hostname not in _LOOPBACK for each in plain):
            raise ValueError("a password over http can be read by everybody on its way. Use https endpoints")
        if plain and (self.ca_file or self.cert_file):
            raise ValueError("certificates are of no use with http endpoints. Use https, or leave them out")
        return self

    def tls(self) -> ssl.SSLContext | None:
        """How to speak TLS; None: as the system does. Raises OSError, ssl.SSLError: a file is not what it should be."""
        if self.ca_file is None and self.cert_file is None:
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """The lead as we took it."""

    term: int
    lease: int
    value: str  #: of the key `leader`: with a number that nobody else has


class EtcdArbiter(Arbiter[EtcdConfig]):
    """Several controllers, one of which leads while a quorum of etcd members holds its key."""

    kind: ClassVar[str] = "etcd"
    config_model: ClassVar[type[ArbiterConfig]] = EtcdConfig
    gateway_class: ClassVar[type[Gateway]] = Gateway

    def __init__(self, config: EtcdConfig, context: ArbiterContext) -> None:
        """No connection here; the certificates are read.

        Raises:
            OSError: a certificate or its key is not what it should be.
        """
        super().__init__(config, context)
        self.lead_s = config.lease_s - MARGIN_S
        self.renew_every_s = config.lease_s / 5
        self._gateway = self.gateway_class(
            endpoints=config.endpoints,
            timeout_s=config.timeout_s,
            deadline_s=min(config.lease_s / 2, (len(config.endpoints) + 1) * config.timeout_s),
            username=config.username,
            password=config.password or SecretStr(""),
            tls=config.tls(),
        )
        self._leader_key, self._term_key = f"{config.prefix}/leader", f"{config.prefix}/term"
        self._members_prefix = f"{config.prefix}/members/"
        self.record = self._record = EtcdRecord(self._gateway, f"{config.prefix}/record/", self._leader_key)
        self._held: _Held | None = None
        self._led_meanwhile = ""
        self._seen_term = 0  #: the highest that anybody was seen to lead in, whatever etcd holds by now
        self._leftover: tuple[int, ...] = ()  #: leases that could not be revoked yet
        self._failed_at = -math.inf  #: when etcd last did not answer
        self._presence: int | None = None
        self._presence_due = 0.0

    async def close(self) -> None:
        """Leave the list of members, as far as that can be done, and close the connections."""
        presence, self._presence = self._presence, None
        if presence is not None:
            await self._revoke(presence)
        with anyio.CancelScope(shield=True):
            await self._gateway.close()

    # --- the lead ---

    async def acquire(self) -> int | None:
        """Take the lead in one transaction. One whose answer was lost is read back; what stays unknown is given up.

        When etcd was down, whoever led before goes first: its record is whole, and it can go on with what is open.
        """
        try:
            return await self._acquire()
        except ArbiterUnreachable:
            self._failed_at = anyio.current_time()
            raise

    async def _acquire(self) -> int | None:
        await self._show_presence()
        for lease in self._leftover:
            await self._revoke(lease)  # or nobody could lead until it has ended
        leader = await self._gateway.read(self._leader_key)
        if leader is not None:
            self._note_term(_of_json(leader.value).get("term"))
            return None
        last = await self._gateway.read(self._term_key)
        last_term, written = _term_of(last), await self._record.written()
        self._note_term(last_term)
        self._note_term(written.term)
        about, own_term = _of_json(None if last is None else last.value), self.context.last_term()
        # with its data etcd loses who led; restored from a backup, it is another cluster
        ours = (self.context.instance, own_term, self._gateway.cluster)
        is_whole = (about.get("instance"), last_term, about.get("cluster")) == ours and self._seen_term <= own_term
        if not is_whole and anyio.current_time() - self._failed_at < self.config.lease_s:
            return None
        term = max(self._seen_term, own_term) + 1
        lease = await self._gateway.grant(int(self.config.lease_s))
        held = _Held(term=term, lease=lease, value=self._about_us(term=term, nonce=uuid.uuid4().hex))
        cluster = self._gateway.cluster
        goes_on = self._record.goes_on(written, last_term, cluster) and term == last_term + 1
        record = self._record.next(written, term=term, cluster=cluster) if goes_on else written
        taken = False
        try:
            taken = await self._take(held, 0 if last is None else last.mod_revision, written, record)
        finally:
            if not taken:
                await self._revoke(lease)
        if not taken:
            return None
        self._record.begin(term, held.value, record, whole=goes_on, cluster=cluster)
        self._held, seen_term = held, self._seen_term
        self._note_term(term)
        self._led_meanwhile = "" if is_whole else _in_words(last, self._gateway.cluster, seen_term)
        return term

    def _note_term(self, term: object) -> None:
        self._seen_term = max(self._seen_term, term if isinstance(term, int) else 0)

    async def _take(self, held: _Held, term_revision: int, written: Written, record: Written) -> bool:
        """`record`: what is said of the record from now on. One that was whole stays so: nobody led in between."""
        expected = {self._leader_key: 0, self._term_key: term_revision, **self._record.expected(written)}
        values: dict[str, tuple[str, int] | None] = {
            self._leader_key: (held.value, held.lease),
            self._term_key: (self._about_us(term=held.term, cluster=self._gateway.cluster), 0),
        }
        if record != written:
            values[self._record.written_key] = (record.text, 0)
        try:
            return await self._gateway.put_if(expected, values)
        except ArbiterUnreachable:
            # it may have been taken in: only the key itself tells. A later arrival fails, since its lease is revoked
            found = await self._gateway.read(self._leader_key)
            return found is not None and found.value == held.value

    async def renew(self, term: int) -> None:
        """Prolong the lease, and see through a quorum that the key is there."""
        held = self._held_in(term)
        if not await self._gateway.keep_alive(held.lease):
            self._held = None
            raise NotLeading(f"the lease of term {term} has ended in etcd")
        await self.prove(term)

    async def prove(self, term: int) -> None:
        """Read the key through a quorum: it is there, and it is the very one that we made."""
        held = self._held_in(term)
        found = await self._gateway.read(self._leader_key)
        if found is None or found.value != held.value or found.lease != held.lease:
            if self._held is held:
                self._held = None
            raise NotLeading(f"etcd does not hold our lead of term {term} any more: {_leader_in_words(found)}")

    async def release(self, term: int) -> None:
        """End the lease, and the lead with it."""
        held = self._held
        if held is not None and held.term == term:
            self._held = None
            await self._revoke(held.lease)

    def led_meanwhile(self) -> str:
        """Whoever stands under `term` led last, and our record goes on from there only if that was us."""
        return self._led_meanwhile

    def _held_in(self, term: int) -> _Held:
        if self._held is None or self._held.term != term:
            raise NotLeading(f"the lead of term {term} is not held")
        return self._held

    async def _revoke(self, lease: int) -> None:
        """As far as that can be done: a lease that stays is tried again later, or ends by itself."""
        self._leftover = (*(each for each in self._leftover if each != lease), lease)
        with anyio.CancelScope(shield=True), anyio.move_on_after(RELEASE_TIMEOUT_S), suppress(ArbiterUnreachable):
            try:
                await self._gateway.revoke(lease)
            except Refused as error:
                if error.code != NOT_FOUND:
                    raise
            self._leftover = tuple(each for each in self._leftover if each != lease)

    # --- members ---

    async def members(self) -> Sequence[Member]:
        """Who is on the list, the leader first. We are kept on it here, where no renewal waits for that."""
        with anyio.move_on_after(PRESENCE_TIMEOUT_S), suppress(ArbiterUnreachable):
            await self._show_presence()
        leader = await self._gateway.read(self._leader_key)
        leading = _of_json(None if leader is None else leader.value)
        found = [] if leader is None else [_member(leading, leads=True)]
        for _, kept in await self._gateway.read_all(self._members_prefix):
            about = _of_json(kept.value)
            if about.get("instance") != leading.get("instance"):
                found.append(_member(about, leads=False))
        return found

    async def _show_presence(self) -> None:
        """Keep ourselves on the list; also the first question to etcd that shows whether it answers."""
        now = anyio.current_time()
        if now < self._presence_due:
            return
        if self._presence is None or not await self._gateway.keep_alive(self._presence):
            self._presence = None
            lease = await self._gateway.grant(PRESENCE_S)
            await self._gateway.put(self._members_prefix + self.context.instance, self._about_us(), lease)
            self._presence = lease
        self._presence_due = now + PRESENCE_S / 3

    def _about_us(self, **more: object) -> str:
        return json.dumps({"name": self.context.name, "instance": self.context.instance, **more})


def _of_json(text: str | None) -> dict[str, object]:
    """What a controller wrote: texts that are safe to show, and terms; nothing if it is none of ours."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    written = found.items() if isinstance(found, dict) else ()
    texts: dict[str, object] = {key: one_line(value) for key, value in written if isinstance(value, str)}
    return texts | {key: value for key, value in written if type(value) is int and 0 <= value < TERM_MAX}


def _term_of(kept: Kept | None) -> int:
    """The last term; 0 if there was none.

    Raises:
        ArbiterUnreachable: what stands there is no term, and terms must never go back.
    """
    if kept is None:
        return 0
    term = _of_json(kept.value).get("term")
    if not isinstance(term, int):
        raise ArbiterUnreachable("the key `term` in etcd holds none: write a higher one than all in the logs, as JSON")
    return term


def _in_words(last: Kept | None, cluster: str, seen_term: int) -> str:
    about = _of_json(None if last is None else last.value)
    term, name = about.get("term", 0), about.get("name")
    if last is None or term != seen_term:
        seen = f": it told of term {seen_term} before" if seen_term else ""
        return f"who led before is not on record in etcd{seen}"
    if about.get("cluster") != cluster:
        return f"{name} led in term {term}, and etcd's data was put back since"
    return f"{name} led in term {term}"


def _leader_in_words(found: Kept | None) -> str:
    if found is None:
        return "its lease has ended"
    about = _of_json(found.value)
    return f"{about.get('name', 'somebody else')} leads, term {about.get('term', 'unknown')}"


def _member(about: dict[str, object], *, leads: bool) -> Member:
    term = about.get("term")
    return Member(
        name=str(about.get("name", "unknown")),
        instance=str(about.get("instance", "")),
        leads=leads,
        term=term if isinstance(term, int) else None,
    )
