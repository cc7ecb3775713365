"""Cluster-wide vetoes, looked at before FAILED and before every attempt.

Each guard answers with its reason, also when it has no objection. One that cannot tell says no.
Life is looked for once more when an order leaves: `life.taken_back`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ha_controller.core import life, shared_cause
from ha_controller.core.detector import (
    VerdictKind,
    alive_channels,
    dump_announced,
    dump_under_way,
    last_life,
    leaving_since,
)
from ha_controller.core.events import SelfChecked
from ha_controller.core.incident import Incident
from ha_controller.core.model import Host, HostState, OnedHostState
from ha_controller.core.state import State

DAY_S = 86400.0
OWN_HOST = "own host"
STORM_SAVED_EVERY_S, CAUSE_SAVED_EVERY_S = 1.0, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardResult:
    """One guard's answer."""

    guard: str
    passes: bool
    reason: str
    needs_person: bool = False  #: it may say no for ever; a person's approval overrules it, unless `helps` says more
    helps: str = ""  #: what a person can do instead, as a sentence

    def __str__(self) -> str:
        """As it stands in the incident and in `explain`."""
        return f"{'✓' if self.passes else '✗'} {self.guard}: {self.reason}"


def self_checked(state: State, event: SelfChecked, now: float) -> None:
    """Note whether we reach our witnesses. What was silent while we did not is silent from now on only.

    Our witness may answer again a moment before hosts do that were cut off from us together with it.
    """
    if event.ok and not state.self_check and state.settings.self_check_needed:
        for view in state.views.values():
            view.since = now if view.state is HostState.SUSPECT else view.since
            for name in state.settings.here:
                if name in view.views:
                    view.views[name].doubt_silence()
    state.self_check, state.self_check_detail = event.ok, event.detail


def check(state: State, host: Host, incident: Incident, now: float) -> tuple[GuardResult, ...]:
    """Ask every guard about powering off `host`, in a fixed order."""
    return tuple(
        GuardResult(guard=name, **answer._asdict())
        for name, ask in GUARDS
        for answer in (ask(state, host, incident, now),)
    )


def note(state: State, host: Host, incident: Incident, results: tuple[GuardResult, ...], now: float) -> Incident:
    """Remember a storm and a shared cause: while they pass, hosts come back one after the other, and some are last.

    Returns the incident with that: whoever saves the one of before would forget it over a restart.
    """
    said = {result.guard for result in results if not result.passes and result.needs_person}
    if "storm" in said and now - state.cloud.storm_at > STORM_SAVED_EVERY_S:
        state.save_cloud(replace(state.cloud, storm_at=now))
    if "shared cause" in said:
        note_cause(state, host, now)
    saved = state.incidents.get(host.id)
    if saved is None or saved.cause_at == incident.cause_at:
        return incident
    return replace(incident, cause_at=saved.cause_at)


def note_cause(state: State, host: Host, now: float) -> None:
    """Remember that a host shares its silence with others, on record too, if there is one."""
    state.view(host.id).cause_at = now
    incident = state.incidents.get(host.id)
    if incident is not None and now - incident.cause_at > CAUSE_SAVED_EVERY_S:
        state.save(replace(incident, cause_at=now))


def veto(results: tuple[GuardResult, ...]) -> GuardResult | None:
    """The first guard that says no."""
    return next((result for result in results if not result.passes), None)


def what_helps(vetoed: GuardResult, incident: Incident) -> str:
    """What people are told to do about a guard that says no."""
    name, helps = incident.host_name, ""
    if vetoed.helps:
        helps = f" {vetoed.helps}"
    elif vetoed.needs_person:
        helps = f" To act all the same: ha-controller pending approve {incident.id}."
    elif vetoed.guard == "readiness":
        helps = f" If you have seen that it is off: ha-controller confirm-off {name}."
    return f"Nothing is done.{helps} More: ha-controller explain {name}"


def runs_here(state: State, host: Host) -> str:
    """That this controller runs on the host, in words; empty if it does not, as far as is known."""
    if host.id not in (state.own_hosts or ()):
        return ""
    return f"this controller would power itself off: {state.own_place}"


def instead_of_itself(state: State, host: Host) -> str:
    """What a person can do about the host that this controller runs on."""
    confirm = f"ha-controller confirm-off {host.name}."
    if state.settings.lead_is_given_away:
        text = "A fit controller that stands by elsewhere gets the lead and goes on."
        return f"{text} If there is none, power the host off by hand, then: {confirm}"
    return f"Power it off by hand, then: {confirm} Or start a controller elsewhere, and stop this one."


def waits_for_another(state: State) -> list[Incident]:
    """Of our own hosts: nothing was ordered, and nothing but that we run there is in the way of their power-off."""
    opened = (state.incidents.get(host) for host in state.own_hosts or ())
    suspects = (each for each in opened if each and each.state is HostState.SUSPECT)
    return [each for each in suspects if each.untouched and each.hold.startswith(f"{OWN_HOST}: ")]


