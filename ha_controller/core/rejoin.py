"""The way back of a host that was fenced: from its first answer to the day it takes VMs again.

One pure function, `gate`, says what speaks against it; `explain` shows the same list. Nothing here makes OpenNebula use
a host on which a VM is known to be that runs elsewhere: no policy and no person's `--force` does that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ha_controller.core import lasting, leftovers, lever, moving, power, returned, suspicion, takeover
from ha_controller.core.detector import alive_channels
from ha_controller.core.effects import DONE, LOOK_AGAIN, ORDER_VALID_S, REFUSED, PowerOn, Severity
from ha_controller.core.events import OperatorCommanded, PoweredOn
from ha_controller.core.incident import AttemptOutcome, Incident, Lever
from ha_controller.core.machine import Trigger
from ha_controller.core.model import Domain, Host, HostState, OnedHostState, PowerState
from ha_controller.core.state import State

GONE = "it is no longer in OpenNebula"
NEVER_OFF = "the very boot from before the power-off answers: it was never off"
UNTOUCHED = (HostState.OK, HostState.SUSPECT)  #: nothing was powered off yet
AWAY = (HostState.FAILED, HostState.RECOVERED)  #: it has to pass the gate


# --- the gate ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One thing that must hold before a host takes VMs again."""

    name: str
    passed: bool
    reason: str
    forcible: bool = False  #: a person who has looked may answer for it: `unfence --force`
    soon: bool = False  #: it is being asked; try again in a moment


def gate(state: State, incident: Incident, now: float, *, repaired: bool = False) -> tuple[Condition, ...]:
    """Everything that is asked of a host before it is given back, with the answers. Changes nothing."""
    left = leftovers.found(state, incident, now)
    boot = _boot(state, incident, left)
    return (
        _answers(state, incident, now),
        _no_order(state, incident, now),
        boot,
        _no_leftovers(state, incident, left, boot),
        _storage(state, incident, now),
        _lifted(state, incident),
        _trusted(state, incident, now, repaired),
    )


def _answers(state: State, incident: Incident, now: float) -> Condition:
    view, needed_s, name = state.view(incident.host), state.settings.rejoin_after_s, "answers"
    alive = alive_channels(view.views, state.rules(incident.host), now)
    if view.answers_since is None or not alive:
        return Condition(name=name, passed=False, reason="it does not answer. Power it on first")
    answers_s = now - view.answers_since
    if answers_s < needed_s:
        reason = f"it answers for {answers_s:.0f} s only; {needed_s:g} s are needed. Try again"
        return Condition(name=name, passed=False, reason=reason)
    return Condition(name=name, passed=True, reason=f"{', '.join(alive)}, for {answers_s:.0f} s")


def _no_order(state: State, incident: Incident, now: float) -> Condition:
    name, last = "no order under way", incident.attempts[-1] if incident.attempts else None
    if last is not None and last.outcome in (AttemptOutcome.ORDERED, AttemptOutcome.ACCEPTED):
        return Condition(name=name, passed=False, reason="a power-off is still under way. Try again")
    since = now - state.settings.order_timeout_s
    if unanswered := [each.name for each in incident.vms if not each.answered and each.ordered_at > since]:
        reason = f"an order for {', '.join(unanswered[:5])} is still under way. Try again"
        return Condition(name=name, passed=False, reason=reason)
    return Condition(name=name, passed=True, reason="none")


