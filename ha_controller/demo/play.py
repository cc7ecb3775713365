"""`ha-controller demo`: an embedded cloud, the real controller in mode auto against it, one broken host, one verdict.

The controller talks to the cloud over its sockets only. Whether all went well is said by the cloud's own checker, which
looks at the pretended hardware and knows nothing of the controller.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import click
import structlog

from ha_controller.adapters.plugins import Registry, find_plugins
from ha_controller.app import Runtime
from ha_controller.config import Config, load
from ha_controller.core.effects import Effect, Fence, MoveVm, OrderHost, RecoverVm, ResumeVm, Tell
from ha_controller.core.incident import Incident, VmStage
from ha_controller.core.model import HostState
from ha_controller.sim import echo, netns
from ha_controller.sim.cloud import EmbeddedCloud

SCHEMA = "ha-controller/demo/v1"
OK, FAILED, WAITS = 0, 1, 5
VMS_MUST_WAIT = ("cord-pulled", "bmc-dead")
START_MAX_S = 60.0
INCIDENT_MAX_S = 120.0
SINGLE_DOMAIN_S = 10.0
SETTLE_S = 2.0

_CONFIG = """\
mode = "auto"
state_dir = "{folder}/state"

[opennebula]
endpoint = "{endpoint}"
auth = {{ file = "{folder}/one_auth" }}
poll = "2s"
ssh_timeout = "10s"

[detect]
channels = ["{ping}", "ssh", "bmc", "oned"]
single_domain_after = "{single_domain_s:g}s"

{ping_settings}
[channel.ssh]
port = {ssh_port}
timeout = "500ms"

[guard]
settle = "{settle_s:g}s"
self_check = ["{witness}"]
max_failed_hosts = "34%"

[[fence]]
name = "bmc"
agent = "ipmi"
identity = "noted"
address = "{{FENCE_IP}}"
port = {bmc_port}
username = "{bmc_user}"
password = {{ file = "{folder}/bmc_password" }}

