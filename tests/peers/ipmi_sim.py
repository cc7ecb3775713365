"""Real IPMI BMCs for tests: one `ipmi_sim` process (OpenIPMI, independent C code) per BMC, on loopback.

The power of the pretended chassis is a file, which a small shell script reads and writes for ipmi_sim. Fault files
beside it make the chassis misbehave. Everything lives in the folder given by the test; `IpmiSimFarm.stop` ends the
processes.

Known of ipmi_sim 2.0.33: cipher suite 3 is its best, a Kg longer than 19 characters is cut, and its one thread waits
for the chassis script, so that a slow script is a slow BMC.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

FIRST_PORT = 19000
PORTS_PER_WORKER = 400
READY_WITHIN_S = 10.0
ADDRESS = "127.0.0.1"

#: ASF presence ping: answered before any login, so it shows that the BMC runs (IPMI 2.0, 13.2.3).
_PRESENCE_PING = bytes.fromhex("0600ff06 000011be 80000000")


@dataclass(frozen=True, kw_only=True)
class User:
    """An account that every BMC here has."""

    name: str
    password: str


ADMINISTRATOR = User(name="admin", password="admin-secret-7")
OPERATOR = User(name="fencer", password="fencer-secret-7")
MONITOR = User(name="monitor", password="monitor-secret-7")  #: may only read


class Fault(StrEnum):
    """Names of the fault files."""

    STUCK = "stuck"  #: acknowledges an order and changes nothing
    FAIL = "fail"  #: refuses orders, with an IPMI completion code
    OFFLAG = "offlag"  #: holds the seconds that pass until a power-off shows


_CHASSIS_SCRIPT = """\
#!/bin/sh
# Called by ipmi_sim: FOLDER get power | FOLDER set power 0. An exit status other than 0 becomes a completion code.
folder=$1; action=$2; shift 2
case "$action $1" in
"get power")
    if [ -e "$folder/off_at" ] && [ "$(date +%s%N)" -ge "$(cat "$folder/off_at")" ]; then
        rm -f "$folder/off_at"; echo 0 >"$folder/power"
    fi
    if [ -x "$folder/probe" ]; then value=$("$folder/probe"); else read -r value <"$folder/power"; fi
    echo "power:$value" ;;
"get boot")
    echo "boot:default" ;;
"set power")
    echo "$1 $2" >>"$folder/orders"
    [ -e "$folder/fail" ] && exit 1
    [ -e "$folder/stuck" ] && exit 0
    if [ "$2" = 0 ] && [ -e "$folder/offlag" ]; then
        echo $(($(date +%s%N) + $(cat "$folder/offlag") * 1000000000)) >"$folder/off_at"
    else
        rm -f "$folder/off_at"; echo "$2" >"$folder/power"
    fi
    if [ -x "$folder/hook" ]; then "$folder/hook" "$2"; fi ;;
"set "*)
    echo "$1 $2" >>"$folder/orders" ;;
*)
    exit 1 ;;
esac
exit 0
"""

#: One management controller with an event log.
_COMMANDS = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""


@dataclass(kw_only=True)
class IpmiSim:
    """One BMC and its chassis."""

    folder: Path
    port: int
    system_uuid: uuid.UUID
    kg: str | None = None
    address: str = ADDRESS
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def power_is_on(self) -> bool:
        """Look at the chassis itself, not through the BMC."""
        answer = subprocess.run(
            [self.folder / "chassis", self.folder, "get", "power"], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip() == "power:1"

    def set_power(self, on: bool) -> None:
        """Change the chassis itself, as somebody at the power button would."""
        (self.folder / "off_at").unlink(missing_ok=True)
        (self.folder / "power").write_text("1\n" if on else "0\n")

    def orders(self) -> list[str]:
        """Return what the BMC ordered so far, such as "power 0", oldest first."""
        orders = self.folder / "orders"
        return orders.read_text().splitlines() if orders.exists() else []

    def break_with(self, fault: Fault, content: str = "") -> None:
        """Set a fault file; `OFFLAG` needs whole seconds as its content."""
        (self.folder / fault.value).write_text(content)

    def repair(self, fault: Fault) -> None:
        """Remove a fault file."""
        (self.folder / fault.value).unlink(missing_ok=True)

    def start(self) -> None:
        """Start the process. It is not ready yet: see `wait_until_ready`."""
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                ["ipmi_sim", "-c", self.folder / "lan.conf", "-f", self.folder / "commands",
                 "-s", self.folder / "state", "-n"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def wait_until_ready(self) -> None:
        """Wait until the BMC answers a ping.

        Raises:
            RuntimeError: it did not, in `READY_WITHIN_S`; the text holds the output of ipmi_sim.
        """
        if not self.answers(within_s=READY_WITHIN_S):
            raise RuntimeError(f"ipmi_sim is not ready: {(self.folder / 'output').read_text()[-2000:]}")

    def answers(self, *, within_s: float) -> bool:
        """Whether the BMC answers a ping; several are sent."""
        deadline = time.monotonic() + within_s
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.05)
            while not (answered := self._answers(client)) and time.monotonic() < deadline:
                pass
        return answered

    def freeze(self) -> None:
        """Stop the process in its tracks: packets are taken by the kernel and never answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def restart(self) -> None:
        """Kill and start again: packets that a frozen BMC had not read are lost."""
        self.kill()
        self.start()
        self.wait_until_ready()

    def kill(self) -> None:
        """End the process; the port is closed after that. The chassis keeps its power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None

    def _answers(self, client: socket.socket) -> bool:
        try:
            client.sendto(_PRESENCE_PING, (self.address, self.port))
            return bool(client.recv(100))
        except (TimeoutError, ConnectionRefusedError):
            return False


class IpmiSimFarm:
    """Starts BMCs and ends all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bmcs: list[IpmiSim] = []
        self._ports = _free_ports()

    def start(
        self, count: int, *, kg: str | None = None, hook: Path | None = None, probe: Path | None = None
    ) -> list[IpmiSim]:
        """Start BMCs with the chassis on, and wait until all answer.

        `hook` is run with 1 or 0 after each power change. `probe` prints 1 or 0: the real state, in place of the file.
        """
        ports = itertools.islice(self._ports, count)
        return _started([self._prepare(ADDRESS, port, kg=kg, hook=hook, probe=probe) for port in ports])

    def start_at(self, hooks: Mapping[tuple[str, int], Path]) -> list[IpmiSim]:
        """Start a BMC at each address and port, with a hook of its own."""
        return _started([self._prepare(*place, kg=None, hook=hook, probe=None) for place, hook in hooks.items()])

    def stop(self) -> None:
        """End every BMC that was started here."""
        for bmc in self._bmcs:
            bmc.kill()

    def _prepare(self, address: str, port: int, *, kg: str | None, hook: Path | None, probe: Path | None) -> IpmiSim:
        folder = self._folder / f"bmc{len(self._bmcs)}"
        (folder / "state").mkdir(parents=True)
        bmc = IpmiSim(folder=folder, address=address, port=port, system_uuid=uuid.uuid4(), kg=kg)
        self._bmcs.append(bmc)
        bmc.set_power(True)
        script = folder / "chassis"
        script.write_text(_CHASSIS_SCRIPT)
        script.chmod(0o755)
        for name, program in (("hook", hook), ("probe", probe)):
            if program is not None:
                (folder / name).symlink_to(program)
        (folder / "lan.conf").write_text(_lan_conf(bmc))
        (folder / "commands").write_text(_COMMANDS)
        return bmc


