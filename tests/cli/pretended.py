"""A socket that answers as a controller does, and the command line that asks it, in this very process.

What it answers is what the core reports of a small cloud in which one host has failed and another is silent.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import socketserver
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from world import Cloud

from ha_controller import sealing
from ha_controller.app import drills
from ha_controller.cli import main
from ha_controller.config import Drills
from ha_controller.core import report

Json = Any

ANSWERED = ("/api/v1/fencing/check", "/api/v1/notifiers/test", "/api/v1/reload")  #: more than that they were done


def failing_cloud() -> Cloud:
    """Host 3 is powered off and its VMs start elsewhere, host 5 is silent since a moment."""
    cloud = Cloud(cluster_names={0: "default"}, excluded={6: "maintenance: new RAM"})
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(9)
    cloud.kill(5)
    cloud.run(3)
    return cloud


def trail() -> list[Json]:
    """The lines that the journal would have."""
    return sealed(_lines())


def sealed(lines: list[Json]) -> list[Json]:
    """With the seals that the journal would have given them."""
    seal = sealing.FIRST
    for line in lines:
        columns = (line["at"], line["kind"], line["host"], line["incident"], line["text"])
        seal = sealing.seal(seal, line["id"], *columns, sealing.details(line["data"]))
        line["seal"] = seal.hex()
    return lines


def _lines() -> list[Json]:
    return [
        {
            "id": number, "at": 1000.0 + number, "kind": kind, "host": 3, "incident": 1, "text": text, "data": {},
        }
        for number, (kind, text) in enumerate(
            [("decision", "kvm-3 is condemned: powered off"), ("intent", "power off kvm-3 by bmc"),
             ("report", "kvm-3: bmc read back off, twice"), ("told", "VM vm-30 runs on kvm-0")], start=1)
    ] + [
        {
            "id": 5, "at": 1008.0, "kind": "operator", "host": 3, "incident": None, "text": "anna orders hold: I look",
            "data": {"who": "anna", "origin": "socket", "verb": "hold", "reason": "I look", "result": "", "code": 0},
        }
    ]  # fmt: skip


@dataclass
class Pretended:
    """Answers GET by its path; remembers what was ordered."""

    socket: Path
    answers: dict[str, Json] = field(default_factory=dict)
    ordered: list[tuple[str, Json]] = field(default_factory=list)
    refusals: dict[str, tuple[int, Json]] = field(default_factory=dict)  #: host -> status and answer

    @classmethod
    def of(cls, socket: Path, cloud: Cloud) -> Pretended:
        state, now = cloud.controller.state, cloud.now
        hosts = {host.name: report.explain(state, host, now) for host in state.hosts.values()}
        answers: dict[str, Json] = {
            "/api/v1/status": report.status(state, now),
            "/api/v1/hosts": report.hosts(state, now),
            "/api/v1/pending": report.pending(state),
            "/api/v1/incidents": [report.incident(each) for _, each in sorted(cloud.incidents.items(), reverse=True)],
            **{f"/api/v1/incidents/{each.id}": report.incident(each) for each in cloud.incidents.values()},
            "/api/v1/events": trail(),
            "/api/v1/drills": drills.schedule(state, Drills(), now),
            "/api/v1/doctor": [
                {"ok": True, "text": "OpenNebula 7.4.0 answers in 3 ms"},
                {"ok": None, "text": "no witnesses"},
                {"ok": False, "text": "kvm-7: no fence device"},
            ],
            "/api/v1/leader": {
                "kind": "single", "name": "one-1", "leads": True, "term": 42, "left_s": None, "trouble": "",
                "members": [{"name": "one-1", "leads": True, "term": 42, "this": True}], "engine": [],
                "shares_record": False,
                "controllers": [
                    {"name": "one-2", "answered_s_ago": 0.4, "leads": False, "fit": True, "why_unfit": [],
                     "hosts_alive": 8, "trouble": ""},
                    {"name": "one-3", "answered_s_ago": 0.4, "leads": False, "fit": False, "hosts_alive": 2,
                     "why_unfit": ["self-check: 0 of 3 witnesses answer (need 2)"], "trouble": ""},
                    {"name": "one-4", "answered_s_ago": None, "leads": False, "fit": False, "why_unfit": [],
                     "hosts_alive": 0, "trouble": "no answer within 1 s"},
                ],
            },
            "/api/v1/notifiers": [
                {"name": "log", "trouble": "", "results": {"sent": 4, "repeated": 0, "given_up": 0, "dropped": 0}}
            ],
            "/api/v1/simulate/fail": {
                "schema": "ha-controller/v1", "hosts": ["kvm-00"], "moved": 1, "nowhere": 0, "left_alone": 1,
                "vms": [
                    {"id": 30, "name": "vm-30", "outcome": "moved", "to": "kvm-01", "reason": "", "softened": False},
                    {"id": 31, "name": "vm-31", "outcome": "left alone", "to": None, "reason": "HA_POLICY=leave",
                     "softened": False},
                ],
                "order": [], "order_faults": [],
            },
            "/api/v1/simulate/capacity": {
                "schema": "ha-controller/v1",
                "clusters": [{
                    "cluster": 0, "name": "default", "may_fail": 1,
                    "hosts": [{"host": "kvm-00", "moved": 2, "nowhere": 0, "left_alone": 0, "reason": ""}],
                    "too_many": {
                        "hosts": ["kvm-00", "kvm-01"], "moved": 3, "nowhere": 1, "left_alone": 0,
                        "vms": [{"id": 1, "name": "vm-1", "outcome": "nowhere", "to": None, "reason": "no room",
                                 "softened": False}],
                    },
                }],
            },
            "/api/v1/tokens": [
                {"name": "grafana", "role": "viewer", "created_at": 1000.0, "created_by": "root", "expires_at": None,
                 "expired": False},
            ],
            "/api/v1/config": {
                "schema": "ha-controller/v1", "path": "/etc/ha-controller/config.toml",
                "values": [
                    {"name": "mode", "value": "auto", "origin": "config.toml:3"},
                    {"name": "opennebula.auth", "value": "**********", "origin": "config.toml:7"},
                    {"name": "guard.max_failed_hosts", "value": "25%", "origin": "default"},
                    {"name": "guard.self_check", "value": ["192.0.2.1"], "origin": "conf.d/lan.toml:2"},
                ],
            },
            "/api/v1/reload": {
                "schema": "ha-controller/v1", "code": 1, "problems": [],
                "text": "1 of 3 changes in force now. Not without a restart: opennebula.auth, log.level. Then: restart",
                "changes": [
                    {"name": "mode", "before": "auto", "after": "observe", "needs_restart": False},
                    {"name": "opennebula.auth", "before": "**********", "after": "**********", "needs_restart": True},
                    {"name": "log.level", "before": "info", "after": "debug", "needs_restart": True},
                ],
            },
            "/api/v1/vms/vm-30/explain": {
                "schema": "ha-controller/v1", "id": 30, "name": "vm-30", "state": "RUNNING", "host": "kvm-01",
                "if_host_failed": {"outcome": "moved", "to": "kvm-02", "reason": "", "softened": False},
                "order": {"vm": 30, "name": "vm-30", "tier": 2, "after": ["db"], "ready": "port 80 answers"},
                "why_host_not_fenced": "",
                "past": [{
                    "incident": 1, "host": "kvm-03", "opened_at": 1006.0, "open": True, "was": "RUNNING",
                    "stage": "running", "to": "kvm-01", "reason": "", "settled_at": 1012.0, "outage_s": 8.0,
                }],
            },
            "/api/v1/vms/vm-31/explain": {
                "schema": "ha-controller/v1", "id": 31, "name": "vm-31", "state": "POWEROFF", "host": "kvm-05",
                "if_host_failed": {"outcome": "left alone", "to": None, "reason": "HA_POLICY=leave", "softened": False},
                "order": None, "past": [],
                "why_host_not_fenced": "no fence device of kvm-05 is ready: ha-controller fencing list kvm-05",
            },
            "/api/v1/notifiers/test": [{"name": "log", "ok": True, "trouble": ""}],
            **{f"/api/v1/hosts/{name}/explain": found for name, found in hosts.items()},
        }  # fmt: skip
        last = answers["/api/v1/events"][-1]
        answers["/api/v1/audit/head"] = {"id": last["id"], "seal": last["seal"]}
        return cls(socket, json.loads(json.dumps(answers)))

    def answer(self, method: str, target: str, body: Json) -> tuple[int, Json]:
        parts = urlsplit(target)
        if method == "POST" and parts.path not in ANSWERED:
            return self._ordered(parts.path.removeprefix("/api/v1/").split("/"), body)
        if parts.path == "/api/v1/fencing/check":
            wanted = parse_qs(parts.query).get("host")
            return 200, [row for row in self.answers["/api/v1/hosts"] if wanted is None or row["name"] in wanted]
        if parts.path == "/api/v1/events":
            asked = {key: value for key, (value,) in parse_qs(parts.query).items() if key in ("kind", "incident")}
            after = int(parse_qs(parts.query).get("after", ["0"])[0])
            lines = [line for line in self.answers[parts.path] if line["id"] > after]
            return 200, [line for line in lines if all(str(line[key]) == value for key, value in asked.items())]
        if parts.path in self.answers:
            return 200, self.answers[parts.path]
        return 404, {"code": 3, "detail": f"There is no {parts.path} here."}

    def _ordered(self, words: list[str], body: Json) -> tuple[int, Json]:
        """An act has an address: of a host, of an incident, or of the cloud."""
        of = {}
        if words[0] in ("hosts", "incidents"):
            of = {"host": unquote(words[1])} if words[0] == "hosts" else {"incident": int(words[1])}
            words = words[2:]
        verb = " ".join(words)
        self.ordered.append((verb, {**of, **body}))
        about = of.get("host") or of.get("incident") or ""
        return self.refusals.get(str(about), (200, {"code": 0, "text": f"Done: {verb} {about}"}))

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Listen while the block runs."""
        pretended = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                with contextlib.suppress(OSError):
                    status, answer = pretended.answer(self.command, self.path, body)
                    text = json.dumps(answer).encode()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

            def address_string(self) -> str:
                return "socket"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        with Server(str(self.socket), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


@dataclass(frozen=True)
class Printed:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def called(*words: str, monkeypatch: pytest.MonkeyPatch, stdin: str | None = None) -> Printed:
    """Run the command line here, with nobody at a terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["ha-controller", *words])
        patch.setattr(sys, "stdin", io.StringIO(stdin or ""))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
    return Printed(code, *(each.buffer.getvalue().decode() for each in (out, err)))  # type: ignore[attr-defined]


class Commands:
    """The command line, with a pretended controller behind it."""

    def __init__(self, pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pretended, self._monkeypatch = pretended, monkeypatch

    def __call__(self, *words: str, stdin: str | None = None) -> Printed:
        return called("--socket", str(self.pretended.socket), *words, monkeypatch=self._monkeypatch, stdin=stdin)

    @property
    def ordered(self) -> list[tuple[str, Json]]:
        return self.pretended.ordered


__all__ = ["Commands", "Pretended", "Printed", "called", "failing_cloud"]
