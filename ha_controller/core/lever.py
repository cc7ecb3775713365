"""FENCED: the proof that the host is off, kept fresh, and the lever that makes OpenNebula notice it.

The lever: oned asks a host anew when it is set OFFLINE and then ENABLEd. The question fails, the host becomes ERROR,
its VMs UNKNOWN, and from UNKNOWN a migrate works at once. Without it that takes oned minutes. If the host becomes
MONITORED instead, oned has reached it: it is alive, the proof was wrong, and everything stops.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import life
from ha_controller.core.detector import silence_awaited
from ha_controller.core.effects import HostStep, OrderHost, Severity
from ha_controller.core.events import HostOrderReported, OrderResult
from ha_controller.core.incident import AttemptOutcome, Incident, Lever, Proof
from ha_controller.core.machine import Trigger
from ha_controller.core.model import Host, HostState, OnedHostState, PowerState
from ha_controller.core.outcome import wants_running
from ha_controller.core.power import against, ask_for_power, fingerprints, has_read_off_for, power_since, readable
from ha_controller.core.recovery import claims_running
from ha_controller.core.state import Hold, State, bar, unconfirmed_silence

PULLS_MAX = 3  #: an incident pulls the lever again so often
AFTER_A_GAP_S = 4.0  #: two readings this far apart renew a proof: a device that restarted has looked in between
REPEAT_AFTER_S = 5.0  #: an order without effect is looked at again after this long, then repeated


# --- the proof --------------------------------------------------------------------------------------------------------


def note_proof(state: State, incident: Incident, proof: Proof) -> None:
    """The fence has read OFF twice, apart: what is read from now on goes on from there, if it comes soon enough."""
    view = state.view(incident.host)
    for name in proof.devices:
        view.off_since[name] = proof.at - AFTER_A_GAP_S


def taken_up_at(state: State, host: int, moment: float, now: float) -> float:
    """From when on a reading of OFF has to be confirmed anew, that stands on a record which is taken up now.

    Nothing that was seen before counts for silence. But life that was seen since voids it: then `moment` itself.
    """
    return moment if life.since(state, host, moment) else now


def proof_taken_up(state: State, incident: Incident, now: float) -> Proof | None:
    """The proof of a record that is gone on with: silence is waited for anew, and life seen since still voids it."""
    proof = incident.proof
    return proof and replace(proof, at=taken_up_at(state, incident.host, proof.at, now))


def proof_is_fresh(state: State, host: Host, incident: Incident, now: float) -> bool:
    """Whether it was just read that the host is still off; asks all its devices if not.

    The devices that gave the proof must say OFF. None of the others may say ON, but for outlets beside a BMC; a
    person's word needs only that.
    Where nobody has read them for a while (we were frozen, restarted or held), one OFF is not enough: somebody may
    have powered the host on, and a device that restarts may say OFF once.
    """
    proof, settings = incident.proof, state.settings
    if proof is None:
        return False
    powers = power_since(state, host, max(proof.at, now - settings.proof_age_max_s))
    if on := against(host, powers, proof.devices):
        state.stop(
            incident,
            f"{', '.join(on)} reads ON: somebody powered the host on, or the proof was wrong. No further VM is moved",
            f"Power it off, then: ha-controller release {incident.host_name}",
            now,
        )
        return False
    names = readable(host)
    soon_old = power_since(state, host, max(proof.at, now - settings.proof_age_max_s / 2))
    if any(name not in soon_old or soon_old[name] is PowerState.UNKNOWN for name in names):
        ask_for_power(state, host.id, names, now)
    if any(name not in powers for name in names):
        return False
    if fingerprints(host, proof.devices) != proof.fingerprints:
        unread = f"the settings of {', '.join(proof.devices)} were changed"
    elif unknown := [name for name in proof.devices if powers.get(name) is not PowerState.OFF]:
        unread = f"{', '.join(unknown)} cannot be read"
    elif not all(has_read_off_for(state.view(host.id), name, AFTER_A_GAP_S) for name in proof.devices):
        return False  # asked again as above
    else:
        return _is_silent(state, incident, proof, now)
    confirm = f"If you have seen that it is off: ha-controller confirm-off {incident.host_name}"
    hold = Hold("the proof is not fresh", f"{unread}, so it is not known whether it is still off", confirm, True)
    state.hold(incident, hold, now)
    return False


def _is_silent(state: State, incident: Incident, proof: Proof, now: float) -> bool:
    """After a restart and after a person's word, the probes have to look first."""
    missing = silence_awaited(state.view(incident.host).views, state.rules(incident.host), proof.at)
    if not missing:
        return True
    if now - proof.at > state.settings.confirm_silence_max_s:
        kind = "not every probe could confirm that it is silent"
        state.hold(incident, unconfirmed_silence(kind, missing, incident), now)
    return False


