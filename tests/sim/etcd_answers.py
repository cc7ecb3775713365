"""Questions to etcd's JSON gateway, and what a real etcd answered: the pretended one has to answer the same.

python -m tests.sim.etcd_answers      # asks a real etcd and writes the answers anew
"""

from __future__ import annotations

import base64
import json
import tempfile
import urllib.error
from pathlib import Path
from typing import Any

Json = dict[str, Any]
FILE = Path(__file__).with_name("etcd-answers.json")
LEASE = 7777


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put(key: str, value: str, lease: int = 0) -> Json:
    return {"key": packed(key), "value": packed(value), "lease": str(lease)}


def txn(compare: list[Json], *success: Json) -> tuple[str, Json]:
    return "/v3/kv/txn", {"compare": compare, "success": list(success)}


def mod(key: str, revision: int) -> Json:
    return {"key": packed(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def value(key: str, text: str) -> Json:
    return {"key": packed(key), "target": "VALUE", "result": "EQUAL", "value": packed(text)}


def delete(key: str) -> Json:
    return {"request_delete_range": {"key": packed(key)}}


def below(prefix: str, limit: int) -> tuple[str, Json]:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return "/v3/kv/range", {"key": packed(prefix), "range_end": packed(end), "limit": str(limit)}


def read(key: str) -> tuple[str, Json]:
    return "/v3/kv/range", {"key": packed(key)}


#: in this order, to an etcd that holds nothing
QUESTIONS: tuple[tuple[str, Json], ...] = (
    read("/ha/leader"),
    ("/v3/lease/grant", {"TTL": "60", "ID": str(LEASE)}),
    txn([mod("/ha/leader", 0), mod("/ha/term", 0)],
        {"request_put": put("/ha/leader", "a", LEASE)}, {"request_put": put("/ha/term", "1")}),
    read("/ha/leader"),
    read("/ha/term"),
    txn([mod("/ha/leader", 0)], {"request_put": put("/ha/leader", "b", LEASE)}),  # somebody leads
    ("/v3/lease/keepalive", {"ID": str(LEASE)}),
    ("/v3/kv/put", put("/ha/members/1", "a", LEASE)),
    ("/v3/kv/put", put("/ha/members/2", "")),
    below("/ha/members/", 32),
    below("/ha/members/", 1),
    txn([value("/ha/leader", "a"), mod("/ha/record/written", 0)],
        {"request_put": put("/ha/record/written", "w1")}, {"request_put": put("/ha/record/cloud", "c")}),
    txn([value("/ha/leader", "a"), value("/ha/record/written", "w0")], {"request_put": put("/ha/record/cloud", "d")}),
    txn([value("/ha/leader", "b"), value("/ha/record/written", "w1")], {"request_put": put("/ha/record/cloud", "d")}),
    txn([value("/ha/nothing", "")], {"request_put": put("/ha/record/cloud", "d")}),  # no key is not an empty one
    txn([value("/ha/leader", "a"), value("/ha/record/written", "w1")],
        {"request_put": put("/ha/record/written", "w2")}, delete("/ha/record/cloud"), delete("/ha/record/none")),
    txn([value("/ha/leader", "a")], delete("/ha/record/none")),
    below("/ha/record/", 32),
    ("/v3/kv/put", put("/ha/members/3", "x", 4242)),  # a lease that is not there
    txn([], {"request_put": put("/ha/members/3", "x", 4242)}),
    ("/v3/kv/put", put("/ha/term", "2")),
    read("/ha/term"),
    ("/v3/lease/revoke", {"ID": str(LEASE)}),  # takes along what hangs on it
    read("/ha/leader"),
    below("/ha/", 32),
    ("/v3/lease/keepalive", {"ID": str(LEASE)}),
    ("/v3/lease/revoke", {"ID": str(LEASE)}),
    txn([value("/ha/leader", "a"), value("/ha/record/written", "w2")], {"request_put": put("/ha/record/cloud", "d")}),
)  # fmt: skip


def plain(answer: Any) -> Any:
    """Without the numbers of cluster, member and raft, which are different each time."""
    if isinstance(answer, dict):
        numbers = ("cluster_id", "member_id", "raft_term")
        return {name: plain(each) for name, each in answer.items() if name not in numbers}
    return [plain(each) for each in answer] if isinstance(answer, list) else answer


def ask_a_real_one(folder: Path) -> list[Any]:
    """What it answers to all of them, in their order: HTTP status and document."""
    from tests.peers.etcd import Etcd

    etcd, answers = Etcd(folder, count=1).start(), []
    try:
        for path, body in QUESTIONS:
            try:
                answers.append([200, plain(etcd.ask(etcd.members[0], path, body))])
            except urllib.error.HTTPError as error:
                answers.append([error.code, plain(json.load(error))])
    finally:
        etcd.stop()
    return answers


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        FILE.write_text(json.dumps(ask_a_real_one(Path(place)), indent=1) + "\n")
