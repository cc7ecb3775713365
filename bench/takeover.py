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
    samples = [run_side("bench.takeover:kill_the_leader") for _ in range(options.rounds or 3)]
    leads = sorted(float(sample["leads_s"]) for sample in samples)
    lease_s = float(samples[0]["lease_s"])
    told = statistics.median(float(sample["told_s"]) for sample in samples)
    note = (
        f"lease {lease_s:g} s, {len(leads)} runs, {leads[0]:.1f} to {leads[-1]:.1f} s; killed in mid-fence; "
        f"after {told:.0f} s a person is told of the host, whose incident another controller had begun"
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

            async def is_told() -> bool:
                return "kvm-03" in (await both.second.cli("pending", "list"))[1]

            await both.eventually(is_told, within_s=120)
            assert both.cloud.check(vms_must_wait=True) == []
            assert {line.machine for line in both.cloud.hardware.log if line.what == "ordered off"} == {2}
            return {"leads_s": leads_s, "told_s": time.monotonic() - killed, "lease_s": LEASE_S}
