"""`ha-controller leader`: which of several controllers leads."""

from __future__ import annotations

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import reason_option
from ha_controller.cli.listing import Form, document_options


@click.group()
def leader() -> None:
    """Which controller leads; only that one powers off and moves."""


@leader.command("show")
@document_options
def leader_show(form: Form) -> None:
    """Show who leads and who stands by; exit code 1 if nobody is known to lead."""
    answer = form.show(lambda: client.request("GET", "/api/v1/leader"), show.leader)
    someone = answer["leads"] or (not answer["trouble"] and any(each["leads"] for each in answer["members"]))
    client.finish(0 if someone else 1)


@leader.command("step-down")
@reason_option
@click.option("--force", is_flag=True, help="Also with open incidents, or with nobody there to take the lead.")
def leader_step_down(reason: str, force: bool) -> None:
    """Have this controller give the lead to another one; it asks for it again after 30 s at the earliest."""
    answer = client.request("POST", "/api/v1/leader/step-down", {"reason": reason, "force": force})
    click.echo(answer["text"], err=True)


def others_unpaused() -> str:
    """Which controllers could take the lead and go on, though this one is paused; empty: none, or nobody says."""
    try:
        answer = client.request("GET", "/api/v1/leader")
    except client.Failure:
        return ""
    if answer.get("shares_record"):
        return ""  # whoever leads next is paused, too
    names = ", ".join(show.safe(each["name"]) for each in answer["members"] if not each["this"])
    command = "ha-controller pause --here --reason WHY"
    return names and f"{names} would not be paused after taking the lead. There, too: {command}"
