"""Real SNMP agents for tests: net-snmp's snmpd, one process per PDU, with a small back end that pretends the outlets.

Version 1 and 2c with a community that may read and one that may write; version 3 with SHA-256 and AES for one account,
SHA and AES for another, and a third that may only read.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ADDRESS = "127.0.0.1"
READY_WITHIN_S = 15.0
MAY_READ, MAY_WRITE = "public-7", "private-7"
USER, AUTH, PRIV = "fencer", "auth-secret-7", "priv-secret-7"
SHA1_USER, READER = "fencer-sha1", "reader"
BACKEND = Path(__file__).with_name("pdu_backend.py")
_PARTS = "device storage filesys network partition print system proc swrun swinst"
QUIET = ",".join(f"-hr_{part}" for part in _PARTS.split())  #: parts of snmpd that look at this machine


@dataclass(kw_only=True)
class Pdu:
    """One PDU."""

    folder: Path
    vendor: str
    outlets: int = 8
    port: int = 0
    address: str = ADDRESS
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def is_on(self, outlet: int) -> bool:
        """Look at the outlet itself."""
        file = self.folder / f"outlet.{outlet}"
        return not file.exists() or file.read_text() == "1"

    def set_power(self, outlet: int, on: bool) -> None:
        """Switch the outlet by hand."""
        (self.folder / f"outlet.{outlet}").write_text("1" if on else "0")

    def orders(self) -> list[str]:
        """Return what was ordered, as "OUTLET VALUE"."""
        file = self.folder / "orders"
        return file.read_text().splitlines() if file.exists() else []

    def break_with(self, fault: str, content: str = "") -> None:
        """Set a fault file: stuck, lag, readonly, or the names."""
        (self.folder / fault).write_text(content)

    def repair(self) -> None:
        """Remove all fault files."""
        for fault in ("stuck", "lag", "readonly"):
            (self.folder / fault).unlink(missing_ok=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        config = self.folder / "snmpd.conf"
        config.write_text(
            "\n".join(
                [
                    f"agentaddress udp:{ADDRESS}:{self.port}",
                    "sysObjectID .1.3.6.1.4.1.318.1.3.4.5",  # fence_apc_snmp wants to see an APC
                    f"rocommunity {MAY_READ} {ADDRESS}",
                    f"rwcommunity {MAY_WRITE} {ADDRESS}",
                    f'createUser {USER} SHA-256 "{AUTH}" AES "{PRIV}"',
                    f'createUser {SHA1_USER} SHA "{AUTH}" AES "{PRIV}"',
                    f'createUser {READER} SHA "{AUTH}" AES "{PRIV}"',
                    f"rwuser {USER} authpriv",
                    f"rwuser {SHA1_USER} authpriv",
                    f"rouser {READER} authpriv",
                    f"pass_persist .1.3.6.1.4.1 {sys.executable} {BACKEND} {self.vendor} {self.folder} {self.outlets}",
                    "",
                ]
            )
        )
        (self.folder / "persist").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            ["snmpd", "-f", "-C", "-c", config, "-Lf", self.folder / "log", "-M", "", "-I", QUIET],
            env={**os.environ, "SNMP_PERSISTENT_DIR": str(self.folder / "persist")},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"snmpd is not ready: {(self.folder / 'log').read_text()[-2000:]}")

    def freeze(self) -> None:
        """Stop the process in its tracks."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it; the outlets stay as they are, and what it had not read is lost."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        oid = "1.3.6.1.2.1.1.3.0"
        command = ["snmpget", "-v2c", "-c", MAY_READ, "-t", "0.2", "-r", "0", "-m", "", f"{ADDRESS}:{self.port}", oid]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class PduFarm:
    """Starts PDUs and ends all of them."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder."""
        self._folder = folder
        self._pdus: list[Pdu] = []

    def start(self, vendor: str = "apc-rpdu", outlets: int = 8) -> Pdu:
        """Start one with all outlets on."""
        folder = self._folder / f"pdu{len(self._pdus)}"
        folder.mkdir()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((ADDRESS, 0))
            port = int(probe.getsockname()[1])
        pdu = Pdu(folder=folder, vendor=vendor, outlets=outlets, port=port)
        self._pdus.append(pdu)
        pdu.start()
        return pdu

    def stop(self) -> None:
        """End every PDU that was started here."""
        for pdu in self._pdus:
            pdu.stop()