def proven_until(state: State, host: Host, incident: Incident, now: float) -> float:
    """When the oldest reading that the proof stands on will be too old to start a VM on."""
    asked = [state.view(host.id).power[name][0] for name in incident.proof.devices] if incident.proof else []
    return min(asked, default=now) + state.settings.proof_age_max_s


def life_stops(state: State, incident: Incident, now: float) -> bool:
    """Any life after the proof voids it; with a person's word as the proof this is the only check there is."""
    if incident.proof is None:
        return True
    channel = life.since(state, incident.host, incident.proof.at)
    if not channel:
        return False
    devices = incident.proof.devices
    then = f"Look at the host and its VMs at once; then: ha-controller unfence {incident.host_name}"
    state.stop(
        bar(_void(state, incident, now), devices),
        f"{channel} answers although the host was proven off. No further VM is moved",
        life.or_wrong(state, incident.host, then, now),
        now,
    )
    return True


def _void(state: State, incident: Incident, now: float) -> Incident:
    """The proof no longer holds: back to FAILED. The readings that gave it count as lies."""
    attempts = tuple(
        replace(attempt, outcome=AttemptOutcome.VOIDED) if attempt.outcome is AttemptOutcome.OFF_READ else attempt
        for attempt in incident.attempts
    )
    return replace(state.enter(incident, Trigger.PROOF_VOIDED, now), proof=None, attempts=attempts)


# --- the lever --------------------------------------------------------------------------------------------------------


def pull(state: State, host: Host, incident: Incident, now: float) -> Incident:
    """Have oned notice that the host is gone: OFFLINE, ENABLE, wait for ERROR, then DISABLE with our mark."""
    view = state.view(host.id)
    if view.read_at is None or view.one_state is None or view.read_at < incident.lever_since:
        return incident
    match incident.lever:
        case Lever.NOT_BEGUN:
            if not _false_running(state, host, incident):
                return _order(state, incident, Lever.DISABLE, HostStep.DISABLE, now)
            if levers_under_way(state) >= state.settings.levers_max:
                return state.hold(
                    incident, Hold("waits for its turn with OpenNebula", "", "Nothing for you to do."), now
                )
            return _order(state, incident, Lever.OFFLINE, HostStep.OFFLINE, now)
        case Lever.OFFLINE if view.one_state == OnedHostState.OFFLINE:
            return _order(state, incident, Lever.ENABLE, HostStep.ENABLE, now)
        case Lever.OFFLINE:
            return _again(state, incident, HostStep.OFFLINE, now)
        case Lever.ENABLE if view.one_state == OnedHostState.OFFLINE:
            return _again(state, incident, HostStep.ENABLE, now)
        case Lever.ENABLE:
            return state.save(replace(incident, lever=Lever.WAIT, lever_since=now))
        case Lever.WAIT:
            return _wait_for_error(state, host, incident, view.one_state, now)
        case Lever.DISABLE if view.one_state == OnedHostState.DISABLED:
            done = replace(incident, lever=Lever.DONE, hold="", hold_needs_person=False)
            return state.save(replace(done, lever_since=view.read_at))  # this very reading shows its VMs, too
        case Lever.DISABLE:
            return _again(state, incident, HostStep.DISABLE, now)
        case Lever.DONE if _false_running(state, host, incident) and _may_pull_again(state, incident, now):
            again = replace(incident, lever_pulls=incident.lever_pulls + 1, lever_repeats=0)
            return _order(state, again, Lever.OFFLINE, HostStep.OFFLINE, now)
        case _:
            return incident


