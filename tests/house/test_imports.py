"""Operators type in panic: client commands must not import what only the controller needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pydantic", "aiohttp", "asyncssh", "pyghmi", "lxml", "structlog", "anyio", "asyncio")


@pytest.mark.parametrize("words", [["--help"], ["--socket", "/nowhere", "status"], ["--socket", "/nowhere", "hosts"]])
def test_client_commands_import_nothing_heavy(words: list[str]):
    code = (
        f"import sys; sys.argv = ['ha-controller', *{words!r}]\n"
        "from ha_controller.cli import main\n"
        "try:\n main()\nexcept SystemExit:\n pass\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr.splitlines()[-1] == ""


def test_an_unreachable_controller_is_told_with_its_exit_code():
    code = "import sys; sys.argv = ['x', '--socket', '/nowhere', 'status']; from ha_controller.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 7
    assert "is not reachable" in done.stderr
    assert "Traceback" not in done.stderr
