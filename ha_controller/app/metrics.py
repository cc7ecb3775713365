"""What Prometheus is told: a reading of the state, made anew at each scrape. docs/metrics.md says what each means."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from ha_controller import __version__
from ha_controller.app import messages
from ha_controller.core import power, report, trust
from ha_controller.core.incident import VmStage
from ha_controller.core.model import HostState
from ha_controller.core.settings import Mode
from ha_controller.core.state import State

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

Make = Callable[..., Gauge]
HOST = ("one_host_id", "host")  #: as OpenNebula's own exporter names them


def exposition(runtime: Runtime, round_age_s: float) -> str:
    """The text of one scrape."""
    registry = CollectorRegistry()
    state, now = runtime.controller.state, runtime.clock()

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"ha_controller_{name}", text, labels, registry=registry)

    gauge("loop_age_seconds", "Since the last decision round").set(round_age_s)
    _controller(gauge, runtime)
    _opennebula(gauge, state, now)
    _hosts(gauge, state)
    _incidents(gauge, state)
    _devices(gauge, state, now)
    _reserve(gauge, state, now)
    _people(gauge, runtime)
    return generate_latest(registry).decode()


def _controller(gauge: Make, runtime: Runtime) -> None:
    state, leadership = runtime.controller.state, runtime.leadership
    gauge("build_info", "Version", "version").labels(__version__).set(1)
    modes = gauge("mode", "1 for the mode in force", "mode")
    for mode in Mode:
        modes.labels(mode.value).set(state.settings.mode is mode)
    gauge("leader", "Whether this controller leads").set(leadership.term is not None)
    gauge("leader_term", "Term in which it leads; 0: it does not").set(leadership.term or 0)
    gauge("leader_engine_up", "0: the engine of the arbiter does not answer").set(not leadership.trouble)
    gauge("members", "Controllers that take part, as last seen").set(len(leadership.members))
    gauge("paused", "Whether the cloud is paused").set(bool(state.cloud.paused_by))
    gauge("self_check_ok", "0: we may be cut off ourselves, and power nothing off").set(bool(state.self_check))
    gauge("commands_refused", "Commands refused because too many waited").set(runtime.commander.refused)
    head = None if runtime.ledger is None else runtime.ledger.head
    gauge("trail_last_entry", "Number of the last entry of the audit trail").set(0 if head is None else head.id)
    first = gauge("trail_last_seal", "The first twelve digits of its seal, as a number: evidence kept elsewhere")
    first.set(0 if head is None else head.number)
    dropped = 0 if runtime.engine is None else runtime.engine.evidence_dropped
    gauge("evidence_dropped", "Readings dropped because the inbox was full").set(dropped)


def _opennebula(gauge: Make, state: State, now: float) -> None:
    age_s = -1 if state.oned_at is None else now - state.oned_at
    gauge("oned_age_seconds", "Since OpenNebula was read; -1: never").set(age_s)


def _hosts(gauge: Make, state: State) -> None:
    states = gauge("host_state", "1 for the state a host is in", *HOST, "state")
    excluded = gauge("host_excluded", "1: in maintenance or not cared for; never powered off by us", *HOST)
    for host in state.hosts.values():
        for each in HostState:
            states.labels(str(host.id), host.name, each.value).set(state.view(host.id).state is each)
        excluded.labels(str(host.id), host.name).set(bool(host.excluded))


def _incidents(gauge: Make, state: State) -> None:
    gauge("pending_decisions", "Decisions that wait for a person").set(len(report.pending(state)))
    held = gauge("incident_held", "1: its incident stands still; `ha-controller explain` says why", *HOST)
    waiting = gauge("vms_waiting", "VMs of its incident without an outcome", *HOST)
    left = gauge("vms_left_alone", "VMs of its incident that were left for a person", *HOST)
    for incident in state.incidents.values():
        labels = (str(incident.host), incident.host_name)
        held.labels(*labels).set(bool(incident.hold or incident.stopped))
        waiting.labels(*labels).set(sum(not record.settled for record in incident.vms))
        left.labels(*labels).set(sum(record.stage is VmStage.LEFT for record in incident.vms))


def _devices(gauge: Make, state: State, now: float) -> None:
    without = gauge("host_without_fence_device", "1: if it fails, nothing can power it off", *HOST)
    ready = gauge("fence_device_ready", "1 if the device passed its last check", *HOST, "device", "identity")
    age = gauge("fence_device_check_age_seconds", "Since the device was checked; -1: never", *HOST, "device")
    drill = gauge("fence_device_drill_age_seconds", "Since a drill with the device; -1: never", *HOST, "device")
    for host in state.hosts.values():
        labels = (str(host.id), host.name)
        without.labels(*labels).set(not host.levels and not host.excluded)
        for device in power.devices(host):
            drilled_at = trust.drilled_at(state, host.id, device)
            drill.labels(*labels, device.name).set(-1 if drilled_at is None else now - drilled_at)
            view = state.view(host.id).devices.get(device.name)
            whose = trust.how_trusted(state, host, device)
            ready.labels(*labels, device.name, whose).set(view is not None and view.ok and not view.mismatch)
            checked_at = None if view is None else view.checked_at
            age.labels(*labels, device.name).set(-1 if checked_at is None else now - checked_at)


def _reserve(gauge: Make, state: State, now: float) -> None:
    known = state.reserve
    age_s = -1 if known is None else now - known.asked_at
    gauge("reserve_age_seconds", "Since the reserve was computed; -1: never").set(age_s)
    wanted = gauge("reserve_hosts", "How many hosts of a cluster are to be able to fail", "cluster")
    may_fail = gauge("tolerable_host_failures", "How many hosts of a cluster may fail at once", "cluster")
    without = gauge("reserve_vms_without_place", "VMs that the worst loss would leave without a place", "cluster")
    for cluster in known.clusters if known else ():
        number = state.settings.reserve_of(cluster.name)
        wanted.labels(cluster.name).set(number)
        may_fail.labels(cluster.name).set(cluster.may_fail)
        without.labels(cluster.name).set(len(cluster.without) if cluster.may_fail < number else 0)


def _people(gauge: Make, runtime: Runtime) -> None:
    writes = gauge("attribute_writes", "Attributes for people: how many writes to OpenNebula ended how", "result")
    for result, count in sorted(runtime.attributes.results.items()):
        writes.labels(result).set(count)
    sent = gauge("messages", "Messages to people: how many ended how", "sink", "result")
    down = gauge("notifier_down", "1 if the last message through it did not go out", "sink")
    for row in messages.standing(runtime.notifier):
        down.labels(row["name"]).set(bool(row["trouble"]))
        for result, count in row["results"].items():
            sent.labels(row["name"], result).set(count)
