"""The pretended etcd answers as a real one was recorded to, and its leases end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ha_controller.sim.etcd_store import EtcdStore
from tests.sim.etcd_answers import FILE, QUESTIONS, ask_a_real_one, packed, plain, put


def recorded() -> list[tuple[int, object]]:
    return [(status, document) for status, document in json.loads(FILE.read_text())]


def test_it_answers_as_a_real_one_did():
    store, answers = EtcdStore(clock=lambda: 0.0), recorded()
    assert len(answers) == len(QUESTIONS)
    for (path, body), (status, document) in zip(QUESTIONS, answers, strict=True):
        told = store.answer(path, body)
        assert (told[0], plain(told[1])) == (status, document), (path, body)


@pytest.mark.peer
def test_a_real_one_still_answers_so(require_peer: Callable[[str], str], tmp_path: Path):
    require_peer("etcd")
    assert [(status, document) for status, document in ask_a_real_one(tmp_path)] == recorded()


def test_a_lease_ends_with_what_hangs_on_it_unless_it_is_kept_and_may_outlive_its_time():
    now = 0.0
    store = EtcdStore(clock=lambda: now, outlives_s=lambda: 1.0)
    store.answer("/v3/lease/grant", {"TTL": "10", "ID": "5"})
    store.answer("/v3/kv/put", put("leader", "a", 5))
    now = 9.0
    store.answer("/v3/lease/keepalive", {"ID": "5"})
    now = 19.5
    assert store.text("leader") == "a"
    now = 20.0
    assert store.text("leader") is None
    assert "kvs" not in store.answer("/v3/kv/range", {"key": packed("leader")})[1]


def test_a_new_leader_of_its_members_gives_every_lease_its_whole_time_again():
    now = 0.0
    store = EtcdStore(clock=lambda: now)
    store.answer("/v3/lease/grant", {"TTL": "10", "ID": "5"})
    store.has_quorum, now = False, 19.0
    store.expire()
    assert store.leases, "without a quorum none ends"
    store.has_quorum = True
    store.prolong_all()
    now = 28.5
    store.expire()
    assert store.leases
    now = 29.5
    store.expire()
    assert not store.leases
