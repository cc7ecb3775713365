"""Operators type in panic: client commands must not import what only the controller needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pydantic", "aiohttp", "asyncssh", "pyghmi", "lxml", "structlog", "anyio", "asyncio", "rich", "sqlite3")
#: Wall-clock times say little on a busy machine. 180 modules were 65 ms of CPU when this was written: --help is to take
#: 150 ms, and what asks the controller 250 ms.
MODULES_MAX = 260
WORDS = [
    ["--help"],
    ["hosts", "--help"],
    *(["--socket", "/nowhere", *words.split()] for words in (
        "status", "status --nagios", "hosts", "hosts kvm-0*", "explain kvm-01", "events", "incidents", "pending list",
        "fencing list", "drill schedule", "maintenance list", "doctor", "leader show", "notify list",
        "confirm-off kvm-01 --yes", "hold kvm-01", "simulate capacity",
    )),
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_client_commands_import_nothing_heavy(words: list[str]):
    counted(words)


def test_completion_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HA_SOCKET", "/nowhere")
    monkeypatch.setenv("_HA_CONTROLLER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "ha-controller explain kvm")
    monkeypatch.setenv("COMP_CWORD", "2")
    counted([])


def counted(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['ha-controller', *{words!r}]\n"
        "from ha_controller.cli import main\n"
        "try:\n main()\nexcept SystemExit:\n pass\n"
        f"print(len(sys.modules), *sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    count, *heavy = done.stderr.splitlines()[-1].split()
    assert heavy == []
    assert int(count) < MODULES_MAX


def test_an_unreachable_controller_is_told_with_its_exit_code():
    code = "import sys; sys.argv = ['x', '--socket', '/nowhere', 'status']; from ha_controller.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 7
    assert "is not reachable" in done.stderr
    assert "Traceback" not in done.stderr
