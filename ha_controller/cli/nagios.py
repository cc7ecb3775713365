"""`status --nagios`: one line with performance data, as Nagios, Icinga and their like run plugins.

Exit codes and the form of the line: Monitoring Plugins Development Guidelines. CRITICAL is what a person must act on.
"""

from __future__ import annotations

from typing import Any

import click

from ha_controller.cli import client, show

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
#: exit code of `status` -> of a plugin. A guard that holds something back is for a person to look at, like a question.
SEVERITY = {0: OK, 1: WARNING, 4: CRITICAL, 5: CRITICAL}
STATES = ("ok", "suspect", "failed", "fenced", "recovered")


def check() -> int:
    """Print the line; returns the exit code. Whatever is wrong, it is in the line: nobody reads more."""
    try:
        answer = client.request("GET", "/api/v1/status")
    except client.Failure as failure:
        # the controller is what starts the VMs of dead hosts: that nobody does is not "unknown"
        code = CRITICAL if failure.code == client.NO_CONTROLLER else UNKNOWN
        click.echo(_line(code, failure.text, ""))
        return code
    code = SEVERITY.get(answer["code"], UNKNOWN)
    click.echo(_line(code, answer["verdict"], _performance(answer)))
    return code


def _line(code: int, text: str, performance: str) -> str:
    said = show.safe(text).replace("|", "/")  # a bar begins the performance data
    return f"HA-CONTROLLER {WORDS[code]}: {said}{f' | {performance}' if performance else ''}"


def _performance(answer: Any) -> str:
    hosts = answer["hosts"]
    parts = [f"hosts={hosts['total']};;;0", *(f"hosts_{state}={hosts[state]};;;0;{hosts['total']}" for state in STATES)]
    parts += [f"excluded={answer['excluded']};;;0", f"leads={int(answer['term'] is not None)};;;0;1"]
    if answer["oned_age_s"] is not None:
        parts.append(f"oned_age={answer['oned_age_s']}s;;;0")
    return " ".join(parts)