def _started(bmcs: list[IpmiSim]) -> list[IpmiSim]:
    for bmc in bmcs:
        bmc.start()
    for bmc in bmcs:
        bmc.wait_until_ready()
    return bmcs


class Peer(Protocol):
    """Something that answers datagrams."""

    address: str
    port: int


class _Side(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, Any], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)


@asynccontextmanager
async def tampering_relay(bmc: Peer, tamper: Callable[[bytes], Iterable[bytes]]) -> AsyncIterator[int]:
    """Yield a port that leads one client to a peer; each answer is replaced by the datagrams that `tamper` returns."""
    loop = asyncio.get_running_loop()
    client: Any = None

    def from_client(datagram: bytes, sender: Any) -> None:
        nonlocal client
        client = sender
        to_bmc.sendto(datagram)

    def from_bmc(datagram: bytes, _sender: Any) -> None:
        for replacement in tamper(datagram):
            to_client.sendto(replacement, client)

    to_bmc, _ = await loop.create_datagram_endpoint(lambda: _Side(from_bmc), remote_addr=(bmc.address, bmc.port))
    to_client, _ = await loop.create_datagram_endpoint(lambda: _Side(from_client), local_addr=(ADDRESS, 0))
    try:
        yield to_client.get_extra_info("sockname")[1]
    finally:
        to_client.abort()
        to_bmc.abort()


class BlackHole:
    """An address that takes every packet and never answers."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 0))
        self.address = ADDRESS
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Free the port: from now on it is a closed one."""
        self._socket.close()


def _free_ports() -> Iterator[int]:
    """Count up through this worker's own range, past ports that are in use."""
    worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0)
    first = FIRST_PORT + worker * PORTS_PER_WORKER
    for port in itertools.islice(itertools.count(first), PORTS_PER_WORKER):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as candidate:
            try:
                candidate.bind((ADDRESS, port))
            except OSError:
                continue
        yield port


def _lan_conf(bmc: IpmiSim) -> str:
    levels = ("callback", "user", "operator", "admin")
    accounts = ((ADMINISTRATOR, "admin"), (OPERATOR, "operator"), (MONITOR, "user"))
    return "\n".join(
        [
            f'name "{bmc.folder.name}"',
            "set_working_mc 0x20",
            "startlan 1",
            f"addr {bmc.address} {bmc.port}",
            "priv_limit admin",
            *(f"allowed_auths_{level} none md2 md5 straight" for level in levels),
            f"guid {bmc.system_uuid.bytes_le.hex()}",  # in the byte order of SMBIOS, as real BMCs have it
            *([] if bmc.kg is None else [f'bmc_key "{bmc.kg}"']),
            "endlan",
            f'chassis_control "{bmc.folder}/chassis {bmc.folder}"',
            'user 1 false "" "" user 10 none md2 md5 straight',
            *(
                f'user {number} true "{user.name}" "{user.password}" {level} 10 none md2 md5 straight'
                for number, (user, level) in enumerate(accounts, start=2)
            ),
            "",
        ]
    )
