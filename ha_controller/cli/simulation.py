"""`ha-controller simulate run`: the decisions of this version in a pretended, faulty world. Nothing is touched."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ha_controller.cli import client, show

if TYPE_CHECKING:
    from ha_controller.core.settings import Settings
    from ha_controller.sim.core_level.campaign import Tally, Task

CONFIG_ERROR = 78


@click.command("run")
@click.option("--hours", type=click.FloatRange(min=0.1), default=24.0, help="Of each seed, before all is healed.")
@click.option("--hosts", type=click.IntRange(min=3, max=200), default=8)
@click.option("--controllers", type=click.IntRange(min=1, max=3), help="So many in each cloud; else each seed decides.")
@click.option("--lead", type=click.Choice(["etcd", "opennebula"]), default="etcd", help="What several lead by, engine.")
@click.option("--seeds", default="1:21", metavar="A:B", help="The seeds A to B-1.")
@click.option("--seed", type=int, help="One seed alone.")
@click.option("--trace", "with_trace", is_flag=True, help="With --seed: print what happened, line by line.")
@click.option("--level", type=click.Choice(["core", "engine"]), default="core", help="engine: the whole controller.")
@click.option("--faults", type=click.Path(path_type=Path), help="TOML: fault = rate; see docs/simulator.md.")
@click.option("--times", type=click.FloatRange(min=0), default=1.0, help="All faults that come by themselves so often.")
@click.option("-c", "--config", "config_path", type=click.Path(path_type=Path), help="Your configuration's limits.")
@click.option("--processes", type=int, default=None)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def run(
    hours: float, hosts: int, controllers: int | None, lead: str, seeds: str, seed: int | None, with_trace: bool,
    level: str, faults: Path | None, times: float, config_path: Path | None, processes: int | None, output: str,
) -> None:  # fmt: skip
    """Let clouds of HOSTS live through HOURS of faults, one for each seed; exit code 1 if an invariant was broken."""
    from ha_controller.sim.core_level import campaign
    from ha_controller.sim.core_level.faults import BadFaults, Rates, load

    try:
        rates = (load(faults) if faults else Rates()).times(times)
    except BadFaults as error:
        raise client.Failure(2, str(error)) from None
    if lead != "etcd" and level == "core":
        raise client.Failure(2, "--lead goes with --level engine only.")
    part, trace = _level(level, config_path)
    settings = _settings(config_path)
    chosen = range(seed, seed + 1) if seed is not None else _range(seeds)
    drawn = campaign.Task(
        seed=0, hosts=hosts, hours=hours, rates=rates, settings=settings, controllers=controllers, lead=lead
    )
    tasks = [replace(drawn, seed=each) for each in chosen]
    if with_trace:
        _print_trace(trace(tasks[0]))
        return
    began, total = campaign.wall_clock(), campaign.Tally()
    for done, total in enumerate(campaign.run(tasks, processes, part), start=1):
        told = f"{done} of {len(tasks)} seeds, {total.host_hours:,.0f} host-hours, {len(total.violations)} violations"
        click.echo(f"\r{told} ", nl=False, err=True)
    click.echo(err=True)
    _show(total, campaign.wall_clock() - began, output)
    client.finish(1 if total.violations or total.idle else 0)


def _range(seeds: str) -> range:
    first, colon, last = seeds.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise client.Failure(2, f"--seeds {seeds}: two numbers are needed, such as 1:21.")
    return range(int(first), int(last))


def _settings(path: Path | None) -> Settings | None:
    if path is None:
        return None
    from ha_controller.app import settings_of

    found = settings_of(path)
    if found is None:
        client.finish(CONFIG_ERROR)
    return found


def _level(level: str, config_path: Path | None) -> tuple[Callable[[Task], Tally], Callable[[Task], list[str]]]:
    """What runs one seed, and what tells its story."""
    if level == "core":
        from ha_controller.sim.core_level import campaign

        return campaign.part, campaign.trace
    if config_path is not None:
        raise client.Failure(2, "--config goes with --level core only.")
    from ha_controller.app import pretended

    return pretended.part, pretended.trace


def _print_trace(lines: list[str]) -> None:
    for line in lines:
        sys.stdout.write(show.safe(line) + "\n")
    client.finish(1 if lines and "VIOLATION" in lines[-1] else 0)


def _show(total: Tally, wall_s: float, output: str) -> None:
    document: dict[str, Any] = total.document(wall_s)
    if output == "json":
        show.as_json(document)
        return
    for title in ("counted", "delivered", "deaths", "verified_off", "holds"):
        click.echo(
            f"{title.replace('_', ' ')}: " + ", ".join(f"{count} {name}" for name, count in document[title].items())
        )
    click.echo(f"{document['sim_host_hours']:,.0f} host-hours in {document['wall_s']} s")
    for each in total.violations[:20]:
        click.echo(
            f"seed {each['seed']}: {each['text']}. Its story: the same command with --seed {each['seed']} --trace"
        )
    if total.idle:
        click.echo(total.idle)
