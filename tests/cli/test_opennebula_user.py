"""The user that the controller has in OpenNebula: what it may do, and that nobody sees its password."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ha_controller.cli.opennebula_user import RIGHTS, ZONE_RIGHT, user_script

PAGE = Path(__file__).parents[2] / "docs" / "opennebula-user.md"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
PROGRAM = [sys.executable, "-m", "ha_controller.cli"]
#: stand-ins for OpenNebula's commands, which print as those do, and keep what they were told
ONEUSER = '#!/bin/sh\necho "oneuser $*" >>"$TOLD"\ncat "$3" >"$TOLD.password"\necho "ID: 7"\n'
ONEACL = '#!/bin/sh\necho "oneacl $*" >>"$TOLD"\necho "ID: 12"\n'


@pytest.fixture
def opennebula_tools(tmp_path: Path) -> dict[str, str]:
    """OpenNebula's commands, in the path."""
    for name, text in (("oneuser", ONEUSER), ("oneacl", ONEACL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return {**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TOLD": str(tmp_path / "told")}


def create_user(tmp_path: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "init", "--create-user", "ha-controller", "--auth", str(tmp_path / "login"), *words],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_user_is_made_with_the_rights_that_are_shown_and_its_password_is_in_no_argument(
    tmp_path: Path, opennebula_tools: dict[str, str]
):
    done = create_user(tmp_path, opennebula_tools, "--run", "--zone")
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "told").read_text().splitlines()
    assert [line for line in told if line.startswith("oneacl")] == [
        "oneacl create #7 HOST/* USE+MANAGE+ADMIN *",
        "oneacl create #7 VM/* USE+MANAGE+ADMIN *",
        "oneacl create #7 DATASTORE+CLUSTER+VMGROUP/* USE *",
        "oneacl create #7 ZONE/* USE+ADMIN *",
    ]
    password = (tmp_path / "told.password").read_text()
    assert len(password) == 48
    assert (tmp_path / "login").read_text() == f"ha-controller:{password}"
    assert (tmp_path / "login").stat().st_mode & 0o777 == 0o600
    assert not any(password in text for text in (*told, done.stdout, done.stderr))
    assert not Path(told[0].split()[3]).exists()
    assert create_user(tmp_path, opennebula_tools, "--run").returncode == 4


def test_shown_is_what_would_be_run(tmp_path: Path, opennebula_tools: dict[str, str]):
    done = create_user(tmp_path, opennebula_tools)
    assert done.stdout == user_script("ha-controller", tmp_path / "login", zone=False)
    assert all(reason in done.stdout for _, reason in RIGHTS)
    assert not (tmp_path / "told").exists()


@pytest.mark.parametrize(
    "tool",
    [
        'echo "[one.user.allocate] NAME is already taken" >&2; exit 255',
        'echo "[one.user.allocate] NAME is already taken by USER 5."; exit 255',
        'echo "NAME is already taken by USER 5."',
        "true",
    ],
)
def test_a_user_that_cannot_be_made_gets_no_rights_nor_does_another_one(
    tmp_path: Path, opennebula_tools: dict[str, str], tool: str
):
    (tmp_path / "oneuser").write_text(f"#!/bin/sh\n{tool}\n")
    assert create_user(tmp_path, opennebula_tools, "--run").returncode == 1
    assert not (tmp_path / "told").exists()
    assert not (tmp_path / "login").exists()


def test_the_page_has_every_right_and_no_other():
    rules = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.M)
    assert rules == [rule for rule, _ in (*RIGHTS, ZONE_RIGHT)]
