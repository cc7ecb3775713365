"""The live board: what is on it, and the keys."""

from __future__ import annotations

import io
import os
import re
import sys

import pytest
from rich.console import Console

from ha_controller.cli.main import commands as root
from ha_controller.cli.top import Board
from tests.cli.pretended import Commands, Pretended
from tests.cli.terminal import terminal


@pytest.fixture
def board(pretended: Pretended) -> Board:
    found = Board()
    with root.make_context("ha-controller", ["--socket", str(pretended.socket), "status"]):
        found.ask()
    assert found.trouble == ""
    return found


def painted(board: Board) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None, legacy_windows=False)
    console.print(board.picture())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_board_has_the_verdict_the_hosts_the_incident_and_the_trail(board: Board):
    text = painted(board)
    assert text.splitlines()[0].startswith("kvm-05 does not answer; looking closely.")
    assert "● 6 ok   ◐ 1 suspect   ▲ 0 failed" in text
    assert re.search(r"3 +kvm-03 +dsbl +RECOVERED", text)
    assert "Incident 1 kvm-03 RECOVERED  2 of 2 VMs run again" in text
    assert "VM vm-30 runs on kvm-0" in text


def test_of_a_large_cloud_the_well_hosts_are_squares_until_all_are_wanted(board: Board):
    well = [host for host in board.hosts if host["state"] == "ok"]
    board.hosts += [{**well[0], "id": 100 + number, "name": f"big-{number}"} for number in range(200)]
    text = painted(board)
    assert "kvm-05" in text
    assert "big-77" not in text
    assert text.count("●") > 200
    board.all_hosts = True
    assert "big-77" in painted(board)


def test_a_controller_that_is_away_is_told_beside_what_it_said_last(board: Board):
    with root.make_context("ha-controller", ["--socket", "/nowhere", "status"]):
        board.ask()
    text = painted(board)
    assert "is not reachable" in text
    assert "Shown is what it said at" in text
    assert "kvm-03" in text


def test_names_cannot_write_elsewhere_on_the_board(board: Board):
    board.hosts[0]["name"] = "kvm\x1b[2J[red]x"
    assert "\x1b" not in painted(board)
    assert "[red]x" in painted(board)


def test_without_a_terminal_it_says_what_else_there_is(commands: Commands):
    done = commands("top")
    assert (done.code, "hosts -w" in done.err) == (2, True)


def test_keys(pretended: Pretended):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
    words = [sys.executable, "-m", "ha_controller.cli", "--socket", str(pretended.socket), "top"]
    with terminal(words, environment) as screen:
        screen.wait_for("kvm-07")
        screen.type("a")
        screen.wait_for("kvm-07")
        screen.type("q")
        assert screen.process.wait(timeout=60) == 0
