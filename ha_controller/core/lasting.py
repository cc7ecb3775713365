"""Orders that stay in force on a host until they are lifted: a storage fence, a revoked watchdog lease.

They are renewed for as long as the incident is open, and lifted, and seen lifted, before the host is given back to
OpenNebula. A storage fence is used only for a host whose VMs have all their disks on storage that it knows.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import lever, power
from ha_controller.core.effects import ORDER_VALID_S, LiftOrders, RenewOrders, Severity
from ha_controller.core.events import OrdersLifted, OrdersRenewed
from ha_controller.core.incident import AttemptOutcome, Incident
from ha_controller.core.model import Device, Host
from ha_controller.core.state import State

RENEW_EVERY_S = 600.0  #: agents must let their orders expire much later
RENEW_AGAIN_S = 60.0  #: after a failure
LIFT_AGAIN_S = 5.0
LIFTS_MAX = 3
REPORT_MIN_S = 30.0  #: beyond twice the device's own deadline: the executor has reported by then, or never will


def why_unusable(device: Device, incident: Incident) -> str:
    """Why a storage device must not be used for this host; empty if it may be, and for all others."""
    if device.datastores is None:
        return ""
    for record in incident.vms:
        if record.datastores is None:
            return f"it is not known where the disks of {record.name} are"
        outside = sorted(set(record.datastores) - set(device.datastores))
        if outside:
            return f"{record.name} has disks in datastore {outside[0]}, from which it does not cut the host off"
    return ""


def note_ordered(host: Host, incident: Incident, names: tuple[str, ...]) -> Incident:
    """Note which lasting orders may be in force from now on."""
    lasting = {
        (device.name, device.fingerprint) for device in power.devices(host) if device.lasting and device.name in names
    }
    return replace(incident, in_force=tuple(sorted({*incident.in_force, *lasting})))


def without_refused(incident: Incident) -> Incident:
    """Forget the orders that were definitely refused or never sent."""
    sent = {name for attempt in incident.attempts if not attempt.had_no_effect for name in attempt.devices}
    return replace(incident, in_force=tuple(each for each in incident.in_force if each[0] in sent))


# --- renewing ---------------------------------------------------------------------------------------------------------


def renew(state: State, host: Host, incident: Incident, now: float) -> None:
    """Keep in force what was ordered. Goes on while paused or held: it prolongs, and orders nothing new."""
    view = state.view(host.id)
    last = incident.attempts[-1] if incident.attempts else None
    under_way = last is not None and last.outcome in (AttemptOutcome.ORDERED, AttemptOutcome.ACCEPTED)
    names = _configured(host, incident)
    if not names or under_way or state.term is None or now < view.renew_due_at:
        return
    view.renew_due_at = now + RENEW_EVERY_S
    state.out.append(RenewOrders(host=host.id, incident=incident.id, devices=names, not_after=now + ORDER_VALID_S))


def renewed(state: State, incident: Incident, event: OrdersRenewed, now: float) -> None:
    """Tell what could not be renewed, once, and try again sooner."""
    view, words = state.view(incident.host), _words(event.failed)
    if words:
        view.renew_due_at = now + RENEW_AGAIN_S
    told, view.renewal_told = view.renewal_told, words
    if words in ("", told) or incident.lifting:
        return
    state.tell_of(
        incident,
        Severity.WARNING,
        f"{incident.host_name}: an order that must stay in force could not be renewed ({words})",
        f"It is tried again in {RENEW_AGAIN_S:.0f} s. Look at the device before the order expires.",
    )


def _words(failed: tuple[tuple[str, str], ...]) -> str:
    return "; ".join(f"{device}: {detail}" for device, detail in failed)


def _configured(host: Host, incident: Incident) -> tuple[str, ...]:
    """The devices of those orders, as far as they are still there with the very same settings."""
    known = {(device.name, device.fingerprint) for device in power.devices(host) if device.lasting}
    return tuple(name for name, fingerprint in incident.in_force if (name, fingerprint) in known)


def names_in_force(incident: Incident) -> str:
    """For people."""
    return ", ".join(sorted({name for name, _ in incident.in_force}))


# --- lifting ----------------------------------------------------------------------------------------------------------


def why_not_lifted(incident: Incident, host: Host | None) -> str:
    """Why a host that was cut off from its storage may still have its old VMs; empty if it was surely powered off.

    Lifting would let them write again, while they run elsewhere.
    """
    storage = {device.name for device in power.devices(host) if device.datastores is not None} if host else set()
    cut_off = not host or any(name in storage for name, _ in incident.in_force)
    proven = incident.proof is not None and bool(incident.proof.devices)
    return "" if proven or not cut_off else "no power device has proven that it was off since its VMs were cut off"


def begin_to_lift(state: State, incident: Incident, now: float) -> None:
    """The host is readmitted: first every order on it is lifted."""
    view = state.view(incident.host)
    view.lifts, view.lift_due_at = 0, now
    lift(state, state.save(replace(incident, lifting=True)), now)


def lift(state: State, incident: Incident, now: float) -> None:
    """Order it, again after a failure or when no report came, and give up after a few tries."""
    view, host = state.view(incident.host), state.hosts.get(incident.host)
    if host is None or state.term is None:
        return
    names = _configured(host, incident)
    if len(names) < len(incident.in_force):
        gone = ", ".join(sorted({name for name, _ in incident.in_force if name not in names}))
        _give_up(state, incident, f"{gone} is not configured any more as it was then", now)
        return
    if now < view.lift_due_at:
        return
    if view.lifts >= LIFTS_MAX:
        _give_up(state, incident, "no report", now)
        return
    view.lifts, view.lift_number = view.lifts + 1, view.lift_number + 1
    view.lift_due_at = now + 2 * host.fence_timeout_s + REPORT_MIN_S
    state.out.append(
        LiftOrders(
            host=host.id,
            incident=incident.id,
            number=view.lift_number,
            devices=names,
            not_after=now + ORDER_VALID_S,
        )
    )


def lifted(state: State, incident: Incident, event: OrdersLifted, now: float) -> None:
    """Take in what was lifted; late reports, also of an earlier try, are dropped."""
    view = state.view(incident.host)
    if not incident.lifting or event.number != view.lift_number:
        return
    if not event.failed:
        lever.restore(state, state.save(replace(incident, in_force=(), lifting=False)), now)
    elif view.lifts >= LIFTS_MAX:
        _give_up(state, incident, _words(event.failed), now)
    else:
        view.lift_due_at = now + LIFT_AGAIN_S


def _give_up(state: State, incident: Incident, why: str, now: float) -> None:
    state.stop(
        replace(incident, lifting=False),
        f"what {names_in_force(incident)} did to it could not be lifted ({why}); it is not given back yet",
        "Look at the device and try again, or lift it by hand and say so: "
        f"ha-controller unfence {incident.host_name} --force",
        now,
    )
