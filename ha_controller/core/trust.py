"""Whether a fence device is known to belong to its host: noted by the operator, proven by identity, or seen in a drill.

A device that names another machine is never used, and people are told at once. What is proven is durable and bound to
the device's settings: with another address it has to be proven anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ha_controller.core.detector import alive_channels, life_since
from ha_controller.core.effects import Severity
from ha_controller.core.events import DeviceChecked, HostIdentified
from ha_controller.core.model import Device, DeviceTrust, Host, HostState, HostTrust, Identity, PowerState
from ha_controller.core.state import State

PROVEN, DRILLED = "proven", "drilled"


def is_mismatched(state: State, host: int, device: Device) -> bool:
    """Whether the device has named another machine."""
    views = state.view(host).devices
    return device.name in views and bool(views[device.name].mismatch)


def is_trusted(state: State, host: Host, device: Device) -> bool:
    """Whether the device may be used without asking a person."""
    if is_mismatched(state, host.id, device):
        return False
    return device.identity_noted or _record(state.trust(host.id), device.name, device.fingerprint) is not None


def how_trusted(state: State, host: Host, device: Device) -> str:
    """In one word, for people: noted, proven, drilled, unproven or MISMATCH."""
    if is_mismatched(state, host.id, device):
        return "MISMATCH"
    record = _record(state.trust(host.id), device.name, device.fingerprint)
    if record is not None:
        return record.how
    return "noted" if device.identity_noted else "unproven"


def drilled_at(state: State, host: int, device: Device) -> float | None:
    """When a drill last switched the host with this device; None if none did with these settings."""
    record = _record(state.trust(host), device.name, device.fingerprint)
    return record.at if record is not None and record.how == DRILLED else None


def level_is_trusted(state: State, host: Host, level: tuple[Device, ...]) -> bool:
    """Whether all devices of a level may be used without asking a person."""
    return bool(level) and all(is_trusted(state, host, device) for device in level)


def _record(trust: HostTrust, name: str, fingerprint: str) -> DeviceTrust | None:
    return next((known for known in trust.devices if (known.name, known.fingerprint) == (name, fingerprint)), None)


def was_seen_on(state: State, host: int, device: Device) -> bool:
    """Whether the device was ever read ON with these settings; else its OFF may be that of an empty outlet."""
    return (device.name, device.fingerprint) in state.trust(host).seen_on


def note_power(state: State, host: Host, event: DeviceChecked, now: float) -> None:
    """Put on record that a device was read ON. Durable: in an outage it cannot be learned any more.

    OFF from a host that answers is watched for a moment: see `look_for_contradictions`.
    """
    view, trust = state.view(host.id), state.trust(host.id)
    view.off_while_alive.pop(event.device, None)
    if event.power is PowerState.ON:
        view.devices[event.device].contradicted = False
        seen = (event.device, event.fingerprint)
        if seen not in trust.seen_on:
            others = tuple(known for known in trust.seen_on if known[0] != event.device)
            state.save_trust(replace(trust, seen_on=(*others, seen)))
        return
    answers = view.state is HostState.OK and alive_channels(view.views, state.rules(host.id), now)
    if event.power is PowerState.OFF and answers:
        view.off_while_alive[event.device] = now


def look_for_contradictions(state: State, host: Host, now: float) -> None:
    """A device that reads OFF between two answers of the host feeds something else: its OFF proves nothing any more.

    Only life within seconds counts. Later life may be that of a host that really was off, and has booted since.
    """
    view = state.view(host.id)
    for device, moment in list(view.off_while_alive.items()):
        channel = life_since(view.views, moment)
        if channel or now - moment > state.settings.evidence_ttl_s:
            del view.off_while_alive[device]
        if channel and now - moment <= state.settings.evidence_ttl_s:
            _withdraw(state, host, device, channel)


def _withdraw(state: State, host: Host, device: str, channel: str) -> None:
    trust = state.trust(host.id)
    kept = tuple(seen for seen in trust.seen_on if seen[0] != device)
    if kept != trust.seen_on:
        state.save_trust(replace(trust, seen_on=kept))
    view = state.view(host.id).devices.get(device)
    if view is None or view.contradicted:
        return
    view.contradicted = True
    state.tell(
        Severity.CRITICAL,
        f"{host.name}: fence device {device} reads OFF while the host answers ({channel}): it feeds something else. "
        "Its OFF proves nothing until it has been read ON",
        "Check the cabling and the outlet, then: ha-controller fencing check",
        host=host.id,
    )


def is_strong(state: State, host: int, device: Device) -> bool:
    """Whether the device's OFF means that its host has no power."""
    drilled = not device.drill_needed or drilled_at(state, host, device) is not None
    return device.proves_off and not device.weak_off and drilled


