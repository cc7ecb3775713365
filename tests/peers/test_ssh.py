"""The SSH agent against OpenSSH's sshd, and against a host in namespaces that really powers off."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from ha_controller_ssh import SshAgent, SshConfig

from ha_controller.plugin import AccessDenied, FenceAgent, FenceError, Rejected, Unreachable
from ha_controller.testing import CHECKS, Check, Fault, Rig
from tests.peers.ssh_host import NamespaceHost, Sshd

pytestmark = pytest.mark.peer
PASSWORD = "not-a-password-of-anybody"  # offered besides the key; sshd asks for the key first


@pytest.fixture(autouse=True)
def _needs(require_peer: Callable[[str], str]) -> None:
    for program in ("sshd", "ssh-keygen", "ip", "unshare"):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")


def agent_for(sshd: Sshd, **settings: Any) -> SshAgent:
    written = {
        "address": sshd.address, "port": sshd.port, "key_file": str(sshd.folder / "key"), "password": PASSWORD,
        "known_hosts": str(sshd.folder / "known_hosts"),
    }  # fmt: skip
    return SshAgent(SshConfig.model_validate(written | settings))


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    made = Sshd(tmp_path / "sshd")
    yield made
    made.stop()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[NamespaceHost]:
    worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0)
    made = NamespaceHost(tmp_path / "host", worker)
    yield made
    made.remove()


# --- the conformance suite --------------------------------------------------------------------------------------------

SWITCH = """\
#!/bin/sh
cd "$(dirname "$0")"
case "$(cat fault)" in
"refuses") echo "you may not" >&2; exit 1 ;;
"stays on") exit 0 ;;
"slow") (sleep 1; echo 0 >power) </dev/null >/dev/null 2>&1 & exit 0 ;;
esac
echo 0 >power
"""


class SshRig:
    """Implements `ha_controller.testing.Rig` with one sshd whose command is a script."""

    agent_class: type[FenceAgent[Any]] = SshAgent
    secrets: Sequence[str] = (PASSWORD,)
    system_uuid: str | None = None

    def __init__(self, sshd: Sshd, nonsense_port: int) -> None:
        self.sshd, self._nonsense_port = sshd, nonsense_port
        self._fault: Fault | None = None
        self._switch = sshd.folder / "switch"
        self._switch.write_text(SWITCH)
        self._switch.chmod(0o755)
        (sshd.folder / "fault").write_text("")
        (sshd.folder / "power").write_text("1")

    def make_agent(self, *, wrong_password: bool = False) -> FenceAgent[Any]:
        settings: dict[str, Any] = {"command": str(self._switch)}
        if wrong_password:
            settings["key_file"] = str(self.sshd.folder / "other_key")
        if self._fault is Fault.NONSENSE:
            settings["port"] = self._nonsense_port
        return agent_for(self.sshd, **settings)

    async def host_is_on(self) -> bool:
        return (self.sshd.folder / "power").read_text().strip() == "1"

    async def set_host_power(self, on: bool) -> None:
        (self.sshd.folder / "power").write_text("1" if on else "0")

    async def set_fault(self, fault: Fault | None) -> None:
        if self._fault is Fault.HANGS:
            self.sshd.stop()
            await anyio.to_thread.run_sync(self.sshd.start)
        self._fault = fault
        (self.sshd.folder / "fault").write_text(fault.value if fault else "")
        if fault is Fault.HANGS:
            self.sshd.freeze()


@pytest.fixture
async def ssh_rig(sshd: Sshd) -> AsyncIterator[SshRig]:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-\xff\xfe\r\n" + bytes(range(256)) * 4)
        await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    yield SshRig(sshd, server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_agent_conforms(check: Check, ssh_rig: Rig) -> None:
    await check(ssh_rig)


# --- sshd -------------------------------------------------------------------------------------------------------------


async def test_another_host_key_is_refused_and_nothing_is_run(sshd: Sshd) -> None:
    sshd.know("other_key")
    with pytest.raises(AccessDenied, match="another host key"):
        await agent_for(sshd, command=f"touch {sshd.folder}/ran").power_off()
    assert not (sshd.folder / "ran").exists()


async def test_the_check_runs_nothing_even_with_a_key_that_is_bound_to_the_power_off(sshd: Sshd) -> None:
    bound = f'command="touch {sshd.folder}/ran",restrict {(sshd.folder / "key.pub").read_text()}'
    (sshd.folder / "authorized_keys").write_text(bound)
    report = await agent_for(sshd).check()
    assert report.ok
    await anyio.sleep(0.3)
    assert not (sshd.folder / "ran").exists()
    await agent_for(sshd).power_off()
    assert (sshd.folder / "ran").exists()


@pytest.mark.parametrize(
    ("command", "error"), [("exit 7", FenceError), ("no-such-command", Rejected), ("kill -9 $$", Unreachable)]
)
async def test_only_status_0_is_accepted(sshd: Sshd, command: str, error: type[FenceError]) -> None:
    with pytest.raises(FenceError) as raised:
        await agent_for(sshd, command=command).power_off()
    assert type(raised.value) is error


async def test_a_check_command_is_run(sshd: Sshd) -> None:
    assert (await agent_for(sshd, check_command="true").check()).ok
    report = await agent_for(sshd, check_command="echo may not; exit 3").check()
    assert (report.ok, "check_command failed: may not" in report.summary) == (False, True)


async def test_a_closed_port_is_unreachable(sshd: Sshd) -> None:
    sshd.stop()
    with pytest.raises(Unreachable):
        await agent_for(sshd).power_off()


# --- a host in namespaces ---------------------------------------------------------------------------------------------


async def test_a_host_really_goes_off_and_that_is_accepted_or_unknown(host: NamespaceHost) -> None:
    agent = agent_for(host.sshd, command=str(host.power_off))
    assert (await agent.check()).ok
    with anyio.fail_after(10), suppress(Unreachable):  # which of both comes first is a race
        await agent.power_off()
    with anyio.fail_after(5):
        while host.is_on():
            await anyio.sleep(0.05)


async def test_a_partition_while_the_command_runs_leaves_the_outcome_unknown(host: NamespaceHost) -> None:
    agent = agent_for(host.sshd, command="sleep 100")
    began = time.monotonic()

    async def cut() -> None:
        await anyio.sleep(1.0)
        host.cut_off()

    async with anyio.create_task_group() as group:
        group.start_soon(cut)
        with anyio.fail_after(10), pytest.raises(Unreachable, match="may be going off"):
            await agent.power_off()
    assert time.monotonic() - began < 7
    assert host.is_on()


async def test_a_host_that_is_cut_off_ends_at_the_deadline(host: NamespaceHost) -> None:
    host.cut_off()
    with pytest.raises((TimeoutError, Unreachable)), anyio.fail_after(1.0):
        await agent_for(host.sshd).power_off()
