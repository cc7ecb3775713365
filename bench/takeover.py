"""takeover: the leader is killed in the middle of a power-off; how soon the other controller leads and goes on."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import Figure, Options, absolute, run_side, unmeasured

MORE_S = 5.0


def takeover(options: Options) -> list[Figure]:
    """Two whole controllers as processes, three etcd, one embedded cloud."""
    if shutil.which("etcd") is None:
        return [unmeasured("takeover", f"<= lease + {MORE_S:g} s", "etcd is missing (Debian: etcd-server)")]
    samples = [run_side("bench.takeover:kill_the_leader") for _ in range(options.rounds or 2)]
    leads = sorted(float(sample["leads_s"]) for sample in samples)
    lease_s = float(samples[0]["lease_s"])
    runs = statistics.median(float(sample["runs_s"]) for sample in samples)
    note = (
        f"lease {lease_s:g} s, {len(leads)} runs, {leads[0]:.1f} to {leads[-1]:.1f} s; killed in mid-fence; "
        f"after {runs:.0f} s the new leader has ended the incident, and the host's VMs run elsewhere"
    )
    return [absolute("takeover", statistics.median(leads), lease_s + MORE_S, unit="s", note=note)]


async def kill_the_leader() -> dict[str, Any]:
    """A host loses its power; as soon as the order to its BMC is out, kill -9."""
    from tests.whole.test_two_controllers import LEASE_S, two_controllers

    with tempfile.TemporaryDirectory() as folder:
        async with two_controllers(Path(folder)) as both:
            both.cloud.break_host(2, "power-loss")

            async def ordered() -> bool:
                return both.shots() == 1

            await both.eventually(ordered, within_s=60)
            await both.first.kill()
            killed = time.monotonic()
            await both.eventually(lambda: both.leads(both.second), within_s=60)
            leads_s = time.monotonic() - killed

            async def recovered() -> bool:
                return await both.state_of(both.second, 2) == "recovered"

            await both.eventually(recovered, within_s=120)
            runs_s = time.monotonic() - killed
            assert both.cloud.check(vms_must_wait=False) == []
            assert {line.machine for line in both.cloud.hardware.log if line.what == "ordered off"} == {2}
            return {"leads_s": leads_s, "runs_s": runs_s, "lease_s": LEASE_S}
