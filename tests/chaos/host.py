"""Hosts whose power can really be cut: a network namespace each, and a process namespace with all that runs there.

A host runs OpenSSH, the heartbeat unit of plugins/watchdog and the processes of its VMs. Its power supply is a script:
off kills every process of it by the kernel's hand, on boots it anew with another boot id. The script is what the
chassis of its BMC calls; nothing of this file is asked then.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

from ha_controller_watchdog import host as heartbeat_unit

from ha_controller.sim import netns
from tests.chaos import marker

_POWER_SUPPLY = """\
#!/bin/sh
# Usage: power-supply 0|1|reboot. What is done is written down when it is done.
cd {folder} || exit 1
off() {{
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        all=$(ip netns pids {namespace})
        [ -n "$all" ] || break
        kill -9 $all 2>/dev/null
    done
    rm -f pid
}}
boot() {{
    cat /proc/sys/kernel/random/uuid >boot_id
    up=$(cut -d. -f1 /proc/uptime)
    setsid ip netns exec {namespace} unshare --time --boottime=-$up --pid --fork --kill-child=KILL \\
        --mount --mount-proc sh {folder}/init </dev/null >>console 2>&1 &
    echo $! >pid
}}
[ ! -e slow ] || sleep "$(cat slow)"
case "$1" in
0) off; ip -n {namespace} link set eth0 down; echo off >>done ;;
1) [ ! -e pid ] || exit 0
   boot; ip -n {namespace} link set eth0 up; echo on >>done ;;
reboot) off; boot; echo reboot >>done ;;
esac
exit 0
"""

#: Process 1 of a host.
_INIT = """\
mount --bind {folder}/boot_id /proc/sys/kernel/random/boot_id
{sshd} -D -f /dev/null {options} &
{unit} &
echo $! >{folder}/unit
while :; do wait; sleep 1; done
"""


class LivingHost:
    """One of them. Methods deliver faults to it, or look at it; none asks the controller."""

    def __init__(self, *, number: int, name: str, folder: Path, leases: Path, host_key: Path) -> None:
        """The namespace is there already; nothing runs in it yet."""
        self.number, self.name, self.folder = number, name, folder
        self.namespace = netns.namespace_of(number)
        self._vms: dict[int, subprocess.Popen[bytes]] = {}
        folder.mkdir()
        (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self.power_supply = folder / "power-supply"
        self.power_supply.write_text(_POWER_SUPPLY.format(folder=folder, namespace=self.namespace))
        self.power_supply.chmod(0o755)
        words = (f"HostKey={host_key}", "PidFile=none", "UsePAM=no", "UseDNS=no", "MaxStartups=200")
        unit = (sys.executable, "-I", heartbeat_unit.__file__, "--folder", leases, "--name", name)
        (folder / "init").write_text(
            _INIT.format(
                folder=folder,
                sshd=shutil.which("sshd") or "/usr/sbin/sshd",
                options=" ".join(f"-o {word}" for word in words),
                unit=" ".join(map(str, (*unit, "--device", "none", "--local"))),
            )
        )
        for chain, hook in (("in", "input"), ("out", "output")):
            self._filter(f"add table inet cut; add chain inet cut {chain} {{ type filter hook {hook} priority 0; }}")

    # --- power ---

    def switch(self, what: str) -> None:
        """What a hand at the power supply does: "0", "1", or "reboot"."""
        subprocess.run([self.power_supply, what], check=True, timeout=20, stdin=subprocess.DEVNULL)

    def done(self) -> list[str]:
        """What the power supply did so far: off, on, reboot."""
        file = self.folder / "done"
        return file.read_text().split() if file.exists() else []

    def slow(self, seconds: float | None) -> None:
        """The power supply takes so long for each order."""
        file = self.folder / "slow"
        if seconds is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(f"{seconds:g}")

    # --- processes ---

    def processes(self) -> list[int]:
        return netns.processes_of(self.namespace)

    def signal_all(self, what: signal.Signals) -> None:
        netns._signal_all(self.namespace, what)

    def stall_storage(self) -> None:
        """Its heartbeat unit stands still, as a process does that waits for a datastore that is gone."""
        self._signal_unit(signal.SIGSTOP)

    def resume_storage(self) -> None:
        self._signal_unit(signal.SIGCONT)

    def _signal_unit(self, what: signal.Signals) -> None:
        for process in self.processes():
            with suppress(FileNotFoundError, ProcessLookupError):
                if heartbeat_unit.__file__.encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                    os.kill(process, what)

    def _first(self) -> int | None:
        """Its process 1, as it is numbered here."""
        try:
            outer = (self.folder / "pid").read_text().strip()
            return int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return None

    # --- network ---

    def link(self, up: bool) -> None:
        """Its own end of the cable: without it no kernel answers."""
        netns._run("ip", "-n", self.namespace, "link", "set", "eth0", "up" if up else "down")

    def lose(self, *, requests: bool, answers: bool) -> None:
        """Packets to it, or from it, are lost; the cable is whole, and it goes on running."""
        lost = {'in iifname != "lo"': requests, 'out oifname != "lo"': answers}
        rules = [f"add rule inet cut {which} drop" for which, is_lost in lost.items() if is_lost]
        self._filter("; ".join(("flush table inet cut", *rules)))

    def _filter(self, rules: str) -> None:
        netns._run("ip", "netns", "exec", self.namespace, "nft", rules)

    # --- VMs ---

    def start_vm(self, vm: int, disks: Path) -> bool:
        """What a hypervisor does: a process of this host, and never a second one of the same VM."""
        first = self._first()
        if first is None or self.runs(vm):
            return False
        inside = ["nsenter", "--target", str(first), "--pid", "--net", "--mount"]
        program = [sys.executable, "-I", "-S", str(marker.__file__), str(disks), str(vm), self.name]
        nothing = subprocess.DEVNULL
        self._vms[vm] = subprocess.Popen(
            [*inside, *program], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
        return True

    def stop_vm(self, vm: int) -> None:
        if self.runs(vm):
            os.killpg(self._vms[vm].pid, signal.SIGKILL)
            self._vms.pop(vm).wait(10)

    def runs(self, vm: int) -> bool:
        return vm in self._vms and self._vms[vm].poll() is None

    def running(self) -> set[int]:
        return {vm for vm in self._vms if self.runs(vm)}