def tell_if_enabled(state: State, host: Host, incident: Incident) -> None:
    """A host that is off and was disabled by us, and that somebody has enabled since: told, and left to them.

    By the inventory, also of a host whose VMs all have their outcome. OpenNebula may start VMs there: it takes a host
    that was DISABLED for MONITORED until it next asks it. OFFLINE keeps them away as well.
    """
    view = state.view(host.id)
    is_off = view.state in (HostState.FENCED, HostState.RECOVERED) and not host.excluded
    is_kept_out = host.one_state in (OnedHostState.DISABLED, OnedHostState.OFFLINE)
    if not is_off or incident.lever is not Lever.DONE or is_kept_out:
        view.enabled_told = False
        return
    is_news = state.oned_at is not None and state.oned_at - incident.lever_since > state.settings.order_timeout_s
    if view.enabled_told or not is_news:
        return
    view.enabled_told = True
    text = f"{host.name} is off, and somebody has taken it out of DISABLED in OpenNebula: VMs may be placed there"
    next_step = f"To keep it out: onehost disable {host.name}. When it is back: ha-controller unfence {host.name}"
    state.tell_of(incident, Severity.WARNING, text, next_step)


def _may_pull_again(state: State, incident: Incident, now: float) -> bool:
    """For what fell back to RUNNING since. The disabled host's own retries do the same, but take minutes."""
    return (
        incident.lever_pulls < PULLS_MAX
        and now - incident.lever_since >= REPEAT_AFTER_S
        and levers_under_way(state) < state.settings.levers_max
    )


def ask_anew(state: State, host: Host, incident: Incident, now: float) -> Incident:
    """Have oned ask a host that lives anew: OFFLINE, then ENABLE. Its monitoring starts again, and its VMs stay.

    `lever_repeats` counts how often that was done.
    """
    view = state.view(host.id)
    if view.read_at is None or view.one_state is None or view.read_at < incident.lever_since:
        return incident
    is_offline = view.one_state == OnedHostState.OFFLINE
    match incident.lever:
        case Lever.NOT_BEGUN:
            return _order(state, incident, Lever.OFFLINE, HostStep.OFFLINE, now)
        case Lever.OFFLINE if is_offline:
            return _order(state, incident, Lever.ENABLE, HostStep.ENABLE, now)
        case Lever.ENABLE if not is_offline:
            done = replace(incident, lever=Lever.NOT_BEGUN, lever_since=now, monitored_at=view.monitored_at)
            return state.save(replace(done, lever_repeats=incident.lever_repeats + 1))
        case Lever.OFFLINE:
            return _again(state, incident, HostStep.OFFLINE, now)
        case Lever.ENABLE:
            return _again(state, incident, HostStep.ENABLE, now)
        case _:
            return incident


def _wait_for_error(state: State, host: Host, incident: Incident, one_state: int, now: float) -> Incident:
    if one_state == OnedHostState.MONITORED:
        return state.stop(
            replace(_void(state, incident, now), lever=Lever.NOT_BEGUN),
            "OpenNebula reached it over SSH although it was proven off: it is alive. No VM is moved",
            f"Look at the host at once; if it is healthy: ha-controller unfence {incident.host_name}",
            now,
        )
    if one_state == OnedHostState.ERROR and not _false_running(state, host, incident):
        return _order(state, incident, Lever.DISABLE, HostStep.DISABLE, now)
    if now - incident.lever_since <= state.settings.ssh_timeout_s * 1.5 + REPEAT_AFTER_S:
        return incident
    if incident.lever_repeats == 0:
        again = replace(incident, lever_repeats=1)
        return _order(state, again, Lever.OFFLINE, HostStep.OFFLINE, now)
    return state.stop(
        incident,
        "OpenNebula does not notice that the host is gone: its VMs stay RUNNING there",
        "Set ConnectTimeout in oneadmin's ssh configuration and opennebula.ssh_timeout to match, then: "
        f"ha-controller release {incident.host_name}",
        now,
    )