def _boot(state: State, incident: Incident, left: leftovers.Leftovers) -> Condition:
    """Another boot than before the power-off ends everything that ran there.

    A boot that is not known does not block after a power device has proven OFF: no process outlives that. It blocks
    after a person's word, and after a proof that life has voided: then nothing else says that the old VMs are gone.
    """
    name, view = "new boot", state.view(incident.host)
    if incident.fenced_at is None:
        return Condition(name=name, passed=True, reason="not needed: it was never verified off")
    if view.new_boot is not None and view.new_boot.noticed_at > incident.fenced_at:
        return Condition(name=name, passed=True, reason=f"{view.new_boot.boot_id[:8]} answers, another one than before")
    if _was_never_off(state, incident):
        reason = f"{NEVER_OFF}, and its VMs may still run. Reboot it"
        sees_all = state.settings.hosts_asked and not left.unknown
        return Condition(name=name, passed=False, reason=reason, forcible=sees_all)
    if incident.proof is not None and incident.proof.devices:
        reason = f"which one answers is not known, nor needed: it was proven off ({incident.proof.text})"
        return Condition(name=name, passed=True, reason=reason)
    why = "only a person's word says that it was off" if incident.proof is not None else "its proof was void"
    reason = f"which boot answers is not known, and {why}. Reboot it"
    return Condition(name=name, passed=False, reason=reason, forcible=True)


def _was_never_off(state: State, incident: Incident) -> bool:
    """Whether the boot from before the power-off answers."""
    view = state.view(incident.host)
    return incident.fenced_at is not None and view.boot_seen_at > incident.fenced_at >= view.boot_known_at


def _no_leftovers(state: State, incident: Incident, left: leftovers.Leftovers, boot: Condition) -> Condition:
    name = "no leftover domains"
    if left.vms:
        found = leftovers.names(state, incident, left.vms)
        return Condition(name=name, passed=False, reason=f"{found}, by {left.source}")
    if left.unknown:
        soon = not state.view(incident.host).domains_failed
        return Condition(name=name, passed=False, reason=left.unknown, forcible=boot.passed, soon=soon)
    if not state.settings.hosts_asked:
        reason = "none in OpenNebula's monitoring; the host itself is not asked (identity.username is not set)"
        return Condition(name=name, passed=True, reason=reason)
    return Condition(name=name, passed=True, reason=f"none, by {left.source}")


def _storage(state: State, incident: Incident, now: float) -> Condition:
    """Its heartbeat on the storage moves. A host that never wrote one has none, and cannot be judged by it."""
    name, views = "storage", state.view(incident.host).views
    rules = state.rules(incident.host)
    known = [(each.name, views[each.name]) for each in rules.by_domain[Domain.STORAGE] if each.name in views]
    heard = [each for each, view in known if view.alive_at is not None or view.silent_since is not None]
    if not heard:
        return Condition(name=name, passed=True, reason="not known: no heartbeat of it is looked at")
    alive = alive_channels(views, rules, now)
    if still := [each for each in heard if each not in alive]:
        reason = f"{', '.join(still)} does not see its heartbeat. Mount its datastore"
        return Condition(name=name, passed=False, reason=reason, forcible=True)
    return Condition(name=name, passed=True, reason=f"{', '.join(heard)} sees its heartbeat")


def _lifted(state: State, incident: Incident) -> Condition:
    name = "storage fences"
    if not incident.in_force:
        return Condition(name=name, passed=True, reason="none in force")
    if why := lasting.why_not_lifted(incident, state.hosts.get(incident.host)):
        reason = f"{why}; what {lasting.names_in_force(incident)} did to it has to be lifted by hand"
        return Condition(name=name, passed=False, reason=reason, forcible=True)
    reason = f"what {lasting.names_in_force(incident)} did to it is lifted first"
    return Condition(name=name, passed=True, reason=reason)


def _trusted(state: State, incident: Incident, now: float, repaired: bool) -> Condition:
    name, often = "not in quarantine", suspicion.quarantine(state, incident.host, now)
    if not often:
        return Condition(name=name, passed=True, reason="it did not fail often")
    if repaired:
        return Condition(name=name, passed=True, reason=f"{often}; a person says that it is repaired")
    again = f"ha-controller unfence {incident.host_name} --repaired"
    reason = f"it is in quarantine: {often}. If that is repaired: {again}"
    return Condition(name=name, passed=False, reason=reason)


# --- looking at a host that is away -----------------------------------------------------------------------------------


