"""The bridge with programs of our own in place of agents."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from ha_controller_fence_agents import BridgeAgent, BridgeConfig, metadata
from pydantic import SecretStr, ValidationError

from ha_controller import process
from ha_controller.plugin import AccessDenied, Capability, FenceError, PowerState, Rejected, Unreachable

METADATA = """<resource-agent name="fence_toy" shortdesc="A toy"><parameters>
<parameter name="ip" required="1"><content type="string"/><shortdesc>IP address</shortdesc></parameter>
<parameter name="password" required="0"><content type="string"/></parameter>
<parameter name="size" required="0"><content type="select"><option value="big"/><option value="small"/></content></parameter>
</parameters><actions><action name="reboot"/><action name="off"/><action name="on"/><action name="status"/><action name="monitor"/></actions>
</resource-agent>"""  # noqa: E501
NAP = f"sleep {10_000 + os.getpid()}"  #: of this test process alone
MakeAgent = Callable[..., BridgeAgent]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeAgent:
    """Install a program that runs a script after it has written down what it was given."""

    def make(script: str, **config: Any) -> BridgeAgent:
        path = tmp_path / "fence_toy"
        path.write_text(
            f'#!/bin/sh\n[ "$1" = -o ] && cat {tmp_path}/metadata && exit\ncat >{tmp_path}/given\n'
            f"env >{tmp_path}/env; echo $# >{tmp_path}/arguments\n{script}\n"
        )
        path.chmod(0o755)
        (tmp_path / "metadata").write_text(METADATA)
        monkeypatch.setattr(process, "PATH", f"{tmp_path}:{process.PATH}")
        metadata.forget()
        settings = {"program": "fence_toy", "parameters": {"ip": "192.0.2.1"}} | config
        return BridgeAgent(BridgeConfig.model_validate(settings))

    return make


async def test_what_is_given_to_the_program(toy: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HA_OPENNEBULA_AUTH", "oneadmin:secret-7")
    agent = toy("exit 0", parameters={"ip": ' "192.0.2.1" ', "size": "big"}, secrets={"password": SecretStr(' "p=w# ')})
    await agent.power_off()
    given = (tmp_path / "given").read_text().splitlines()
    assert given == ["action=off", 'ip=" "192.0.2.1" "', "size=big", 'password=" "p=w# "']
    assert (tmp_path / "arguments").read_text().strip() == "0"
    assert "secret-7" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize(("status", "power"), [(0, PowerState.ON), (2, PowerState.OFF)])
async def test_on_and_off_are_exit_statuses(toy: MakeAgent, status: int, power: PowerState):
    assert await toy(f"echo Status: {power.name}; exit {status}").power_state() is power


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo 'ERROR: Connection timed out' >&2; exit 1", Unreachable),
        ("echo 'Failed: Invalid privileges' >&2; exit 1", AccessDenied),
        ("echo 'Failed: something' >&2; exit 1", FenceError),
        ("exit 2", FenceError),  # a program that cannot be read
        ("exit 3", FenceError),
        ("kill -9 $$", FenceError),
    ],
)
async def test_everything_else_is_unknown(toy: MakeAgent, script: str, error: type[FenceError]):
    with pytest.raises(FenceError) as raised:
        await toy(script).power_state()
    assert type(raised.value) is error


@pytest.mark.parametrize("words", ["Invalid privileges", "Timed out waiting to power OFF", "Access denied"])
async def test_a_failed_off_claims_nothing(toy: MakeAgent, words: str):
    with pytest.raises(FenceError) as raised:
        await toy(f"echo 'Failed: {words}' >&2; exit 1").power_off()
    assert not isinstance(raised.value, (AccessDenied, Rejected))


async def test_secrets_are_scrubbed_from_what_it_says(toy: MakeAgent):
    agent = toy("cat >&2 <<E\nbad password pass-7\nE\nexit 1", secrets={"password": SecretStr("pass-7")})
    with pytest.raises(FenceError, match=r"bad password \*\*\*"):
        await agent.power_off()


async def test_a_program_that_is_gone_did_nothing(toy: MakeAgent, tmp_path: Path):
    agent = toy("exit 0")
    (tmp_path / "fence_toy").unlink()
    with pytest.raises(Rejected, match="not installed any more"):
        await agent.power_off()


@pytest.mark.parametrize(
    "script",
    [NAP, f"setsid {NAP} & wait", f"(setsid sh -c '{NAP}; true' &) ; {NAP}"],
    ids=("itself", "its child in another session", "an orphan"),
)
async def test_a_call_that_is_cut_off_leaves_no_process(toy: MakeAgent, tmp_path: Path, script: str):
    agent = toy(f"trap '' TERM\n{script}")
    await cut_off_when_it_runs(agent)
    with anyio.fail_after(2):
        while living(NAP):  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def test_a_call_that_is_cut_off_before_it_began_starts_nothing(toy: MakeAgent, tmp_path: Path):
    agent = toy("exit 0")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await agent.power_off()
    await anyio.sleep(0.1)
    assert not (tmp_path / "given").exists()


async def test_a_program_that_nobody_can_stop_is_stopped(toy: MakeAgent):
    agent = toy(f"while :; do {NAP} & done")  # a fork bomb, slowly
    await cut_off_when_it_runs(agent)
    with anyio.fail_after(5):
        while living(NAP):  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def cut_off_when_it_runs(agent: BridgeAgent) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(agent.power_off)
        with anyio.fail_after(10):
            while not living(NAP):  # noqa: ASYNC110
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()


def living(command: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if line == command and (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(int(entry.name))
        except (OSError, IndexError):
            continue
    return found


@pytest.mark.parametrize("capability", [Capability.READ_POWER, Capability.OUT_OF_BAND])
def test_weakness_is_the_operators_word_too(toy: MakeAgent, capability: Capability):
    agent = toy("exit 0", weak_off=True)
    assert Capability.WEAK_OFF in agent.capabilities
    assert capability in agent.capabilities
    assert Capability.WEAK_OFF not in BridgeAgent.capabilities


@pytest.fixture(autouse=True)
def _no_leftovers():
    yield
    for pid in living(NAP):
        os.kill(pid, signal.SIGKILL)


def test_what_takes_a_missing_plug_for_off_is_weak(toy: MakeAgent, tmp_path: Path):
    toy("exit 0")
    (tmp_path / "metadata").write_text(METADATA.replace('"size"', '"missing_as_off"').replace("select", "boolean"))
    metadata.forget()
    parameters = {"ip": "192.0.2.1", "missing_as_off": True}
    agent = BridgeAgent(BridgeConfig.model_validate({"program": "fence_toy", "parameters": parameters}))
    assert Capability.WEAK_OFF in agent.capabilities


def test_what_switches_no_power_is_refused(toy: MakeAgent, tmp_path: Path):
    toy("exit 0")
    (tmp_path / "metadata").write_text(METADATA.replace('<action name="reboot"/>', ""))
    metadata.forget()
    with pytest.raises(ValidationError, match="does not switch power"):
        BridgeConfig.model_validate({"program": "fence_toy", "parameters": {"ip": "192.0.2.1"}})


async def test_a_program_that_cannot_be_started_did_nothing(toy: MakeAgent, tmp_path: Path):
    agent = toy("exit 0")
    (tmp_path / "fence_toy").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(Rejected, match="cannot be started"):
        await agent.power_off()


def test_a_program_that_does_not_describe_itself_is_asked_once(toy: MakeAgent, tmp_path: Path):
    toy("exit 0")
    (tmp_path / "metadata").write_text("no XML")
    metadata.forget()
    for _ in range(2):
        with pytest.raises(ValidationError, match="does not describe itself"):
            BridgeConfig.model_validate({"program": "fence_toy"})
        (tmp_path / "metadata").write_text(METADATA)


@pytest.mark.parametrize("name", ["password", "apikey", "api_key", "community", "snmp_priv_passwd"])
def test_a_secret_among_the_parameters_is_refused(toy: MakeAgent, name: str):
    toy("exit 0")
    with pytest.raises(ValidationError, match="write it into the table secrets") as raised:
        BridgeConfig.model_validate({"program": "fence_toy", "parameters": {"ip": "192.0.2.1", name: "hidden-7"}})
    assert "hidden-7" not in str(raised.value)


async def test_a_cut_off_program_is_killed_although_all_shared_threads_wait(toy: MakeAgent):
    agent, shared = toy(NAP), anyio.to_thread.current_default_thread_limiter()
    free, shared.total_tokens = shared.total_tokens, 1
    leave = threading.Event()
    try:
        async with anyio.create_task_group() as others:
            others.start_soon(anyio.to_thread.run_sync, leave.wait)
            with anyio.fail_after(5):
                await cut_off_when_it_runs(agent)
            assert living(NAP) == []
            leave.set()
    finally:
        leave.set()
        shared.total_tokens = free
