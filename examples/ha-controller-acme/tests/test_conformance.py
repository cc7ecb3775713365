"""The conformance suite of ha-controller against a small box that speaks the agent's protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from ha_controller_acme.agent import AcmeAgent, AcmeConfig
from pydantic import SecretStr

from ha_controller.testing import CHECKS, Check, Fault

PASSWORD, WRONG = "right-password", "wrong-password"
SLOW_S = 0.7


class Box:
    """Stands in for the device: replace it by something real if you can get it."""

    def __init__(self) -> None:
        self.on, self.fault = True, None
        self.port = 0
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self._connections):
            writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with contextlib.suppress(OSError):
            line = (await reader.readline()).decode(errors="replace").strip()
            answer = b"\xff\x00gibberish\n" if self.fault is Fault.NONSENSE else self._answer(line).encode()
            if self.fault is Fault.HANGS:
                await reader.read()
            elif line:
                writer.write(answer)
                await writer.drain()
        self._connections.discard(writer)
        writer.close()

    def _answer(self, line: str) -> str:
        password, _, command = line.partition(" ")
        if self.fault in (Fault.HANGS, Fault.NONSENSE):
            return ""
        if password != PASSWORD:
            return "denied\n"
        if command == "state":
            return f"ok {'on' if self.on else 'off'}\n"
        if command == "off" and self.fault is Fault.REFUSES:
            return "refused\n"
        if command == "off" and self.fault is Fault.SLOW:
            asyncio.get_running_loop().call_later(SLOW_S, setattr, self, "on", False)
        elif command in ("on", "off") and self.fault is not Fault.STAYS_ON:
            self.on = command == "on"
        return "ok\n"


class BoxRig:
    """The box with its host, as the suite wants it."""

    agent_class: type[Any] = AcmeAgent
    secrets: Sequence[str] = (PASSWORD, WRONG)
    system_uuid = None

    def __init__(self, box: Box) -> None:
        self.box = box

    def make_agent(self, *, wrong_password: bool = False) -> AcmeAgent:
        password = SecretStr(WRONG if wrong_password else PASSWORD)
        return AcmeAgent(AcmeConfig(address="127.0.0.1", port=self.box.port, password=password))

    async def host_is_on(self) -> bool:
        return self.box.on

    async def set_host_power(self, on: bool) -> None:
        self.box.on = on

    async def set_fault(self, fault: Fault | None) -> None:
        self.box.fault = fault


@pytest.fixture
async def rig() -> AsyncIterator[BoxRig]:
    box = Box()
    await box.start()
    yield BoxRig(box)
    await box.stop()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, rig: BoxRig) -> None:
    await check(rig)
