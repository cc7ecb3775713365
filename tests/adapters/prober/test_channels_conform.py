"""The conformance suite on channels that need no network: storage with real files, written by the hosts' own program.

bmc and oned are lent everything by the controller, and a rig lends it here. The others: tests/peers/test_channels.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ha_controller.adapters.prober.bmc import BmcConfig, BmcProbe
from ha_controller.adapters.prober.oned import OnedConfig, OnedProbe
from ha_controller.adapters.prober.storage import StorageConfig, StorageProbe
from ha_controller.plugin import OnedView, PowerState, Probe, ProbeContext, Signal, Target, Unreachable
from ha_controller.testing import PROBE_CHECKS, ProbeCheck, ProbeRig, probe_clock

#: the hosts' own program, ten times as fast
UNIT = "from ha_controller_watchdog import host; host.RENEW_EVERY_S = 0.1; host.main()"
HOSTS = (1, 2, 3)


class LentRig:
    """What bmc and oned rigs have in common: hosts in memory."""

    secrets: Sequence[str] = ()
    probe_class: type[Probe[Any]]
    shows_life, shows_death = Signal.ALIVE, Signal.SILENT

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self.babbling: set[int] = set()
        self.broken = False

    def targets(self) -> Sequence[Target]:
        return [Target(host=host, name=f"kvm-{host}", address="") for host in HOSTS]

    async def kill(self, host: int) -> None:
        self.dead.add(host)

    async def babble(self, host: int) -> None:
        self.babbling.add(host)

    async def break_ourselves(self) -> None:
        self.broken = True

    def context(self) -> ProbeContext:
        return ProbeContext(read_power=self.read_power, oned_view=self.view)

    async def read_power(self, host: int) -> PowerState:
        if self.broken:
            raise Unreachable("no route to the BMC")
        if host in self.babbling:
            raise KeyError("PowerState")
        return PowerState.OFF if host in self.dead else PowerState.ON

    def view(self, host: int) -> OnedView | None:
        if self.broken:
            return None
        state = 3 if host in self.dead else 99 if host in self.babbling else 2
        monitored_at = -1 if host in self.babbling else round(probe_clock() * 1000)
        return OnedView(state=state, monitored_at=monitored_at, read_at=probe_clock(), previous_read_at=None)


class BmcRig(LentRig):
    probe_class = BmcProbe
    shows_life, shows_death = Signal.ON, Signal.OFF

    def make_probe(self) -> BmcProbe:
        return BmcProbe(BmcConfig(timeout="1s"), self.context())


class OnedRig(LentRig):
    probe_class = OnedProbe

    def make_probe(self) -> OnedProbe:
        return OnedProbe(OnedConfig(), self.context())


class StorageRig(LentRig):
    probe_class = StorageProbe

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        command = [sys.executable, "-c", UNIT, "--folder", str(folder), "--device", "none", "--local", "--name"]
        self.units = {
            host: subprocess.Popen([*command, f"kvm-{host}"], stderr=subprocess.DEVNULL, start_new_session=True)
            for host in HOSTS
        }

    def make_probe(self) -> StorageProbe:
        return StorageProbe(StorageConfig(folder=self.folder, timeout="1s", silent_after="1s"), self.context())

    async def kill(self, host: int) -> None:
        self.units[host].kill()
        self.units[host].wait(5)

    async def babble(self, host: int) -> None:
        await self.kill(host)
        (self.folder / f"kvm-{host}.lease").write_bytes(os.urandom(512))

    async def break_ourselves(self) -> None:
        for host in HOSTS:
            await self.kill(host)
        shutil.rmtree(self.folder)

    def end(self) -> None:
        for unit in self.units.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(unit.pid, signal.SIGKILL)
            unit.wait(5)


@pytest.fixture(params=["bmc", "oned", "storage"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProbeRig]:
    if request.param != "storage":
        yield BmcRig() if request.param == "bmc" else OnedRig()
        return
    made = StorageRig(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("check", PROBE_CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: ProbeCheck, rig: ProbeRig) -> None:
    await check(rig)
