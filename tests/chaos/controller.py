"""A controller as its own process, with a service manager that starts it again, and its API.

The controller is `ha-controller serve` with a configuration, a journal and a log of its own; nothing of it is replaced.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from ha_controller.demo import demo_config
from tests.chaos.cloud import LivingCloud, small_disk

DISK_MB = 48
RESTART_AFTER_S = 1.0
LEASE_S = 6
ANSWERS_WITHIN_S = 5.0
_LAUNCH = (
    "from tests.chaos import lying; from ha_controller.sim import echo; from ha_controller.app import loading; "
    "find = loading.find_plugins; loading.find_plugins = lambda **how: find(extra_modules=[echo, lying], **how); "
    "from ha_controller.cli import main; main()"
)
_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}

#: What differs from the demo's configuration: short times, two kinds of silence, and limits that hundreds of deaths do
#: not use up. Every guard is on.
_EDITS = {
    '"oned"]': '"oned", "storage"]\nfail_after = "3s"\nhung_after = "4s"',
    "single_domain_after": "# single_domain_after",
    'poll = "2s"': 'poll = "1s"',
    'ssh_timeout = "10s"': 'ssh_timeout = "2s"',
    'max_failed_hosts = "34%"': (
        'max_failed_hosts = "50%"\nstorm_cooldown = "3s"\nmax_fences = { count = 1000, per = "1h" }\n'
        'max_fences_per_day = 10000\nquarantine = { count = 1000, per = "1h" }\nfence_rounds = 4'
    ),
    'agent = "ipmi"': 'agent = "ipmi"\ntimeout = "12s"',
}
_MORE = """
[channel.oned]
silent_after = "3s"
[channel.storage]
folder = "{leases}"
silent_after = "2s"
[recover]
vm_timeout = "40s"
rejoin = "auto"
power_on = true
"""


class Controller:
    """The process and its folder."""

    def __init__(
        self,
        folder: Path,
        cloud: LivingCloud,
        *,
        lies: bool = False,
        etcd: Sequence[str] = (),
        inside: Sequence[str] = (),
        edits: Mapping[str, str] | None = None,
    ) -> None:
        """`lies`: its power-offs go to an agent that says OFF and does nothing. `etcd`: who decides about the lead.

        `inside`: words in front of its program, such as those that enter a namespace. `edits`: of its configuration.
        """
        folder.mkdir()
        self._inside = [*inside]
        self.folder, self.state = folder, folder / "state"
        self.starts = 0
        self.ends: list[int] = []  #: exit codes of ends that nobody here caused
        self._log_read = 0
        self._process: anyio.abc.Process | None = None
        self._held_down = False
        small_disk(self.state, DISK_MB)
        demo_config(folder, cloud)
        path = folder / "config.toml"
        text = path.read_text()
        for old, new in _EDITS.items():
            assert old in text, old
            text = text.replace(old, new)
        if lies:
            head, _, tail = text.partition("[[fence]]")
            device = f'name = "liar"\nagent = "lying"\nidentity = "noted"\nnote = "{folder}/{{NAME}}.ordered-off"'
            text = f"{head}[[fence]]\n{device}\n[api]{tail.partition('[api]')[2]}"
        if etcd:
            text += f'[leader]\nkind = "etcd"\nendpoints = {json.dumps([*etcd])}\nlease = "{LEASE_S}s"\n'
        text += _MORE.format(leases=cloud.folder / "leases")
        for old, new in (edits or {}).items():
            assert old in text, old
            text = text.replace(old, new)
        path.write_text(text)

    async def run(self) -> None:
        """Be the service manager: what ends is started again."""
        try:
            while True:
                if self._held_down:
                    await anyio.sleep(0.02)
                    continue
                with (self.folder / "log").open("ab") as log:
                    words = [*self._inside, sys.executable, "-c", _LAUNCH, "serve", "-c"]
                    words.append(str(self.folder / "config.toml"))
                    self._process = await anyio.open_process(
                        words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=_ENVIRONMENT
                    )
                self.starts += 1
                code = await self._process.wait()
                if not self._held_down:
                    self.ends.append(code)
                    await anyio.sleep(RESTART_AFTER_S)
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()

    async def kill(self, down_s: float) -> None:
        """SIGKILL, and the service manager takes its time."""
        self.take_down()
        await anyio.sleep(down_s)
        self.let_up()

    def take_down(self) -> None:
        """SIGKILL, and the service manager waits."""
        self._held_down = True
        self.send_signal(signal.SIGKILL)

    def let_up(self) -> None:
        """The service manager starts it again."""
        self._held_down = False

    def send_signal(self, what: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(what)

    async def asks(self, path: str) -> Any:
        """What the API says; None if it says nothing."""
        try:
            async with self._session() as session, session.get(f"http://controller/api/v1/{path}") as answer:
                return await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    async def order(self, verb: str, incident: int, host: str) -> str:
        """What a person orders on the command line, and the answer."""
        of = f"incidents/{incident}" if verb in ("approve", "reject") else f"hosts/{host}"
        try:
            url = f"http://controller/api/v1/{of}/{verb}"
            async with self._session() as session, session.post(url, json={"reason": "chaos"}) as answer:
                told = json.loads(await answer.read())
                return str(told.get("text") or told.get("detail"))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return repr(error)

    async def checks_devices(self) -> None:
        """What `ha-controller fencing check` does."""
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._session() as session:
                await session.post("http://controller/api/v1/fencing/check")

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(str(self.folder / "socket"))
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S))

    def new_lines(self) -> list[str]:
        """What it has logged since this was last asked."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        new, self._log_read = lines[self._log_read :], len(lines)
        return new
