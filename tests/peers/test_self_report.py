"""What hosts tell of themselves over SSH, asked of a real sshd on loopback: their boot, and whether libvirt answers.

virsh is a stand-in here. What it says is what virsh 9.0.0 said of a real libvirtd that ran, stood still, was gone, or
did not let us in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ha_controller.adapters.prober import boot_id, libvirt
from ha_controller.adapters.prober.boot_id import BootIdProbe
from ha_controller.adapters.prober.channel import AsyncProbe
from ha_controller.adapters.prober.libvirt import LibvirtProbe
from ha_controller.plugin import PowerState, ProbeContext, Reading, Signal, Target
from tests.peers.ssh_host import Sshd

pytestmark = pytest.mark.peer
HOST = Target(host=3, name="kvm-03", address="127.0.0.1")
THIS_BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
NOBODY = (
    "error: failed to connect to the hypervisor\\nerror: Failed to connect socket to '/var/run/libvirt/libvirt-sock-ro'"
)


@pytest.fixture
def sshd(tmp_path: Path, require_peer: Callable[[str], str]) -> Iterator[Sshd]:
    for program in ("sshd", "ssh-keygen", "timeout"):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    made = Sshd(tmp_path / "host")
    yield made
    made.stop()


def bind_key(sshd: Sshd, command: str) -> None:
    key = (sshd.folder / "key.pub").read_text()
    (sshd.folder / "authorized_keys").write_text(f'command="{command}",restrict {key}')


def stand_in(sshd: Sshd, script: str) -> None:
    """Let virsh be this script, and bind the key to what the documentation says."""
    tools = sshd.folder / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "virsh").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "virsh").chmod(0o755)
    bind_key(sshd, f"PATH={tools}:$PATH; {libvirt.COMMAND}")


async def ask(probe_class: type[AsyncProbe[Any]], sshd: Sshd, **changes: object) -> Reading:
    async def no_power(host: int) -> PowerState:
        return PowerState.UNKNOWN

    files = {"key_file": sshd.folder / "key", "known_hosts": sshd.folder / "known_hosts"}
    settings = {"username": "root", "port": sshd.port, **files, **changes}
    context = ProbeContext(read_power=no_power, oned_view=lambda host: None)
    probe = probe_class(probe_class.config_model.model_validate(settings), context)
    return await probe._ask_safely(HOST)  # with the deadline of the channel


# --- boot-id ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [True, False], ids=["a key for this command only", "a key for a shell"])
async def test_a_host_tells_its_boot(sshd: Sshd, bound: bool) -> None:
    if bound:
        bind_key(sshd, boot_id.COMMAND)
    reading = await ask(BootIdProbe, sshd)
    assert (reading.signal, reading.boot_id, reading.detail) == (Signal.ALIVE, THIS_BOOT, f"boot {THIS_BOOT[:8]}")
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    assert reading.sent_at - reading.booted_at == pytest.approx(up_s, abs=5)


async def test_a_key_that_is_bound_to_less_tells_the_boot_and_not_when_it_began(sshd: Sshd) -> None:
    bind_key(sshd, "cat /proc/sys/kernel/random/boot_id")
    reading = await ask(BootIdProbe, sshd)
    assert (reading.boot_id, reading.booted_at) == (THIS_BOOT, 0.0)


@pytest.mark.parametrize("said", ["echo nonsense", "true", f"echo {THIS_BOOT}; echo {THIS_BOOT}", "exit 1"])
async def test_a_login_without_a_boot_id_is_life_of_an_unknown_boot(sshd: Sshd, said: str) -> None:
    bind_key(sshd, said)
    reading = await ask(BootIdProbe, sshd)
    assert (reading.signal, reading.boot_id) == (Signal.ALIVE, "")
    assert reading.detail == "logged in, but it told no boot id: what is the key bound to?"


@pytest.mark.parametrize("probe_class", [BootIdProbe, LibvirtProbe])
async def test_a_login_that_fails_is_unknown_whatever_the_reason(sshd: Sshd, probe_class: type[Any]) -> None:
    other_key = await ask(probe_class, sshd, key_file=sshd.folder / "other_key")
    assert (other_key.signal, other_key.detail) == (Signal.UNKNOWN, "it refuses the login of root")
    no_key = await ask(probe_class, sshd, key_file=sshd.folder / "known_hosts")
    assert (no_key.signal, no_key.detail) == (Signal.UNKNOWN, "the key cannot be used")
    sshd.know("other_key")
    other_host = await ask(probe_class, sshd)
    assert (other_host.signal, other_host.detail) == (Signal.UNKNOWN, "its host key is not the one in known_hosts")
    sshd.know("host_key")
    sshd.freeze()
    hung = await ask(probe_class, sshd, timeout="300ms")
    assert (hung.signal, hung.detail[:9]) == (Signal.UNKNOWN, "no answer")
    sshd.stop()
    gone = await ask(probe_class, sshd)
    assert (gone.signal, gone.detail) == (Signal.UNKNOWN, "connection refused")


@pytest.mark.parametrize("probe_class", [BootIdProbe, LibvirtProbe])
async def test_a_host_that_talks_without_end_is_not_listened_to(sshd: Sshd, probe_class: type[Any]) -> None:
    bind_key(sshd, "yes")
    reading = await ask(probe_class, sshd)
    assert (reading.signal, reading.detail) == (Signal.UNKNOWN, "it does not stop talking")


# --- libvirt ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "signal", "detail"),
    [
        ("printf 'one-1\\none-22\\n\\n'", Signal.ALIVE, "libvirt answers, 2 domains"),
        ("printf 'one-1\\n\\n'", Signal.ALIVE, "libvirt answers, 1 domain"),
        ("printf '\\n'", Signal.ALIVE, "libvirt answers, 0 domains"),
        ("printf 'virsh ended 124\\n\\n'", Signal.ALIVE, "libvirt answers, 1 domain"),
        (f'printf "{NOBODY}: No such file or directory\\n" >&2; exit 1', Signal.SILENT, "libvirt is not running"),
        (f'printf "{NOBODY}: Connection refused\\n" >&2; exit 1', Signal.SILENT, "libvirt is not running"),
    ],
)
async def test_what_virsh_says_is_told(sshd: Sshd, script: str, signal: Signal, detail: str) -> None:
    stand_in(sshd, script)
    reading = await ask(LibvirtProbe, sshd)
    assert (reading.signal, reading.detail, reading.boot_id) == (signal, detail, "")


async def test_libvirt_that_hangs_is_silent_and_virsh_is_ended_on_the_host(sshd: Sshd) -> None:
    stand_in(sshd, f"echo $$ > {sshd.folder}/pid; exec sleep 600")
    reading = await ask(LibvirtProbe, sshd)
    assert (reading.signal, reading.detail) == (Signal.SILENT, "libvirt does not answer within 5 s")
    assert not Path("/proc", (sshd.folder / "pid").read_text().strip()).exists()


async def test_a_fault_of_ours_is_not_libvirts_silence(sshd: Sshd) -> None:
    stand_in(sshd, f'printf "{NOBODY}: Permission denied\\n" >&2; exit 1')
    reading = await ask(LibvirtProbe, sshd)
    assert reading.signal is Signal.UNKNOWN
    assert reading.detail.startswith("virsh failed with status 1: error: failed to connect to the hypervisor")
    (sshd.folder / "tools" / "virsh").unlink()
    reading = await ask(LibvirtProbe, sshd)
    assert reading.signal is Signal.UNKNOWN
    assert reading.detail.startswith("virsh failed with status 127")


@pytest.mark.parametrize("command", ["exit 1", "exit 124", "echo one-1", boot_id.COMMAND])
async def test_a_key_for_something_else_says_nothing_about_libvirt(sshd: Sshd, command: str) -> None:
    bind_key(sshd, command)
    reading = await ask(LibvirtProbe, sshd)
    assert reading.signal is Signal.UNKNOWN
    assert reading.detail == "logged in, but virsh was not run: what is the key bound to?"


@pytest.mark.parametrize("command", [boot_id.COMMAND, libvirt.COMMAND])
def test_the_documented_lines_are_the_ones_that_are_tested(command: str) -> None:
    page = Path(__file__).parents[2] / "docs/channels.md"
    assert f'command="{command}",restrict ' in page.read_text()
