"""What Prometheus is told: a reading of the state, made anew at each scrape, and what was counted since the start.

docs/metrics.md says what each means.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from ha_controller import __version__
from ha_controller.app import messages, vantage
from ha_controller.app.counting import Counting, word
from ha_controller.app.exposition import Page, Samples
from ha_controller.app.hints import Hints
from ha_controller.core import guard, power, report, trust
from ha_controller.core.detector import alive_channels
from ha_controller.core.incident import VmStage
from ha_controller.core.model import HostState
from ha_controller.core.settings import Mode
from ha_controller.core.state import State

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

Make = Callable[..., Samples]
HOST = ("one_host_id", "host")  #: as OpenNebula's own exporter names them


def exposition(runtime: Runtime, round_age_s: float) -> Page:
    """What is so now, for one scrape."""
    page = Page()
    gauge, state, now = page.gauge, runtime.controller.state, runtime.clock()
    gauge("loop_age_seconds", "Since the last decision round").add(round_age_s)
    _controller(gauge, runtime)
    _others(gauge, runtime, now)
    _opennebula(gauge, state, now, runtime.hints)
    _hosts(gauge, state, now)
    _incidents(gauge, state)
    _guards(gauge, state, now)
    _devices(gauge, state, now)
    _reserve(gauge, state, now)
    _people(gauge, runtime)
    counted(page, runtime.counting)
    page.counter("oned_events_total", "Events of oned", runtime.hints.counted())
    return page


def _controller(gauge: Make, runtime: Runtime) -> None:
    state, leadership = runtime.controller.state, runtime.leadership
    gauge("build_info", "Version", "version", "python").add(1, __version__, platform.python_version())
    modes = gauge("mode", "1 for the mode in force", "mode")
    for mode in Mode:
        modes.add(state.settings.mode is mode, mode.value)
    gauge("leader", "Whether this controller leads").add(leadership.term is not None)
    gauge("leader_term", "Term in which it leads; 0: it does not").add(leadership.term or 0)
    gauge("leader_engine_up", "0: the engine of the arbiter does not answer").add(not leadership.trouble)
    gauge("members", "Controllers that take part, as last seen").add(len(leadership.members))
    gauge("paused", "Whether the cloud is paused").add(bool(state.cloud.paused_by))
    gauge("self_check_ok", "0: we may be cut off ourselves, and power nothing off").add(bool(state.self_check))
    reloaded = gauge("config_last_reload_success", "0: the configuration was bad when it was last read")
    reloaded.add(not runtime.counting.config_is_bad)
    gauge("commands_refused", "Commands refused because too many waited").add(runtime.commander.refused)
    head = None if runtime.ledger is None else runtime.ledger.head
    gauge("trail_last_entry", "Number of the last entry of the audit trail").add(0 if head is None else head.id)
    first = gauge("trail_last_seal", "The first twelve digits of its seal, as a number: evidence kept elsewhere")
    first.add(0 if head is None else head.number)
    dropped = 0 if runtime.engine is None else runtime.engine.evidence_dropped
    gauge("evidence_dropped", "Readings dropped because the inbox was full").add(dropped)


def _others(gauge: Make, runtime: Runtime, now: float) -> None:
    gauge("leaders_seen", "Controllers that say they lead, this one among them").add(vantage.leaders_seen(runtime))
    gauge("fit", "Whether it can tell other controllers what is silent").add(not vantage.why_unfit(runtime))
    answers = gauge("other_answers", "1 if another controller answered lately", "controller")
    fit = gauge("other_fit", "1 if it can tell what is silent", "controller")
    alive = gauge("other_hosts_alive", "Hosts that it saw alive lately", "controller")
    for row in vantage.shown(runtime.controllers.sights, now):
        answers.add(not row["trouble"], row["name"])
        fit.add(row["fit"], row["name"])
        alive.add(row["hosts_alive"], row["name"])


def _opennebula(gauge: Make, state: State, now: float, hints: Hints) -> None:
    age_s = -1 if state.oned_at is None else now - state.oned_at
    gauge("oned_up", "Whether the last reading of OpenNebula succeeded").add(
        state.oned_at is not None and not state.oned_detail
    )
    heard = gauge("oned_events_connected", "1: oned's events are heard; nothing depends on them")
    if hints.address:
        heard.add(hints.listener is not None and hints.listener.heard.connected)
    gauge("oned_age_seconds", "Since OpenNebula was read; -1: never").add(age_s)


def _hosts(gauge: Make, state: State, now: float) -> None:
    states = gauge("host_state", "1 for the state a host is in", *HOST, "state")
    excluded = gauge("host_excluded", "1: in maintenance or not cared for; never powered off by us", *HOST)
    maintenance = gauge("host_maintenance", "1: excluded because a person works on it", *HOST)
    up = gauge("channel_up", "1: the last word of the channel about the host is fresh life", *HOST, "channel")
    for host in state.hosts.values():
        labels, view = (str(host.id), host.name), state.view(host.id)
        maintenance.add(host.maintenance, *labels)
        alive = alive_channels(view.views, state.settings, now)
        for channel in view.views:
            up.add(channel in alive, *labels, channel)
        for each in HostState:
            states.add(view.state is each, *labels, each.value)
        excluded.add(bool(host.excluded), *labels)


def _incidents(gauge: Make, state: State) -> None:
    gauge("pending_decisions", "Decisions that wait for a person").add(len(report.pending(state)))
    held = gauge("incident_held", "1: its incident stands still; `ha-controller explain` says why", *HOST)
    waiting = gauge("vms_waiting", "VMs of its incident without an outcome", *HOST)
    left = gauge("vms_left_alone", "VMs of its incident that were left for a person", *HOST)
    for incident in state.incidents.values():
        labels = (str(incident.host), incident.host_name)
        held.add(bool(incident.hold or incident.stopped), *labels)
        waiting.add(sum(not record.settled for record in incident.vms), *labels)
        left.add(sum(record.stage is VmStage.LEFT for record in incident.vms), *labels)


def _guards(gauge: Make, state: State, now: float) -> None:
    """What each guard says now of the hosts that have an incident and are not off."""
    refused: Counter[str] = Counter()
    for incident in state.incidents.values():
        host = state.hosts.get(incident.host)
        if host is not None and incident.fenced_at is None and not incident.rebooted:
            results = guard.check(state, host, incident, now)
            refused.update(result.guard for result in results if not result.passes)
    tripped = gauge("guard_tripped", "Incidents of hosts that are not off to which the guard says no now", "guard")
    for name, _ in guard.GUARDS:
        tripped.add(refused[name], word(name))


def _devices(gauge: Make, state: State, now: float) -> None:
    without = gauge("host_without_fence_device", "1: if it fails, nothing can power it off", *HOST)
    ready = gauge("fence_device_ready", "1 if the device passed its last check", *HOST, "device", "identity")
    age = gauge("fence_device_check_age_seconds", "Since the device was checked; -1: never", *HOST, "device")
    drill = gauge("fence_device_drill_age_seconds", "Since a drill with the device; -1: never", *HOST, "device")
    for host in state.hosts.values():
        labels = (str(host.id), host.name)
        without.add(not host.levels and not host.excluded, *labels)
        for device in power.devices(host):
            drilled_at = trust.drilled_at(state, host.id, device)
            drill.add(-1 if drilled_at is None else now - drilled_at, *labels, device.name)
            view = state.view(host.id).devices.get(device.name)
            whose = trust.how_trusted(state, host, device)
            ready.add(view is not None and view.ok and not view.mismatch, *labels, device.name, whose)
            checked_at = None if view is None else view.checked_at
            age.add(-1 if checked_at is None else now - checked_at, *labels, device.name)


def _reserve(gauge: Make, state: State, now: float) -> None:
    known = state.reserve
    age_s = -1 if known is None else now - known.asked_at
    gauge("reserve_age_seconds", "Since the reserve was computed; -1: never").add(age_s)
    wanted = gauge("reserve_hosts", "How many hosts of a cluster are to be able to fail", "cluster")
    may_fail = gauge("tolerable_host_failures", "How many hosts of a cluster may fail at once", "cluster")
    without = gauge("reserve_vms_without_place", "VMs that the worst loss would leave without a place", "cluster")
    for cluster in known.clusters if known else ():
        number = state.settings.reserve_of(cluster.name)
        wanted.add(number, cluster.name)
        may_fail.add(cluster.may_fail, cluster.name)
        without.add(len(cluster.without) if cluster.may_fail < number else 0, cluster.name)


def _people(gauge: Make, runtime: Runtime) -> None:
    writes = gauge("attribute_writes", "Attributes for people: how many writes to OpenNebula ended how", "result")
    for result, count in sorted(runtime.attributes.results.items()):
        writes.add(count, result)
    sent = gauge("messages", "Messages to people: how many ended how", "sink", "result")
    down = gauge("notifier_down", "1 if the last message through it did not go out", "sink")
    for row in messages.standing(runtime.notifier):
        down.add(bool(row["trouble"]), row["name"])
        for result, count in row["results"].items():
            sent.add(count, row["name"], result)


def counted(page: Page, counts: Counting) -> None:
    """What was counted since the process began: every counter, then every histogram."""
    counter = page.counter
    counter("fences_total", "Power-offs by a level of devices, by what became of them", counts.fences)
    counter("fence_attempts_total", "Uses of an agent in a power-off", counts.fence_attempts)
    counter("drills_total", "Devices that were tried for real", counts.drills)
    counter("transitions_total", "Hosts that changed their state", counts.transitions)
    counter("incidents_opened_total", "Incidents that began", counts.incidents_opened)
    counter("incidents_total", "Incidents that were closed, by how they ended", counts.incidents)
    counter("vm_outcomes_total", "VMs of incidents, by their outcome", counts.vm_outcomes)
    counter("vm_orders_total", "Orders for VMs to OpenNebula", counts.vm_orders)
    counter("host_orders_total", "Orders for hosts to OpenNebula", counts.host_orders)
    counter("guard_refusals_total", "Decisions that a guard has held up", counts.guard_refusals)
    counter("channel_readings_total", "What channels have seen", counts.readings)
    counter("oned_requests_total", "Calls of OpenNebula", counts.oned_calls)
    counter("counting_faults_total", "Faults of counting itself: these numbers are too low", counts.faults)
    histogram = page.histogram
    histogram("incident_phase_seconds", "How long each phase of incidents took", counts.phases)
    histogram("vm_downtime_seconds", "From a host's last life to RUNNING elsewhere", counts.vm_downtime)
    histogram("fence_duration_seconds", "How long an agent took in a power-off", counts.fence_duration)
    histogram("channel_duration_seconds", "From a question to the life that answered it", counts.probe_duration)
    histogram("oned_request_duration_seconds", "How long calls of OpenNebula took", counts.oned_duration)
    histogram("journal_commit_duration_seconds", "How long it took to put decisions on disk", counts.commits)
    histogram("loop_duration_seconds", "How long rounds of decisions took", counts.rounds)
    histogram("loop_lag_seconds", "How late the event loop gave the prober its turn", counts.lag)
