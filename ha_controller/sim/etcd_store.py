"""An etcd in memory, as its JSON gateway shows it: keys with revisions, leases, transactions. Time is lent.

Only what the arbiter and the shared record ask of it, and that as a real etcd was recorded to answer
(tests/sim/etcd-answers.json). It knows no members: whoever pretends it decides which question reaches it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

NOT_FOUND = 5  #: gRPC status code
CLUSTER = "4711"


@dataclass(kw_only=True, slots=True)
class Key:
    """What stands under one."""

    value: str
    create_revision: int
    mod_revision: int
    version: int
    lease: int


@dataclass(kw_only=True, slots=True)
class Lease:
    """One that ends by itself."""

    ttl_s: int
    ends_at: float


class _Refused(Exception):
    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.answer: tuple[int, Json] = (status, {"error": text, "code": code, "message": text})


@dataclass(kw_only=True)
class EtcdStore:
    """All that a quorum holds."""

    clock: Callable[[], float]
    outlives_s: Callable[[], float] = lambda: 0.0  #: how much later than promised a lease ends
    keys: dict[str, Key] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    revision: int = 1
    has_quorum: bool = True  #: without one no lease ends
    _last_lease: int = 7000

    def text(self, key: str) -> str | None:
        """What stands under a key now, for who looks from outside."""
        self.expire()
        found = self.keys.get(key)
        return None if found is None else found.value

    def answer(self, path: str, body: Json) -> tuple[int, Json]:
        """HTTP status and document."""
        self.expire()
        ask: dict[str, Callable[[Json], Json]] = {
            "/v3/kv/range": self._range,
            "/v3/kv/put": self._put_alone,
            "/v3/kv/txn": self._transaction,
            "/v3/lease/grant": self._grant,
            "/v3/lease/keepalive": self._keep_alive,
            "/v3/lease/revoke": self._revoke_asked,
        }
        try:
            return 200, ask[path](body)
        except _Refused as refused:
            return refused.answer

    # --- leases ---

    def expire(self) -> None:
        """End the leases whose time is over."""
        if not self.has_quorum:
            return
        for number in [each for each, lease in self.leases.items() if lease.ends_at <= self.clock()]:
            self.revoke(number)

    def prolong_all(self) -> None:
        """A new leader among the members gives every lease its whole time again."""
        for lease in self.leases.values():
            lease.ends_at = self.clock() + lease.ttl_s + self.outlives_s()

    def revoke(self, number: int) -> None:
        """End a lease, and what hangs on it."""
        del self.leases[number]
        gone = [key for key, kept in self.keys.items() if kept.lease == number]
        self.revision += bool(gone)
        for key in gone:
            del self.keys[key]

    def _grant(self, body: Json) -> Json:
        self._last_lease += 1
        number, ttl_s = int(body.get("ID", 0)) or self._last_lease, int(body["TTL"])
        self.leases[number] = Lease(ttl_s=ttl_s, ends_at=self.clock() + ttl_s + self.outlives_s())
        return {"header": self._header(), "ID": str(number), "TTL": str(ttl_s)}

    def _keep_alive(self, body: Json) -> Json:
        lease = self.leases.get(int(body["ID"]))
        found = {"header": self._header(), "ID": str(body["ID"])}
        if lease is None:
            return {"result": found}
        lease.ends_at = self.clock() + lease.ttl_s + self.outlives_s()
        return {"result": {**found, "TTL": str(lease.ttl_s)}}

    def _revoke_asked(self, body: Json) -> Json:
        self._known(int(body["ID"]), 404)
        self.revoke(int(body["ID"]))
        return {"header": self._header()}

    def _known(self, number: int, status: int) -> None:
        if number and number not in self.leases:
            raise _Refused(status, NOT_FOUND, "etcdserver: requested lease not found")

    # --- keys ---

    def _range(self, body: Json) -> Json:
        begin = _text(body["key"])
        end = _text(body["range_end"]) if "range_end" in body else begin + "\0"
        found = [key for key in sorted(self.keys) if begin <= key < end]
        answer: Json = {"header": self._header()}
        limit = int(body.get("limit", 0)) or len(found)
        if found:
            answer |= {"kvs": [self._shown(key) for key in found[:limit]]}
            answer |= ({"more": True} if len(found) > limit else {}) | {"count": str(len(found))}
        return answer

    def _shown(self, key: str) -> Json:
        kept = self.keys[key]
        shown = {
            "key": _packed(key),
            "create_revision": str(kept.create_revision),
            "mod_revision": str(kept.mod_revision),
            "version": str(kept.version),
        }
        return (
            shown
            | ({"value": _packed(kept.value)} if kept.value else {})
            | ({"lease": str(kept.lease)} if kept.lease else {})
        )

    def _put_alone(self, body: Json) -> Json:
        self._known(int(body.get("lease", 0)), 404)
        self.revision += 1
        self._put(body)
        return {"header": self._header()}

    def _put(self, body: Json) -> None:
        key, before = _text(body["key"]), self.keys.get(_text(body["key"]))
        self.keys[key] = Key(
            value=_text(body.get("value", "")),
            create_revision=self.revision if before is None else before.create_revision,
            mod_revision=self.revision,
            version=1 if before is None else before.version + 1,
            lease=int(body.get("lease", 0)),
        )

    def _transaction(self, body: Json) -> Json:
        if not all(self._holds(each) for each in body.get("compare", [])):
            return {"header": self._header()}
        acts = body.get("success", [])
        puts = [act["request_put"] for act in acts if "request_put" in act]
        deleted = [_text(act["request_delete_range"]["key"]) for act in acts if "request_delete_range" in act]
        for put in puts:
            self._known(int(put.get("lease", 0)), 404)
        self.revision += bool(puts or any(key in self.keys for key in deleted))
        for put in puts:
            self._put(put)
        responses: list[Json] = []
        for act in acts:
            if "request_put" in act:
                responses.append({"response_put": {"header": {"revision": str(self.revision)}}})
            else:
                gone = self.keys.pop(_text(act["request_delete_range"]["key"]), None)
                about = {"header": {"revision": str(self.revision)}} | ({} if gone is None else {"deleted": "1"})
                responses.append({"response_delete_range": about})
        return {"header": self._header(), "succeeded": True, "responses": responses}

    def _holds(self, compare: Json) -> bool:
        kept = self.keys.get(_text(compare["key"]))
        if compare["target"] == "MOD":
            return (0 if kept is None else kept.mod_revision) == int(compare["mod_revision"])
        return kept is not None and kept.value == _text(compare["value"])

    def _header(self) -> Json:
        return {"cluster_id": CLUSTER, "revision": str(self.revision)}


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(packed: str) -> str:
    return base64.b64decode(packed).decode()
