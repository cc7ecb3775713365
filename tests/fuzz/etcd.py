"""The door to etcd: answers of its JSON gateway. Nonsense is never a lead."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ha_controller.adapters.arbiter.etcd import EtcdArbiter, EtcdConfig
from ha_controller.adapters.arbiter.gateway import Gateway
from ha_controller.plugin import ArbiterContext, ArbiterUnreachable, NotLeading

from .devices import _runner
from .target import Feed, Target, demand, is_one_line, joined

PASSWORD = "etcd-secret-9"


class _Scripted(Gateway):
    """Answers with the input."""

    script: Iterator[tuple[int, bytes]] = iter(())

    async def _exchanged(self, url: str, body: Any, headers: Any) -> tuple[int, bytes]:
        return next(self.script, (503, b""))


def answers(data: bytes) -> None:
    """Answers of a gateway to everything that an arbiter asks: its own errors only, and a lead only if it was given."""
    parts = Feed(data).parts()
    script = [(200 if not part or part[0] % 4 else 400, part[1:]) for part in parts[:30]]
    config = EtcdConfig(endpoints=("http://127.0.0.1:2379",), username="ha", password=PASSWORD)
    context = ArbiterContext(name="a", instance="0123456789ab", state_dir=Path("/nowhere"), last_term=lambda: 3)
    for ask in ("acquire", "members"):
        arbiter = EtcdArbiter(config, context)
        gateway = _Scripted(
            endpoints=config.endpoints, timeout_s=1, deadline_s=2, username="ha", password=config.password
        )
        arbiter._gateway = arbiter._record._gateway = gateway
        gateway.script = iter(script)
        arbiter._failed_at = float("-inf")
        term = None
        try:
            term = _runner().run(getattr(arbiter, ask)())
        except ArbiterUnreachable as error:
            _demand_showable(error)
        if ask == "acquire" and term is not None:
            demand(isinstance(term, int) and term > 3, "a term that goes back")
            demand(any(b"succeeded" in raw or b"\\u" in raw or b"kvs" in raw for _, raw in script), "a lead of nobody")
            try:
                _runner().run(arbiter.record.read(term))
                _runner().run(arbiter.renew(term))
            except (ArbiterUnreachable, NotLeading) as error:
                _demand_showable(error)


def _demand_showable(error: Exception) -> None:
    demand(is_one_line(str(error)) and len(str(error)) < 2000, "an error that cannot be shown")
    demand(PASSWORD not in str(error), "an error shows the password")


def _packed(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _script(*found: object) -> bytes:
    return joined(*(b"\x01" + json.dumps(each).encode() for each in found))


_HEADER = {"header": {"cluster_id": "14841639068965178418", "revision": "9"}}
_TOKEN = {**_HEADER, "token": "abc.7"}
_GRANT = {**_HEADER, "ID": "7587862094", "TTL": "30"}
_LEADER = {
    **_HEADER,
    "kvs": [{"key": _packed("/ha-controller/leader"), "value": _packed({"name": "b", "instance": "ff", "term": 4}),
             "mod_revision": "8", "lease": "75"}],
}  # fmt: skip

TARGETS = (
    Target(
        name="etcd-answers",
        run=answers,
        seeds=(
            _script(_TOKEN, _GRANT, _HEADER, _HEADER, _HEADER, _GRANT, {**_HEADER, "succeeded": True}),
            _script(_TOKEN, _GRANT, _HEADER, _LEADER, _LEADER),
            _script(_TOKEN, _GRANT, _HEADER, _HEADER, _LEADER, _GRANT, {"error": "etcdserver: no leader", "code": 14}),
            _script({"error": "etcdserver: invalid auth token", "code": 16, "message": "no"}),
        ),
    ),
)