def _false_running(state: State, host: Host, incident: Incident) -> bool:
    """Whether a VM that was running is still shown RUNNING on the dead host."""
    vms = state.view(host.id).vms
    return any(
        (vm := vms.get(record.id)) is not None and vm.host == host.id and claims_running(vm)
        for record in incident.vms
        if wants_running(record) and not record.settled
    )


def levers_under_way(state: State) -> int:
    """How many hosts OpenNebula is being made to ask at this moment."""
    return sum(incident.lever in (Lever.OFFLINE, Lever.ENABLE, Lever.WAIT) for incident in state.incidents.values())


def _order(state: State, incident: Incident, lever: Lever, step: HostStep, now: float) -> Incident:
    incident = state.save(replace(incident, lever=lever, lever_since=now, hold="", hold_needs_person=False))
    _send(state, incident, step, now)
    return incident


def _again(state: State, incident: Incident, step: HostStep, now: float) -> Incident:
    """The order has shown no effect: repeat it, after a look and a pause. All host orders may be repeated."""
    if now - incident.lever_since < REPEAT_AFTER_S:
        return incident
    incident = state.save(replace(incident, lever_since=now))
    _send(state, incident, step, now)
    return incident


def state_before(incident: Incident) -> int:
    """The host's state in OpenNebula that is given back: what a person had set, else enabled."""
    by_a_person = incident.prior_one_state in (OnedHostState.DISABLED, OnedHostState.OFFLINE)
    return incident.prior_one_state if by_a_person and not incident.prior_marked else OnedHostState.MONITORED


def _send(state: State, incident: Incident, step: HostStep, now: float) -> None:
    state.out.append(
        OrderHost(
            host=incident.host,
            incident=incident.id,
            step=step,
            state_before=state_before(incident),
            not_after=now + REPEAT_AFTER_S,
        )
    )


def host_order_reported(state: State, incident: Incident, event: HostOrderReported, now: float) -> None:
    """A refusal is told; everything else shows in the next reading, which is due at once: the VMs wait for it."""
    state.view(incident.host).read_asked_at = -1e9
    said = {OrderResult.REFUSED: "refuses", OrderResult.NOT_NOW: "does not take"}.get(event.result)
    if said and state.term is not None:
        state.hold(
            incident, Hold(f"OpenNebula {said} {event.step.value}", event.detail, "See: ha-controller doctor"), now
        )


def restore(state: State, incident: Incident, now: float) -> None:
    """Give a readmitted host back to OpenNebula in the state it had before."""
    was_pulled = incident.lever_since > 0.0 and not incident.rebooted  # and begun anew, because the proof was void
    if incident.lever is Lever.RESTORED or (incident.lever is Lever.NOT_BEGUN and not was_pulled):
        state.save(replace(incident, lever=Lever.RESTORED))
    elif incident.lever is not Lever.RESTORE:
        _order(state, replace(incident, lever_repeats=0), Lever.RESTORE, HostStep.RESTORE, now)
    elif now - incident.lever_since >= REPEAT_AFTER_S and incident.lever_repeats < state.settings.restores_max:
        again = replace(incident, lever_repeats=incident.lever_repeats + 1)
        _order(state, again, Lever.RESTORE, HostStep.RESTORE, now)
    elif now - incident.lever_since >= REPEAT_AFTER_S:
        state.stop(
            replace(incident, lever=Lever.DONE, lever_repeats=0),
            "OpenNebula does not take the host back into the state it had before",
            f"Look at it in OpenNebula, then: ha-controller unfence {incident.host_name}",
            now,
        )
