"""`ha-controller simulate`: what would happen, before it happens. Nothing is changed."""

from __future__ import annotations

import click

from ha_controller.cli.foresight import capacity, fail
from ha_controller.cli.replay import replay
from ha_controller.cli.simulation import run


@click.group()
def simulate() -> None:
    """What would happen. Nothing is changed."""


simulate.add_command(replay)
simulate.add_command(run)
simulate.add_command(fail)
simulate.add_command(capacity)
