"""Which machine a host is, asked of a real sshd on loopback, whose forced command answers as a host would."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ha_controller.adapters.host_identity import HostIdentifier, identity_of
from ha_controller.adapters.ssh_login import SshLogin
from ha_controller.core.model import Identity
from ha_controller.plugin import Target

pytestmark = pytest.mark.peer
UUID = "4c4c4544-0042-3510-8052-b4c04f564231"
HOST = Target(host=3, name="kvm-03", address="127.0.0.1")


class Sshd:
    """A real sshd that lets one key in and runs one command."""

    def __init__(self, folder: Path, sshd: str) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        for name in ("host_key", "key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        self.answers(f"echo {UUID.upper()}; echo; echo SN12345")
        host_key = (folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        options = [
            f"Port={self.port}", "ListenAddress=127.0.0.1", f"HostKey={folder / 'host_key'}", "PidFile=none",
            "UsePAM=no", "StrictModes=no", f"AuthorizedKeysFile={folder / 'authorized_keys'}",
        ]  # fmt: skip
        arguments = [argument for option in options for argument in ("-o", option)]
        self.process = subprocess.Popen([sshd, "-D", "-f", "/dev/null", *arguments], stderr=subprocess.DEVNULL)

    def answers(self, command: str) -> None:
        key = (self.folder / "key.pub").read_text()
        (self.folder / "authorized_keys").write_text(f'command="{command}",restrict {key}')


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def sshd(tmp_path: Path, require_peer: Callable[[str], str]) -> Iterator[Sshd]:
    require_peer("ssh-keygen")
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    made = Sshd(tmp_path, require_peer("sshd"))
    yield made
    made.process.kill()
    made.process.wait(5)


def identifier(sshd: Sshd, **changes: Path) -> HostIdentifier:
    files = {"key_file": sshd.folder / "key", "known_hosts": sshd.folder / "known_hosts", **changes}
    login = SshLogin(username="root", port=sshd.port, **files)
    return HostIdentifier(login, targets=lambda: [HOST], report=lambda event: None, clock=lambda: 0.0)


async def ask_when_up(sshd: Sshd) -> Identity | None:
    for _ in range(50):
        if (identity := await identifier(sshd).ask(HOST)) is not None:
            return identity
    return None


async def test_a_host_says_which_machine_it_is(sshd):
    assert await ask_when_up(sshd) == Identity(system_uuid=UUID, serial="SN12345")


async def test_a_host_with_another_key_is_not_believed(sshd, tmp_path):
    assert await ask_when_up(sshd)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    other = (tmp_path / "other.pub").read_text().rsplit(" ", 1)[0]
    (tmp_path / "wrong_hosts").write_text(f"[127.0.0.1]:{sshd.port} {other}\n")
    assert await identifier(sshd, known_hosts=tmp_path / "wrong_hosts").ask(HOST) is None


async def test_a_host_that_does_not_let_us_in_or_says_nothing_is_asked_again_later(sshd, tmp_path):
    assert await ask_when_up(sshd)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "stranger"))
    assert await identifier(sshd, key_file=tmp_path / "stranger").ask(HOST) is None
    sshd.answers("exit 1")
    assert await identifier(sshd).ask(HOST) is None
    sshd.process.kill()
    assert await identifier(sshd).ask(HOST) is None
    assert await identifier(sshd, key_file=tmp_path / "no such file").ask(HOST) is None


@pytest.mark.parametrize(
    ("output", "identity"),
    [
        (f"{UUID.upper()}\n\nSN1\n", Identity(system_uuid=UUID, serial="SN1")),
        (f"{UUID}\n\nTo be filled by O.E.M.\n", Identity(system_uuid=UUID)),
        (f"{UUID}\n\n", Identity(system_uuid=UUID)),
        ("\n\nSN1", Identity(serial="SN1")),
        ("", None),
        ("\n\nNot Specified", None),
    ],
)
def test_placeholders_of_makers_are_no_serials(output, identity):
    assert identity_of(output) == identity
