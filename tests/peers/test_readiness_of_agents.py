"""Whether a guest agent answers, asked of a real sshd on loopback whose `virsh` writes what libvirt does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from ha_controller.adapters import readiness
from ha_controller.adapters.readiness import AGENTS_AT_ONCE, ReadinessAsker
from ha_controller.adapters.ssh_login import SshLogin
from ha_controller.core.effects import AskReady
from ha_controller.core.events import Readiness, ReadyRead
from ha_controller.core.resources import ReadyBy, ReadyGate
from ha_controller.plugin import Target
from tests.peers.ssh_host import Sshd, virsh

ERROR = "error: {}"
NOT_CONNECTED = "Guest agent is not responding: QEMU guest agent is not connected"


@pytest.fixture
def sshd(tmp_path: Path, require_peer: Callable[[str], str]) -> Iterator[Sshd]:
    for program in ("ssh-keygen", "sshd"):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    made = Sshd(tmp_path / "host")
    yield made
    made.stop()


def asker(sshd: Sshd, events: list[ReadyRead], *, login: bool = True) -> ReadinessAsker:
    account = SshLogin(
        username="root", key_file=sshd.folder / "key", known_hosts=sshd.folder / "known_hosts", port=sshd.port
    )
    return ReadinessAsker(
        account if login else None,
        targets=lambda: [Target(host=3, name="kvm-03", address="127.0.0.1"), Target(host=4, name="x", address="")],
        report=events.append,  # type: ignore[arg-type]
        clock=lambda: 17.0,
    )


async def said(sshd: Sshd, *, login: bool = True, host: int | None = 3) -> tuple[Readiness, str]:
    events: list[ReadyRead] = []
    gate = ReadyGate(by=ReadyBy.AGENT)
    await asker(sshd, events, login=login).ask(AskReady(vm=42, incident=5, host=host, gate=gate))
    [event] = events
    assert (event.vm, event.incident, event.asked_at) == (42, 5, 17.0)
    return event.readiness, event.detail


@pytest.mark.peer
async def test_an_agent_that_answers_is_ready_and_was_asked_with_a_deadline(sshd):
    virsh(sshd, f"printf '%s\\n' \"$@\" > {sshd.folder}/asked; echo '{{\"return\":{{}}}}'")
    assert await said(sshd) == (Readiness.READY, "")
    assert (sshd.folder / "asked").read_text().split("\n") == [
        "--connect", "qemu:///system", "qemu-agent-command", "--timeout", "3", "one-42", '{"execute":"guest-ping"}', "",
    ]  # fmt: skip


@pytest.mark.peer
@pytest.mark.parametrize(
    ("words", "readiness", "detail"),
    [
        (ERROR.format(NOT_CONNECTED), Readiness.NOT_YET, "its guest agent does not answer"),
        (
            ERROR.format("Guest agent is not responding: Guest agent not available for now"),
            Readiness.NOT_YET,
            "its guest agent does not answer",
        ),
        (
            ERROR.format("argument unsupported: QEMU guest agent is not configured"),
            Readiness.UNKNOWN,
            "it has no channel for a guest agent",
        ),
        (
            ERROR.format("failed to get domain 'one-42'"),
            Readiness.UNKNOWN,
            "its host has no such domain",
        ),
        (
            ERROR.format("Requested operation is not valid: domain is not running"),
            Readiness.NOT_YET,
            "its domain does not run",
        ),
        (ERROR.format("failed to connect to the hypervisor"), Readiness.UNKNOWN, "says neither yes nor no"),
        ("", Readiness.UNKNOWN, "says neither yes nor no"),
    ],
)
async def test_what_libvirt_says_instead_is_not_ready(sshd, words, readiness, detail):
    virsh(sshd, f"cat >&2 <<'EOF'\n{words}\nEOF\nexit 1")
    found = await said(sshd)
    assert found[0] is readiness
    assert detail in found[1]


@pytest.mark.peer
async def test_a_host_that_cannot_be_asked_is_unknown(sshd):
    virsh(sshd, "echo '{\"return\":{}}'")
    assert await said(sshd, login=False) == (
        Readiness.UNKNOWN,
        "guest agent cannot be asked: nobody may log in to hosts: identity.username is not set",
    )
    for host in (None, 4, 5):
        assert "the address of its host is not known" in (await said(sshd, host=host))[1]
    sshd.stop()
    assert "connection refused" in (await said(sshd))[1]


@pytest.mark.peer
async def test_a_host_that_hangs_holds_up_its_own_vms_only(sshd, monkeypatch):
    monkeypatch.setattr(readiness, "AGENT_MAX_S", 0.5)
    monkeypatch.setattr(readiness, "TURN_MAX_S", 1.0)
    virsh(sshd, "exec sleep 60")
    events: list[ReadyRead] = []
    asked = asker(sshd, events)
    server = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with server, anyio.create_task_group() as group:
        for vm in range(4 * AGENTS_AT_ONCE):
            group.start_soon(asked.ask, AskReady(vm=vm, incident=5, host=3, gate=ReadyGate(by=ReadyBy.AGENT)))
        await anyio.wait_all_tasks_blocked()
        port = server.extra(anyio.abc.SocketAttribute.local_port)
        gate = ReadyGate(by=ReadyBy.TCP, port=port, address="127.0.0.1")
        await asked.ask(AskReady(vm=99, incident=5, host=3, gate=gate))
        assert [(event.vm, event.readiness) for event in events] == [(99, Readiness.READY)]
    assert len(events) == 4 * AGENTS_AT_ONCE + 1  # each question was answered, also those that found no turn
    assert {event.readiness for event in events[1:]} == {Readiness.UNKNOWN}
