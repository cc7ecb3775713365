"""A real Redfish service for tests: `sushy-emulator` of OpenStack's sushy-tools with its fake driver, over TLS.

Its power changes after a number of seconds that a file holds, so that a test can make it slow or stuck while it runs.
It has no accounts, no ETags, no ActionInfo and no tasks: for those see `redfish_double`.
"""

from __future__ import annotations

import base64
import json
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from tests.peers.certificates import Certificate

ADDRESS = "127.0.0.1"
USERNAME, PASSWORD = "fencer", "fencer-secret-7"
READY_WITHIN_S = 30.0
NEVER = 10**6

_CONFIG = """\
SUSHY_EMULATOR_LISTEN_IP = "{address}"
SUSHY_EMULATOR_LISTEN_PORT = {port}
SUSHY_EMULATOR_FAKE_DRIVER = True
SUSHY_EMULATOR_FEATURE_SET = "full"
SUSHY_EMULATOR_STATE_DIR = "{folder}/state"
SUSHY_EMULATOR_AUTH_FILE = "{folder}/htpasswd"
SUSHY_EMULATOR_SSL_CERT = "{cert}"
SUSHY_EMULATOR_SSL_KEY = "{key}"
SUSHY_EMULATOR_DISABLE_POWER_OFF = {refuses}
SUSHY_EMULATOR_FAKE_SYSTEMS = {systems}
# this file is Python: the lag of a power change comes from a file in place of the driver's dice
import pathlib, types
from sushy_tools.emulator.resources.systems import fakedriver
fakedriver.random = types.SimpleNamespace(randint=lambda low, high: int(pathlib.Path("{folder}/lag").read_text()))
"""


class SushyEmulator:
    """One Redfish service with one or more systems."""

    def __init__(self, folder: Path, venv: Path, certificate: Certificate, systems: int = 1) -> None:
        """Prepare it; nothing runs yet."""
        self.folder, self.certificate, self.address = folder, certificate, ADDRESS
        self.uuids = [str(uuid.uuid4()) for _ in range(systems)]
        self.port = _free_port()
        self._venv = venv
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "state").mkdir(parents=True)
        hashed = "import bcrypt, sys; print(bcrypt.hashpw(sys.argv[1].encode(), bcrypt.gensalt(4)).decode())"
        made = subprocess.run([venv / "bin/python", "-c", hashed, PASSWORD], check=True, capture_output=True, text=True)
        (folder / "htpasswd").write_text(f"{USERNAME}:{made.stdout}")
        self.set_lag(0)

    def start(self, *, refuses: bool = False) -> None:
        """Start it and wait until it answers; `refuses` makes it answer 400 to a power-off."""
        systems = [
            {"uuid": each, "name": f"node{index}", "power_state": "On", "external_notifier": False,
             "nics": [{"mac": "00:5c:52:31:3a:9c", "ip": ADDRESS}]}
            for index, each in enumerate(self.uuids)
        ]  # fmt: skip
        config = self.folder / "config.py"
        config.write_text(
            _CONFIG.format(
                address=ADDRESS,
                port=self.port,
                folder=self.folder,
                systems=systems,
                refuses=refuses,
                cert=self.certificate.cert,
                key=self.certificate.key,
            )
        )
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._venv / "bin/sushy-emulator", "--config", config],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"sushy-emulator is not ready: {(self.folder / 'output').read_text()[-2000:]}")
            time.sleep(0.05)

    def set_lag(self, seconds: int) -> None:
        """Let power changes take so long; `NEVER` acknowledges and changes nothing."""
        (self.folder / "lag").write_text(str(seconds))

    def freeze(self) -> None:
        """Stop the process in its tracks."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it; the power of its systems stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def power_is_on(self, system: int = 0) -> bool:
        """Ask as another client would."""
        return bool(self._ask(f"/redfish/v1/Systems/{self.uuids[system]}")["PowerState"] == "On")

    def set_power(self, on: bool, system: int = 0) -> None:
        """Switch at once, as another client would."""
        lag = (self.folder / "lag").read_text()
        self.set_lag(0)
        path = f"/redfish/v1/Systems/{self.uuids[system]}/Actions/ComputerSystem.Reset"
        self._ask(path, {"ResetType": "On" if on else "ForceOff"})
        self.power_is_on(system)  # the fake driver changes when it is looked at
        (self.folder / "lag").write_text(lag)

    def _ask(self, path: str, body: dict[str, str] | None = None) -> Any:
        context = ssl.create_default_context(cafile=str(self.certificate.cert))
        request = urllib.request.Request(f"https://{ADDRESS}:{self.port}{path}")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode())
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, context=context, timeout=5) as answer:
            return json.loads(answer.read() or b"{}")

    def _answers(self) -> bool:
        try:
            self._ask("/redfish/v1/")
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])