def why_unproven(state: State, host: Host | None, names: Sequence[str]) -> str:
    """Why OFF, read by all of these devices, is not yet a proof; empty if it is one."""
    used = [] if host is None else [device for level in host.levels for device in level if device.name in names]
    if host is None:
        return "the host is no longer in OpenNebula"
    strong = [device for device in used if is_strong(state, host.id, device)]
    if not strong:
        undrilled = [device.name for device in used if device.drill_needed and not is_strong(state, host.id, device)]
        before = f" ({', '.join(undrilled)} had no drill)" if undrilled else ""
        return f"weak evidence{before}: another device or a person must say so, too"
    unseen = [device.name for device in strong if not was_seen_on(state, host.id, device)]
    return (
        f"{', '.join(unseen)} was never read on, or is off while the host answers, so it may feed something else"
        if unseen
        else ""
    )


def note_host(state: State, host: Host, identity: Identity, source: str) -> None:
    """The host said which machine it is, or the operator did. What was proven against another identity falls."""
    known = state.trust(host.id)
    if known.identity == identity:
        return
    if known.identity is not None:
        state.tell(
            Severity.WARNING,
            f"{host.name} is another machine than before: {identity} ({source}), was {known.identity}",
            "If it was exchanged, nothing to do: its fence devices are proven anew at their next check.",
            host=host.id,
        )
        for view in state.view(host.id).devices.values():
            view.mismatch = ""
    seen_on = known.seen_on if known.identity is None else ()
    state.save_trust(replace(known, identity=identity, source=source, devices=(), seen_on=seen_on))


def host_identified(state: State, event: HostIdentified) -> None:
    """The host said which machine it is; what the operator noted goes over that."""
    host = state.hosts.get(event.host)
    if host is not None and host.identity is None:
        note_host(state, host, event.identity, event.source)


def note_device(state: State, host: Host, event: DeviceChecked, now: float) -> None:
    """Compare what a device says of its machine with what the host says of itself."""
    own = state.trust(host.id).identity
    if own is None or event.identity is None:
        return
    same = own.same_machine(event.identity)
    if same is False:
        mismatch(state, host, event.device, f"it belongs to {event.identity}, the host is {own}")
    elif same:
        state.view(host.id).devices[event.device].mismatch = ""
        note_trust(state, host.id, event.device, event.fingerprint, PROVEN, now)


def note_trust(state: State, host: int, device: str, fingerprint: str, how: str, now: float) -> None:
    """Put on record that a device belongs to the host."""
    trust = state.trust(host)
    known = _record(trust, device, fingerprint)
    if known is not None and how == PROVEN:
        return  # not written again at every check; a drill is, with its date
    others = tuple(record for record in trust.devices if record.name != device)
    record = DeviceTrust(name=device, fingerprint=fingerprint, how=how, at=now)
    state.save_trust(replace(trust, devices=(*others, record)))


def mismatch(state: State, host: Host, device: str, why: str) -> None:
    """A device belongs to another machine: it is out of use, and people are told once."""
    view = state.view(host.id).devices.get(device)
    if view is None or view.mismatch == why:
        return
    view.mismatch = why
    trust = state.trust(host.id)
    state.save_trust(replace(trust, devices=tuple(known for known in trust.devices if known.name != device)))
    state.tell(
        Severity.CRITICAL,
        f"{host.name}: fence device {device} is another machine's: {why}. It is not used",
        "Correct its address (FENCE_IP in OpenNebula, or [[fence]]), then: ha-controller fencing check",
        host=host.id,
    )
