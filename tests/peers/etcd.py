"""A real etcd of three members that are killed, frozen, thawed and started again, on loopback or in namespaces."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.peers.certificates import Certificate

START_MAX_S = 30.0


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class Member:
    """One etcd process, and where it listens."""

    name: str
    port: int
    peer_port: int
    folder: Path
    scheme: str
    address: str = "127.0.0.1"
    inside: tuple[str, ...] = ()  #: the words in front of its program, such as those that enter a namespace
    process: subprocess.Popen[bytes] | None = None
    frozen: bool = False

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://{self.address}:{self.port}"

    @property
    def peer(self) -> str:
        return f"http://{self.address}:{self.peer_port}"


@dataclass
class Etcd:
    """The cluster."""

    folder: Path
    count: int = 3
    server: Certificate | None = None  #: with one, clients speak TLS
    client_ca: Path | None = None  #: and must show a certificate of this authority
    token: str = "ha"  #: of it and of the members' addresses etcd makes the number of the cluster
    places: Sequence[tuple[str, tuple[str, ...]]] = ()  #: an address and the words of `inside` for each member
    members: list[Member] = field(default_factory=list)

    def start(self) -> Etcd:
        ports = _free_ports(2 * self.count)
        scheme = "https" if self.server else "http"
        for index in range(self.count):
            folder = self.folder / f"etcd-{index}"
            folder.mkdir(parents=True)
            place = self.places[index] if self.places else ("127.0.0.1", ())
            self.members.append(Member(f"e{index}", ports[2 * index], ports[2 * index + 1], folder, scheme, *place))
        for member in self.members:
            self._launch(member, "new")
        self.wait_until_well()
        return self

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self.members)

    def _launch(self, member: Member, state: str) -> None:
        peer = member.peer
        cluster = ",".join(f"{each.name}={each.peer}" for each in self.members)
        words = [
            *member.inside, "etcd", "--name", member.name, "--data-dir", str(member.folder / "data"),
            "--listen-client-urls", member.endpoint, "--advertise-client-urls", member.endpoint,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", cluster, "--initial-cluster-state", state,
            "--initial-cluster-token", self.token,
            "--heartbeat-interval", "100", "--election-timeout", "1000", "--unsafe-no-fsync",
            "--logger", "zap", "--log-outputs", "stderr",
        ]  # fmt: skip
        if self.server is not None:
            words += ["--cert-file", str(self.server.cert), "--key-file", str(self.server.key)]
        if self.client_ca is not None:
            words += ["--client-cert-auth", "--trusted-ca-file", str(self.client_ca)]
        with (member.folder / "log").open("ab") as log:
            member.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        member.frozen = False

    # --- faults ---

    def lose_data(self) -> None:
        """All members are set up anew, at the same addresses."""
        self.kill(*self.members)
        for member in self.members:
            shutil.rmtree(member.folder / "data")
        for member in self.members:
            self._launch(member, "new")
        self.wait_until_well()

    def kill(self, *members: Member) -> None:
        for member in members:
            assert member.process is not None
            member.process.kill()
            member.process.wait(10)
            member.process = None

    def start_again(self, *members: Member) -> None:
        for member in members:
            if member.process is None:
                self._launch(member, "existing")

    def freeze(self, *members: Member) -> None:
        for member in members:
            assert member.process is not None
            os.kill(member.process.pid, signal.SIGSTOP)
            member.frozen = True
            while not self._has_stopped(member.process.pid):  # its threads stop one after the other
                time.sleep(0.001)

    def _has_stopped(self, pid: int) -> bool:
        stats = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] in "TZ" for stat in stats)

    def thaw(self, *members: Member) -> None:
        for member in members:
            if member.frozen and member.process is not None:
                os.kill(member.process.pid, signal.SIGCONT)
            member.frozen = False

    def heal(self) -> None:
        self.thaw(*self.members)
        self.start_again(*self.members)

    def stop(self) -> None:
        self.thaw(*self.members)
        for member in self.members:
            if member.process is not None:
                self.kill(member)
            shutil.rmtree(member.folder / "data", ignore_errors=True)  # 120 MB each, allocated before they are written

    def end_lease(self, key: str) -> bool:
        """End the lease of a key now, as etcd does when nobody keeps it alive. False: the key is not there."""
        packed = base64.b64encode(key.encode()).decode()
        found = self.ask(self._living(), "/v3/kv/range", {"key": packed}).get("kvs", [])
        if found:
            self.ask(self._living(), "/v3/lease/revoke", {"ID": found[0]["lease"]})
        return bool(found)

    # --- looking ---

    def _living(self) -> Member:
        return next(member for member in self.members if member.process is not None and not member.frozen)

    def ask(self, member: Member, path: str, body: dict[str, Any], *, timeout_s: float = 2.0) -> dict[str, Any]:
        """Without our own client. Raises OSError."""
        request = urllib.request.Request(member.endpoint + path, json.dumps(body).encode())
        context = ssl._create_unverified_context() if member.scheme == "https" else None
        with urllib.request.urlopen(request, timeout=timeout_s, context=context) as response:
            found: dict[str, Any] = json.load(response)
        return found

    def leader(self) -> Member:
        """The member that leads, in the words of a living one."""
        end = time.monotonic() + START_MAX_S
        while time.monotonic() < end:
            for member in self.members:
                if member.process is None or member.frozen:
                    continue
                try:
                    found = self.ask(member, "/v3/maintenance/status", {})
                except OSError:
                    continue
                if found.get("leader") == found["header"]["member_id"]:
                    return member
            time.sleep(0.05)
        raise AssertionError("no member of etcd leads")

    def serializable(self, member: Member, key: str) -> str | None:
        """What one member has under a key, without asking any other."""
        packed = base64.b64encode(key.encode()).decode()
        kvs = self.ask(member, "/v3/kv/range", {"key": packed, "serializable": True}).get("kvs", [])
        return base64.b64decode(kvs[0]["value"]).decode() if kvs else None

    def wait_until_well(self) -> None:
        end = time.monotonic() + START_MAX_S
        while time.monotonic() < end:
            if all(self._is_well(member) for member in self.members):
                return
            time.sleep(0.05)
        raise AssertionError(f"etcd did not get well; see {self.folder}")

    def _is_well(self, member: Member) -> bool:
        if self.client_ca is not None:  # we have no certificate to show
            return "serving client traffic" in (member.folder / "log").read_text()
        try:
            self.ask(member, "/v3/kv/range", {"key": base64.b64encode(b"x").decode()})
        except urllib.error.HTTPError as error:
            return error.code in (400, 401, 403)  # it wants a login
        except OSError:
            return False
        return True
