"""`ha-controller demo` as a user runs it: exit code, report and the figures that the README promises."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: fault: exit code, longest detection, longest time to recovery (seconds; None where VMs must wait)
FAULTS = {
    "power-loss": (0, 3.0, 20.0),
    "hang": (0, 13.0, 40.0),
    "partition": (0, 13.0, 40.0),
    "cord-pulled": (5, 13.0, None),
    "bmc-dead": (5, 13.0, None),
}


async def demo(report: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ha_controller.cli", "demo", "--report", str(report), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 150)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_every_fault_ends_as_the_readme_says(tmp_path):
    """All five at once: several embedded clouds live side by side."""
    reports = {fault: tmp_path / f"{fault}.json" for fault in FAULTS}
    runs = [demo(reports[fault], "--fault", fault) for fault in FAULTS]
    for (fault, (code, detect_s, total_s)), (returned, output) in zip(
        FAULTS.items(), await asyncio.gather(*runs), strict=True
    ):
        assert returned == code, output
        report = json.loads(reports[fault].read_text())
        assert report["schema"] == "ha-controller/demo/v1"
        assert (report["fault"], report["hosts"], report["vms"]) == (fault, 6, 30)
        assert report["violations"] == []
        assert report["phases_s"]["detect"] <= detect_s
        if total_s is None:
            assert report["vms_waiting"] == 5
            assert "confirm-off" in output
            assert not any("migrate" in line["event"] for line in report["timeline"])
        else:
            assert report["vms_recovered"] == 5
            assert report["phases_s"]["total"] <= total_s
            events = [line["event"] for line in report["timeline"]]
            off = next(index for index, event in enumerate(events) if " is off: " in event)
            assert all("migrate" not in event for event in events[:off])


@pytest.mark.peer
async def test_with_namespaces_the_hosts_are_real_kernels_with_real_sshd(tmp_path, require_peer, alone_in_the_network):
    for program in ("ip", "sshd", "ssh-keygen"):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    code, output = await demo(tmp_path / "report.json", "--netns", "--fault", "hang", "--hosts", "4")
    assert code == 0, output
    assert "real sshd" in output
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221
    assert "hacdemo" not in left