[api]
socket = "{folder}/socket"
"""


@dataclass
class Story:
    """What is seen while the demo runs: lines as they happen, on the clock of the fault."""

    clock: Callable[[], float]
    began_at: float = 0.0
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, event: str, host: str | None = None) -> None:
        """Print a line and keep it."""
        at_s = self.clock() - self.began_at
        self.timeline.append({"t_s": round(at_s, 2), "host": host, "event": event})
        click.echo(f"  {at_s:6.2f} s  {event}")


class _ShownRuntime(Runtime):
    """The real controller; what it orders and says is shown as well."""

    story: Story | None = None

    def dispatch(self, effect: Effect) -> None:
        if self.story is not None and (line := self._line(effect)):
            self.story.tell(line, self._name(effect))
        super().dispatch(effect)

    def _tell(self, effect: Tell) -> None:
        """Told by the story already."""

    def _name(self, effect: Effect) -> str | None:
        number = getattr(effect, "host", None)
        host = self.controller.state.hosts.get(-1 if number is None else number)
        return None if host is None else host.name

    def _line(self, effect: Effect) -> str:
        hosts = self.controller.state.hosts
        match effect:
            case Tell():
                return f"{effect.text}"
            case Fence():
                return f"→ power off by {', '.join(effect.devices)} (attempt {effect.attempt}), then read back"
            case OrderHost():
                return f"→ OpenNebula: {effect.step.value} {hosts[effect.host].name}"
            case MoveVm():
                return f"→ OpenNebula: migrate VM {effect.vm} to {hosts[effect.destination].name}"
            case ResumeVm():
                return f"→ OpenNebula: resume VM {effect.vm}"
            case RecoverVm():
                return f"→ OpenNebula: recover VM {effect.vm} ({effect.operation.name.lower()})"
            case _:
                return ""


def run(*, hosts: int, vms_per_host: int, fault: str, report: Path | None, namespaces: bool = False) -> int:
    """Run the demo; returns the exit code: 0 all VMs run elsewhere, 5 they wait as they must, 1 it went wrong.

    `namespaces`: the hosts are real kernels with real sshd; needs root.
    """
    if namespaces and (reason := netns.why_not()):
        click.echo(f"--netns cannot be used. {reason[0].upper()}{reason[1:]}.", err=True)
        return FAILED
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger().setLevel(logging.CRITICAL)
    cloud = EmbeddedCloud(hosts=hosts, vms_per_host=vms_per_host, namespaces=namespaces)
    with tempfile.TemporaryDirectory(prefix="ha-controller-demo-") as folder:
        try:
            return anyio.run(_run, Path(folder), cloud, fault, report)
        except netns.NetnsUnusable as error:
            click.echo(f"--netns cannot be used. {error}", err=True)
            return FAILED


def demo_config(folder: Path, cloud: EmbeddedCloud) -> tuple[Config, Registry]:
    """The configuration of the controller for an embedded cloud, through the real loader."""
    registry = find_plugins(extra_modules=[echo])
    _write_secret(folder / "one_auth", cloud.session)
    _write_secret(folder / "bmc_password", cloud.bmc_password)
    text = _CONFIG.format(
        folder=folder,
        endpoint=cloud.endpoint,
        single_domain_s=SINGLE_DOMAIN_S,
        settle_s=SETTLE_S,
        ping="icmp" if cloud.namespaces else "echo",
        ping_settings="" if cloud.namespaces else f"[channel.echo]\nport = {cloud.echo_port}\n",
        ssh_port=cloud.ssh_port,
        bmc_port=cloud.bmc_port,
        bmc_user=cloud.bmc_user,
        witness=cloud.gateway_address,
    )
    path = folder / "config.toml"
    path.write_text(text)
    config = load(path, environ={}, **registry.models())
    return config, registry


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


async def _run(folder: Path, embedded: EmbeddedCloud, fault: str, report: Path | None) -> int:
    async with embedded as cloud:
        config, registry = demo_config(folder, cloud)
        runtime = _ShownRuntime(config, registry)
        _introduce(cloud, config)
        async with anyio.create_task_group() as group:
            group.start_soon(runtime.run)
            code = await _break_and_watch(runtime, cloud, fault, report)
            group.cancel_scope.cancel()
    return code


def _introduce(cloud: EmbeddedCloud, config: Config) -> None:
    timings = cloud.timings
    click.echo(
        f"An embedded cloud: {len(cloud.hosts)} hosts with a BMC each, OpenNebula at {cloud.endpoint}.\n"
        f"Its monitoring is OpenNebula's own: a dead host is noticed after {timings.monitoring_interval_s:g} s, "
        f"looked at every {timings.manager_timer_s:g} s; its ssh gives up after {timings.ssh_timeout_s:g} s.\n"
        f"{_hosts_are(cloud)}\n"
        f"The controller is in mode {config.mode}. For the demo, silence of the only probe domain is enough after "
        f"{SINGLE_DOMAIN_S:g} s (default: 60 s), and it settles for {SETTLE_S:g} s (default: 30 s)."
    )


def _hosts_are(cloud: EmbeddedCloud) -> str:
    if cloud.namespaces:
        return "The hosts are network namespaces: real kernels that answer pings, and a real sshd in each."
    return "The hosts answer on 127.x addresses; a UDP echo takes the place of ping, which loopback always answers."


async def _break_and_watch(runtime: _ShownRuntime, cloud: EmbeddedCloud, fault: str, report: Path | None) -> int:
    with anyio.move_on_after(START_MAX_S) as starting:
        while not _ready(runtime):  # noqa: ASYNC110 - readiness has many parts and no event of its own
            await anyio.sleep(0.1)
    if starting.cancelled_caught:
        click.echo(
            f"The controller did not get ready: {runtime.controller.state.oned_detail or 'no device check'}", err=True
        )
        return FAILED
    victim = cloud.hosts[len(cloud.hosts) // 2]
    click.echo(f"All hosts are well. Now: {fault} on {victim.name}.\n")
    story = Story(clock=runtime.clock, began_at=runtime.clock())
    runtime.story = story
    cloud.break_host(victim.id, fault)
    story.tell(f"{fault} on {victim.name}", victim.name)
    with _progress(runtime, victim.id):
        incident = await _watch(runtime, victim.id)
    return _conclude(runtime, cloud, story, fault, incident, report)


def _ready(runtime: Runtime) -> bool:
    state = runtime.controller.state
    return (
        bool(state.hosts)
        and runtime.clock() >= state.settle_until
        and state.self_check is True
        and state.second_master is False
        and all(
            len(state.trust(host.id).seen_on) == len(state.view(host.id).devices) == sum(map(len, host.levels))
            for host in state.hosts.values()
        )
    )


async def _watch(runtime: Runtime, victim: int) -> Incident | None:
    """Until every VM has an outcome, or a person is needed, or time is up."""
    state = runtime.controller.state
    last: Incident | None = None
    with anyio.move_on_after(INCIDENT_MAX_S):
        while True:
            last = state.incidents.get(victim, last)
            if last is not None and (last.stopped or last.state is HostState.RECOVERED):
                break
            await anyio.sleep(0.05)
    return last


@contextmanager
def _progress(runtime: Runtime, victim: int) -> Iterator[None]:
    """A live board on a terminal; elsewhere the lines are enough."""
    if not sys.stdout.isatty():
        yield
        return
    from ha_controller.demo.board import shown  # only here: rich is slow to import

    with shown(runtime.controller.state, victim):
        yield


def _conclude(
    runtime: Runtime, cloud: EmbeddedCloud, story: Story, fault: str, incident: Incident | None, report: Path | None
) -> int:
    must_wait = fault in VMS_MUST_WAIT
    violations = list(cloud.check(vms_must_wait=must_wait))
    moved = sum(vm.stage is VmStage.RUNNING for vm in incident.vms) if incident else 0
    total = len(incident.vms) if incident else 0
    phases = _phases(incident, story.began_at)
    document = {
        "schema": SCHEMA,
        "fault": fault,
        "hosts": len(cloud.hosts),
        "vms": len(cloud.hosts) * cloud.vms_per_host,
        "failed_host": incident.host_name if incident else None,
        "phases_s": phases,
        "vms_recovered": moved,
        "vms_waiting": total - moved,
        "violations": violations,
        "timeline": story.timeline,
    }
    if report is not None:
        report.write_text(json.dumps(document, indent=2) + "\n")
    return _summarise(incident, phases, moved, violations, must_wait)


def _phases(incident: Incident | None, began_at: float) -> dict[str, float | None]:
    moments = (began_at, *(getattr(incident, name, None) for name in ("failed_at", "fenced_at", "recovered_at")))
    names = ("detect", "fence", "recover")
    phases = {
        name: None if before is None or after is None else round(after - before, 2)
        for name, before, after in zip(names, moments, moments[1:], strict=False)
    }
    return {**phases, "total": None if moments[-1] is None else round(moments[-1] - began_at, 2)}


def _summarise(
    incident: Incident | None,
    phases: dict[str, float | None],
    moved: int,
    violations: list[str],
    must_wait: bool,
) -> int:
    click.echo("")
    told = ", ".join(f"{name} {seconds:g} s" for name, seconds in phases.items() if seconds is not None)
    if told:
        click.echo(f"Measured: {told}.")
    for violation in violations:
        click.echo(f"VIOLATION: {violation}")
    if violations or incident is None:
        click.echo("The demo FAILED." if incident else "The demo FAILED: no incident was opened.")
        return FAILED
    if must_wait and incident.stopped:
        click.echo(f"{incident.host_name} is {incident.state.upper()}; its {len(incident.vms)} VMs wait, as they must:")
        click.echo(f"  {incident.stopped}.")
        return WAITS
    if not must_wait and incident.state is HostState.RECOVERED and moved == len(incident.vms):
        click.echo(
            f"All {moved} VMs of {incident.host_name} run elsewhere. The checker of the hardware saw no VM on two "
            "hosts and no healthy host powered off."
        )
        return OK
    click.echo(
        f"The demo FAILED: {incident.host_name} is {incident.state.upper()}; {incident.stopped or incident.hold}"
    )
    return FAILED