class _Answer(NamedTuple):
    passes: bool
    reason: str
    needs_person: bool = False
    helps: str = ""


def _leader(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    del host, incident, now
    if state.term is None:
        return _Answer(False, state.why_not_leading)
    return _Answer(True, f"we lead, term {state.term}")


def _second_master(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    del host, incident, now
    if state.settings.second_master_waived:
        return _Answer(True, "the operator states that nobody else acts")
    if state.second_master is None:
        return _Answer(False, f"cannot tell whether somebody else acts: {state.second_master_detail}")
    return _Answer(not state.second_master, state.second_master_detail)


def _self_check(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    del host, incident, now
    if not state.settings.self_check_needed:
        return _Answer(True, "waived by the operator")
    return _Answer(state.self_check is True, state.self_check_detail)


def _settle(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    del host, incident
    left_s = state.settle_until - now
    if left_s > 0:
        return _Answer(False, "we have only just begun to look; nothing is powered off this early")
    return _Answer(True, "we have been looking for long enough")


def _storm(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    """More than a share of the hosts is silent or fenced. The floor: one host alone, on proven power evidence."""
    in_scope = [candidate.id for candidate in state.hosts.values() if not candidate.excluded]
    down = [candidate for candidate in in_scope if state.view(candidate).state is not HostState.OK]
    counted = f"{len(down)} of {len(in_scope)} hosts silent or fenced"
    limit = state.settings.max_failed_share
    cooling_s = state.cloud.storm_at + state.settings.storm_cooldown_s - now
    if incident.approved_by:
        return _Answer(True, f"{counted}, approved by {incident.approved_by}")
    if len(down) <= limit * len(in_scope):
        if state.cloud.storm_at and cooling_s > 0:
            return _Answer(False, "cooling down after a storm")
        return _Answer(True, f"{counted} (limit {limit:.0%})")
    if down == [host.id] and incident.verdict == VerdictKind.POWERED_OFF:
        return _Answer(True, f"{counted}: over {limit:.0%}, but it is the only one and its power device proves it off")
    return _Answer(
        False, f"{counted}, over the limit of {limit:.0%}: more likely the network than the hosts", needs_person=True
    )


def _shared_cause(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    """Several hosts of one rack or switch, or with their fence devices: that is the network until a device says off."""
    if incident.approved_by:
        return _Answer(True, f"approved by {incident.approved_by}")
    if incident.verdict == VerdictKind.POWERED_OFF:
        return _Answer(True, "its own power device proves it off")
    fallen = shared_cause.fallen_together(state, host)
    if cause := shared_cause.cause_among(fallen, state, host, now):
        return _Answer(False, cause, needs_person=True)
    view = state.view(host.id)
    if view.cause_at and now - view.cause_at < state.settings.storm_cooldown_s:
        text = "others shared its silence a moment ago, and some are back:"
        return _Answer(False, f"{text} it has {state.settings.storm_cooldown_s:g} s to come back, too")
    others = sum(each.id != host.id for each in fallen.either)
    if not others:
        return _Answer(True, "no other host fell silent at about the same time")
    return _Answer(True, f"{others} others fell silent at about the same time; they share nothing of their own")


def _budget(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    """Against a slow cascade: what is over it waits until the time has passed, or a person says yes."""
    settings, counts, is_spent = state.settings, [], False
    for within_s, limit in ((settings.fences_per_s, settings.fences_max), (DAY_S, settings.fences_per_day_max)):
        spent = {fenced for at, fenced in state.cloud.fences if now - at < within_s and fenced != host.id}
        counts.append(f"{len(spent)} in the last {within_s / 60:g} min (limit {limit})")
        is_spent = is_spent or len(spent) >= limit
    text = f"other hosts powered off: {', '.join(counts)}"
    if is_spent and incident.approved_by:
        return _Answer(True, f"{text}; approved by {incident.approved_by}")
    return _Answer(not is_spent, text, needs_person=is_spent)


def _maintenance(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    del now
    if host.excluded:
        return _Answer(False, host.excluded)
    if state.view(host.id).awaits_life and not incident.approved_by:
        return _Answer(False, "it has not answered since its maintenance ended", needs_person=True)
    disabled = incident.prior_one_state in (OnedHostState.DISABLED, OnedHostState.OFFLINE)
    if disabled and not incident.prior_marked and not incident.approved_by:
        return _Answer(False, "disabled in OpenNebula by somebody else", needs_person=True)
    return _Answer(True, "in scope, not in maintenance")


def _readiness(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    del incident, now
    names = [device.name for level in host.levels for device in level]
    if not names:
        return _Answer(False, "no fence device is configured for it")
    views = state.view(host.id).devices
    ready = [name for name in names if name in views and views[name].passed_at is not None and not views[name].mismatch]
    if not ready:
        return _Answer(False, f"no fence device of it ({', '.join(names)}) has passed a check")
    return _Answer(True, f"{', '.join(ready)} passed a check")


def _crash_dump(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    """A host that writes its memory to disk is dead for its VMs; the power stays on until it is done, within bounds.

    Anybody could send such a message in a host's name: it delays, and never longer than `dump_max_s`.
    """
    settings, view = state.settings, state.view(host.id)
    if not settings.dump_await_s:
        return _Answer(True, "no channel hears of crash dumps")
    if incident.approved_by:
        return _Answer(True, f"approved by {incident.approved_by}")
    silent_since = last_life(view.views)
    began_at = dump_under_way(view.views, now)
    if began_at is not None and now - began_at < settings.dump_max_s:
        text = f"it is writing a crash dump, for {now - began_at:.0f} of at most {settings.dump_max_s:g} s"
        return _Answer(False, f"{text}; its power is needed until that is done")
    if incident.verdict == VerdictKind.POWERED_OFF or dump_announced(view.views, silent_since):
        return _Answer(True, "it writes no crash dump any more")
    left_s = silent_since + settings.dump_await_s - now
    if left_s > 0:
        return _Answer(False, f"it may still announce a crash dump within {settings.dump_await_s:g} s of its silence")
    return _Answer(True, f"it announced no crash dump within {settings.dump_await_s:g} s")


def _planned_reboot(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    """A host that said goodbye gets the time to come back; one that its device reads off was shut down instead."""
    since, longest_s = leaving_since(state.view(host.id).views), state.settings.planned_reboot_max_s
    if since is None:
        return _Answer(True, "it did not say that it is being rebooted")
    if incident.approved_by:
        return _Answer(True, f"approved by {incident.approved_by}")
    if incident.verdict == VerdictKind.POWERED_OFF:
        return _Answer(True, "it said that it is being shut down, and it is off")
    if now - since < longest_s:
        text = f"it said {now - since:.0f} s ago that it is being rebooted on purpose, and has {longest_s:g} s for that"
        return _Answer(False, text)
    return _Answer(True, f"it said that it is being rebooted, and did not come back within {longest_s:g} s")


def lacking_memory_mb(state: State, host: Host, incident: Incident) -> int:
    """How much of the VMs' memory fits nowhere else; 0 if all of it does, as far as is known."""
    vms = state.view(host.id).vms
    needed = sum(vms[record.id].memory_mb for record in incident.vms if record.id in vms)
    free = sum(
        each.free_memory_mb
        for each in state.hosts.values()
        if each.id != host.id
        and not each.excluded
        and each.cluster == host.cluster
        and each.one_state == OnedHostState.MONITORED
        and state.view(each.id).state is HostState.OK
    )
    return max(0, needed - free)


def _capacity(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    """Never a reason to leave a dead host alone: some VMs running are better than none. But people are told."""
    del now
    if lacking := lacking_memory_mb(state, host, incident):
        return _Answer(True, f"{lacking} MB of its VMs fit nowhere else: some will wait for room")
    return _Answer(True, "its VMs fit elsewhere, as far as OpenNebula tells")


def _life(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    """The last word before a shot, said once more here so that no path can forget it."""
    alive = alive_channels(state.view(host.id).views, state.rules(host.id), now)
    if unexpected := life.unexpected(state, host.id, incident, alive):
        return _Answer(False, f"{', '.join(unexpected)} answers")
    if elsewhere := life.vetoed_elsewhere(state, incident, now):
        return _Answer(False, elsewhere, helps=life.if_wrong(state, host.id, now))
    return _Answer(True, "no channel shows life")


def _own_host(state: State, host: Host, incident: Incident, now: float) -> _Answer:
    """No approval overrules it: an order that ends whoever gave it is never seen through by this controller.

    The last that may say no, so that the lead is given away only if nothing else is in the way.
    """
    del incident, now
    if where := runs_here(state, host):
        return _Answer(False, where, needs_person=True, helps=instead_of_itself(state, host))
    if state.own_hosts is None:
        return _Answer(True, f"where this controller runs is not known: {state.own_place}")
    return _Answer(True, "this controller does not run on it")


GUARDS: tuple[tuple[str, Callable[[State, Host, Incident, float], _Answer]], ...] = (
    ("leader", _leader),
    ("second master", _second_master),
    ("self-check", _self_check),
    ("settle", _settle),
    ("shared cause", _shared_cause),
    ("storm", _storm),
    ("budget", _budget),
    ("maintenance", _maintenance),
    ("readiness", _readiness),
    ("crash dump", _crash_dump),
    ("planned reboot", _planned_reboot),
    ("life", _life),
    (OWN_HOST, _own_host),
    ("capacity", _capacity),
)
