"""Completion, typed into real shells: hosts and incidents come from the running controller, or nothing does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.pretended import Commands, Pretended
from tests.cli.terminal import terminal

#: shell -> how it is started, and what makes it complete our commands
SETUP = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        """PS1='READY> '; eval "$(ha-controller completion bash)"; echo set-$((1+1))""",
    ),
    "fish": (
        ["fish", "--no-config", "--interactive"],
        "function fish_prompt; echo 'READY> '; end; ha-controller completion fish | source; echo set-(math 1 + 1)",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "PS1='READY> '; autoload -U compinit; compinit -u -D; "
        """eval "$(ha-controller completion zsh)"; echo set-$((1+1))""",
    ),
}


@pytest.fixture
def shell_environment(tmp_path: Path, pretended: Pretended) -> dict[str, str]:
    program = tmp_path / "ha-controller"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ha_controller.cli "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path),
        "HA_SOCKET": str(pretended.socket), "TERM": "xterm", "PS1": "READY> ", "LANG": "C.UTF-8",
    }  # fmt: skip


@pytest.mark.peer
@pytest.mark.parametrize("shell", SETUP)
def test_tab_completes_hosts_in_a_real_shell(
    shell: str, shell_environment: dict[str, str], require_peer: Callable[[str], str]
):
    require_peer(shell)
    words, setup = SETUP[shell]
    with terminal(words, shell_environment) as screen:
        screen.type(f"{setup}\n")
        screen.wait_for("set-2")
        screen.type("ha-controller explain kvm-0\t\t")
        screen.wait_for("kvm-07")
        screen.type("\x15ha-controller confirm-o\t")  # Ctrl-U: the line is empty again
        screen.wait_for("confirm-off")


def completed(commands: Commands, words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("HA_SOCKET", str(commands.pretended.socket))
    monkeypatch.setenv("_HA_CONTROLLER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"ha-controller {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    return [line.partition(",")[2] for line in commands().out.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("explain kvm-05", ["kvm-05"]),
        ("maintenance on kvm-01,kvm-02", ["kvm-01,kvm-02"]),
        ("incidents show 1", ["1"]),
        ("events --host kvm-06", ["kvm-06"]),
        ("fencing lis", ["list"]),
        ("explain nobody", []),
    ],
)
def test_what_is_completed(commands: Commands, monkeypatch: pytest.MonkeyPatch, words: str, found: list[str]):
    assert completed(commands, words, monkeypatch) == found


def test_a_name_that_a_shell_could_take_for_something_else_is_not_completed(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
):
    rows = commands.pretended.answers["/api/v1/hosts"]
    rows[0]["name"], rows[1]["name"] = "kvm-$(reboot)", "kvm-x\nplain,rm"
    assert completed(commands, "explain kvm-$", monkeypatch) == []
    assert completed(commands, "explain kvm-x", monkeypatch) == []


def test_a_controller_that_hangs_is_not_waited_for(commands: Commands, monkeypatch: pytest.MonkeyPatch):
    waiting = _Hangs()
    monkeypatch.setattr(commands.pretended, "answer", waiting)
    assert completed(commands, "explain kvm-0", monkeypatch) == []
    assert waiting.asked
    assert time.monotonic() - waiting.asked[0] < 10  # the command's own limit would be minutes


class _Hangs:
    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, *_: object) -> tuple[int, object]:
        self.asked.append(time.monotonic())
        time.sleep(15)
        return 200, []


def test_without_a_controller_nothing_is_completed_and_nothing_is_said(tmp_path: Path):
    environment = {
        **os.environ, "HA_SOCKET": str(tmp_path / "nowhere"), "_HA_CONTROLLER_COMPLETE": "zsh_complete",
        "COMP_WORDS": "ha-controller explain kvm", "COMP_CWORD": "2", "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "ha_controller.cli"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (b"", b"")


def test_fish_gets_its_script_too(commands: Commands):
    done = commands("completion", "fish")
    assert done.code == 0
    assert "complete --no-files --command ha-controller" in done.out