def advance(state: State, host: Host, incident: Incident, now: float) -> None:
    """Look at a host that is away: power it on, look for leftovers, readmit it by itself."""
    if not alive_channels(state.view(host.id).views, state.rules(host.id), now):
        if state.settings.power_on and incident.state is HostState.RECOVERED:
            _power_on(state, host, incident, now)
        return
    if incident.state is HostState.RECOVERED and _was_never_off(state, incident) and not incident.stopped:
        next_step = f"They were started elsewhere: look at once, and reboot {host.name}"
        incident = state.stop(incident, f"{NEVER_OFF}, and its VMs may run twice", next_step, now)
    leftovers.look(state, incident, now)
    left = leftovers.found(state, incident, now)
    incident = leftovers.tell(state, incident, left)
    leftovers.destroy(state, incident, left, now)
    if not state.settings.rejoins_itself or incident.state is not HostState.RECOVERED or incident.stopped:
        return
    if moving.what_holds(state, incident) is not None:
        return
    conditions = gate(state, incident, now)
    if all(condition.passed for condition in conditions):
        because = "; ".join(f"{condition.name}: {condition.reason}" for condition in conditions)
        state.explain(host.id, "given back to OpenNebula by itself", because, now)
        text = f"{host.name} answers again and is given back to OpenNebula"
        state.tell_of(incident, Severity.INFO, text, f"Nothing to do. Why: ha-controller explain {host.name}")
        _give_back(state, incident, now)


def _power_on(state: State, host: Host, incident: Incident, now: float) -> None:
    """Once, after every VM has its outcome, and only what our own power-off switched off."""
    proof = incident.proof
    if incident.powered_on_at is not None or why_not_powered_on(state, host, incident, now) or proof is None:
        return
    read = power.power_since(state, host, now - state.settings.proof_age_max_s)
    if power.against(host, read, proof.devices):
        return  # somebody did it
    if any(read.get(name) is not PowerState.OFF for name in proof.devices):
        power.ask_for_power(state, host.id, power.readable(host), now)
        return
    incident = state.save(replace(incident, powered_on_at=now))
    not_after = now + ORDER_VALID_S
    state.out.append(PowerOn(host=host.id, incident=incident.id, devices=proof.devices, not_after=not_after))
    state.tell_of(incident, Severity.INFO, f"{host.name} is powered on again, once", "Its VMs stay where they are.")


def why_not_powered_on(state: State, host: Host, incident: Incident, now: float) -> str:
    """Why a RECOVERED host is left off; empty if it may be powered on."""
    proof = incident.proof
    if proof is None or not proof.devices:
        return "we did not power it off"
    if power.fingerprints(host, proof.devices) != proof.fingerprints:
        return "its devices have other settings now"
    if incident.in_force:
        return f"what {lasting.names_in_force(incident)} did to it is in force"
    if incident.stopped:
        return incident.stopped
    if hold := moving.what_holds(state, incident):
        return hold.text
    if often := suspicion.quarantine(state, host.id, now):
        return f"it is in quarantine: {often}"
    cloud = state.cloud
    if cloud.storm_at and now - cloud.storm_at < state.settings.storm_cooldown_s:
        return "there was a storm just now"
    calm = (HostState.OK, HostState.RECOVERED)
    restless = [
        f"host {known} is {view.state.upper()}" for known, view in sorted(state.views.items()) if view.state not in calm
    ]
    return restless[0] if restless else ""


def powered_on(state: State, incident: Incident, event: PoweredOn) -> None:
    """Tell what could not be switched on; it is not tried again."""
    if event.failed:
        failed = "; ".join(f"{device}: {detail}" for device, detail in event.failed)
        text = f"{incident.host_name} could not be powered on again ({failed})"
        state.tell_of(incident, Severity.WARNING, text, "Power it on by hand. Its VMs run elsewhere.")


# --- the operator's word ----------------------------------------------------------------------------------------------


