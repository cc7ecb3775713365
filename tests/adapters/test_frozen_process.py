"""A process that was frozen for longer than its lead lasts acts on nothing that came meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

FROZEN = """
import anyio, asyncio, socket, sys
from functools import partial
from pathlib import Path
from ha_controller.adapters.arbiter import Leadership
from ha_controller.app.wakeful import wakeful_loop
from ha_controller.plugin import Arbiter, ArbiterConfig, ArbiterContext

class Engine(Arbiter):
    kind, config_model, lead_s, renew_every_s = "fake", ArbiterConfig, 1.0, 0.2
    async def acquire(self): return 1
    async def renew(self, term): pass
    async def prove(self, term): pass
    async def release(self, term): pass
    async def members(self): return []

context = ArbiterContext(name="us", instance="us", state_dir=Path("/"), last_term=lambda: 0)
leadership = Leadership(arbiter=Engine(ArbiterConfig(), context), report=lambda told: None)

async def shoot(device):
    # like a login: a question, an answer, and only then the order
    with leadership.order(), anyio.fail_after(60):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(device, b"login")
        await loop.sock_recv(device, 100)
        await loop.sock_sendall(device, b"OFF")

async def main():
    device = socket.socket(socket.AF_UNIX)
    device.setblocking(False)
    device.connect(sys.argv[1])
    async with anyio.create_task_group() as group:
        group.start_soon(leadership.run)
        while not await leadership.may_act(1):
            await anyio.sleep(0.01)
        group.start_soon(shoot, device)
        await anyio.sleep_forever()

woken = leadership.lapse if sys.argv[2] == "wakeful" else lambda: None
anyio.run(main, backend_options={"loop_factory": partial(wakeful_loop, woken)})
"""


async def _waits(pid: int) -> None:
    """Until it sleeps in its event loop: whoever is frozen in the middle of a function goes on with that function."""
    with anyio.fail_after(10):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            await anyio.sleep(0.001)


def _frozen(device: Path, loop: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FROZEN, str(device), loop])


@pytest.mark.parametrize(("loop", "shots"), [("wakeful", b""), ("plain", b"OFF")])
async def test_an_answer_that_came_while_the_process_was_frozen_is_not_acted_on(
    tmp_path: Path, loop: str, shots: bytes
):
    """Frozen between question and answer for longer than the lead lasts. A plain loop would still send the order."""
    asked, received = anyio.Event(), bytearray()
    process: subprocess.Popen[bytes] | None = None

    async def device(stream: anyio.abc.ByteStream) -> None:
        assert process is not None
        async with stream:
            assert await stream.receive() == b"login"
            await _waits(process.pid)
            os.kill(process.pid, signal.SIGSTOP)
            await stream.send(b"welcome")
            await anyio.sleep(1.5)  # the lead lasts 1 s
            os.kill(process.pid, signal.SIGCONT)
            with anyio.move_on_after(2):
                received.extend(await stream.receive())
            asked.set()

    listener = await anyio.create_unix_listener(tmp_path / "device")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, device)
        process = _frozen(tmp_path / "device", loop)
        try:
            with anyio.fail_after(20):
                await asked.wait()
        finally:
            process.kill()
            process.wait(10)
        group.cancel_scope.cancel()
    assert bytes(received) == shots
