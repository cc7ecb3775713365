"""What owners of VMs, hosts and devices write never steers a terminal: not by logs, not by the command line."""

from __future__ import annotations

import json
import logging

import click
import pytest
import structlog
from click.testing import CliRunner

from ha_controller.app.logs import set_up_logging
from ha_controller.cli import show
from ha_controller.plugin import CheckReport, FenceError, Unreachable

EVIL = "kvm\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 FAKE LINE \x9b31m\x7f\u202egnp.exe\u2028x"
UNSAFE = {"\x1b", "\x07", "\r", "\x9b", "\x7f", "\u202e", "\u2028"}


@pytest.fixture
def loud(request):
    """Sets logging up as the controller does, and puts it back."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level, old = root.level, structlog.get_config()
    yield set_up_logging
    root.handlers[:], root.level = before, level
    structlog.configure(**old)


@pytest.mark.parametrize("form", ["console", "logfmt", "json"])
def test_a_line_of_the_log_is_one_line_without_escapes(loud, capsys, form):
    loud(level="debug", format_name=form)
    log = structlog.get_logger(f"evil.{form}")
    log.warning(f"a host is {EVIL}", host=EVIL, names=[EVIL, {"inner": EVIL}], error=ValueError(EVIL), count=3)
    logging.getLogger("a.library").warning("said %s", EVIL)
    written = capsys.readouterr().err
    assert not UNSAFE & set(written.replace("\x1b[0m", ""))
    assert len(written.splitlines()) == 2
    assert "FAKE LINE" in written


def test_values_keep_their_kind_in_json(loud, capsys):
    loud(level="debug", format_name="json")
    structlog.get_logger("evil.kinds").warning("x", count=3, hosts=[1, 2], of={"a": EVIL, "b": 1.5}, none=None)
    line = json.loads(capsys.readouterr().err)
    assert (line["count"], line["hosts"], line["of"]["b"], line["none"]) == (3, [1, 2], 1.5, None)
    assert "\n" not in line["of"]["a"]


def test_a_traceback_keeps_its_lines_and_nothing_else(loud, capsys):
    loud(level="debug", format_name="console")
    try:
        raise ValueError(EVIL)
    except ValueError:
        structlog.get_logger("evil.traceback").exception("it failed")
    written = capsys.readouterr().err
    assert not UNSAFE & set(written)
    assert len(written.splitlines()) > 3


def test_what_the_command_line_prints_is_safe_in_every_form():
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def command(as_json: bool) -> None:
        if as_json:
            show.as_json({"name": EVIL})
        else:
            show.table(["NAME", "N"], [[EVIL, 1]])

    for arguments in ([], ["--json"]):
        printed = CliRunner().invoke(command, arguments).output
        assert not UNSAFE & set(printed)
    assert json.loads(printed)["name"] == EVIL  # escaped, not changed


def test_what_a_device_says_is_one_short_line():
    for text in (str(FenceError(EVIL * 100)), str(Unreachable(EVIL)), CheckReport(ok=True, summary=EVIL * 100).summary):
        assert not UNSAFE & set(text)
        assert "\n" not in text
        assert len(text) <= 500