def unfence(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Readmit a host that answers again: the way back to OK."""
    name = incident.host_name
    if (host := state.hosts.get(incident.host)) is not None and host.excluded == GONE:
        open_ones = ", ".join(record.name for record in incident.vms if not record.settled)
        more = f"; nothing was done for {open_ones}" if open_ones else ""
        suspicion.close(state, incident, f"dismissed by {command.who}: {GONE}{more}", now)
        state.answer(command.request, DONE, f"{name}: its incident is closed; it is no longer in OpenNebula{more}.")
    elif incident.state is HostState.FENCED:
        state.answer(command.request, REFUSED, f"VMs of {name} still wait for an outcome; it cannot be readmitted yet.")
    elif incident.state in UNTOUCHED:
        _dismiss(state, command, incident, now)
    elif not takeover.refused_until_released(state, command.request, incident):
        _through_the_gate(state, command, incident, now)


def _through_the_gate(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    name = incident.host_name
    failing = [each for each in gate(state, incident, now, repaired=command.repaired) if not each.passed]
    against = [each for each in failing if not (command.force and each.forcible)]
    if against:
        code = LOOK_AGAIN if all(each.soon for each in against) else REFUSED
        more = " Try again." if code == LOOK_AGAIN else ""
        if code == REFUSED and all(each.forcible for each in against):
            more = f" If you have seen to that: ha-controller unfence {name} --force"
        state.answer(command.request, code, f"{name}: {'; '.join(each.reason for each in against)}.{more}")
        return
    if command.force:
        incident = replace(incident, in_force=())
    lifts = lasting.names_in_force(incident)
    _give_back(state, incident, now)
    first = f" as soon as what {lifts} did to it is lifted" if lifts else ""
    state.answer(command.request, DONE, f"{name} is given back to OpenNebula{first}.")


def _dismiss(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Close an incident in which nothing was powered off; VMs that were to be started again are named."""
    name, view = incident.host_name, state.view(incident.host)
    if incident.lever is not Lever.NOT_BEGUN:
        state.answer(command.request, REFUSED, f"OpenNebula is just being made to ask {name} anew. Try again.")
    elif view.answers_since is None or not alive_channels(view.views, state.rules(incident.host), now):
        state.answer(command.request, REFUSED, f"{name} does not answer. Power it on first.")
    else:
        dropped = ", ".join(record.name for record in incident.vms if not record.settled) if incident.rebooted else ""
        more = f"; not started again: {dropped}" if dropped else ""
        suspicion.close(state, incident, f"dismissed by {command.who}{more}", now)
        state.answer(command.request, DONE, f"{name} is readmitted{more}.")


def _give_back(state: State, incident: Incident, now: float) -> None:
    """Lift what is in force, then hand the host to OpenNebula."""
    incident = state.save(replace(incident, stopped="", hold="", hold_needs_person=False))
    if incident.in_force:
        lasting.begin_to_lift(state, incident, now)
    else:
        lever.restore(state, incident, now)


def readmit(state: State, incident: Incident, now: float) -> None:
    """Finish `unfence`: close the incident once OpenNebula shows the host's former state."""
    view = state.view(incident.host)
    if incident.lever is Lever.RESTORE:
        wanted = lever.state_before(incident)
        enabled = (OnedHostState.INIT, OnedHostState.MONITORED)
        restored = view.one_state == wanted or (wanted in enabled and view.one_state in enabled)
        restored = restored and not view.marked  # on an enabled host our mark would excuse whatever a person does next
        suspicion.ask_for_vms(state, incident.host, now, tuple(record.id for record in incident.vms))
        if view.read_at is None or view.read_at <= incident.lever_since or not restored:
            lever.restore(state, incident, now)
            return
        incident = state.save(replace(incident, lever=Lever.RESTORED))
    if incident.lever is Lever.RESTORED:
        incident = state.enter(incident, Trigger.READMITTED, now)
        suspicion.close(state, incident, "readmitted", now)
        state.watch(incident.host, False)
        returned.readmitted(state, incident, now)
