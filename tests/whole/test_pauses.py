"""Pauses of the controller's own process, as of a VM that is moved or a machine that swaps: nobody else is to blame."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import anyio

from tests.whole.test_serve import Served, served

PAUSE_S = 30.0


async def states(controller: Served) -> dict[str, tuple[str, float]]:
    code, shown = await controller.cli("hosts", "-o", "json")
    assert code == 0
    return {row["name"]: (row["state"], row["for_s"]) for row in json.loads(shown)}


async def test_a_controller_that_stood_still_for_30_s_suspects_nobody(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        with anyio.fail_after(30):
            while "4 ok" not in (await controller.cli("status"))[1]:
                await anyio.sleep(0.2)
        assert controller.process is not None
        controller.process.send_signal(signal.SIGSTOP)
        await anyio.sleep(PAUSE_S)
        controller.process.send_signal(signal.SIGCONT)
        for _ in range(10):  # looked at again and again, for a suspicion would pass within a second
            seen = await states(controller)
            assert {state for state, _ in seen.values()} == {"ok"}
        assert min(since for _, since in seen.values()) > PAUSE_S  # no host was anything else meanwhile
        assert not [line for line in cloud.hardware.log if line.what.startswith("ordered")]
        assert "the event loop stood still" in controller.log
