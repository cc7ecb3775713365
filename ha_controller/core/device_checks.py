"""What is seen of fence devices in peace time: their checks, and settings that change."""

from __future__ import annotations

from ha_controller.core import power, trust
from ha_controller.core.effects import Severity
from ha_controller.core.events import DeviceChecked
from ha_controller.core.model import Domain, Host
from ha_controller.core.state import DeviceView, HostView, State


def note(state: State, event: DeviceChecked, now: float) -> None:
    """Take in a check. One of a device that has other settings by now says nothing."""
    view = state.views.get(event.host)
    host = state.hosts.get(event.host)
    if view is None or host is None or power.fingerprints(host, [event.device]) != (event.fingerprint,):
        return
    device = view.devices.setdefault(event.device, DeviceView())
    before = True if device.checked_at is None else device.ok  # the first check is told when it fails
    if event.ok is not before:
        _tell(state, host, event)
    device.ok, device.summary, device.checked_at = event.ok, event.summary, now
    if event.ok:
        device.passed_at = now
    trust.note_device(state, host, event, now)
    trust.note_power(state, host, event, now)


def _tell(state: State, host: Host, event: DeviceChecked) -> None:
    """Told at every change: a broken fence is found in peace time."""
    if event.ok:
        text, next_step = f"passes its check again: {event.summary}", "Nothing to do."
    else:
        text, next_step = f"does not pass its check: {event.summary}", "Repair it before the host fails."
    severity = Severity.INFO if event.ok else Severity.WARNING
    state.tell(severity, f"{host.name}: fence device {event.device} {text}", next_step, host=host.id)


def forget_changed(state: State, view: HostView, before: Host | None, after: Host) -> None:
    """A device with other settings is another device: that one passed no check, and its readings say nothing."""
    known = {device.name: device.fingerprint for device in power.devices(before)} if before else {}
    now = {device.name: device.fingerprint for device in power.devices(after)}
    changed = [name for name, fingerprint in known.items() if now.get(name) != fingerprint]
    for name in changed:
        view.devices.pop(name, None)
        view.power.pop(name, None)
        view.off_since.pop(name, None)
        view.off_while_alive.pop(name, None)
    for channel in state.settings.channels:
        if changed and channel.domain is Domain.POWER:
            view.views.pop(channel.name, None)
