"""What a host's fence devices read when they are asked: kept for every device, so that any ON is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ha_controller.core.effects import ReadPower
from ha_controller.core.events import PowerRead
from ha_controller.core.model import Device, Host, PowerState
from ha_controller.core.state import HostView, State

ASK_EVERY_S = 1.0


def devices(host: Host) -> list[Device]:
    """All devices of a host, level by level."""
    return [device for level in host.levels for device in level]


def readable(host: Host) -> tuple[str, ...]:
    """The devices that can say whether the host has power."""
    return tuple(device.name for device in devices(host) if device.proves_off)


def fingerprints(host: Host, names: Sequence[str]) -> tuple[str, ...]:
    """Of these devices, in their order; empty for one that the host has no longer."""
    known = {device.name: device.fingerprint for device in devices(host)}
    return tuple(known.get(name, "?") for name in names)


def power_since(state: State, host: Host, moment: float) -> dict[str, PowerState]:
    """What each device read when it was last asked, if it was asked at `moment` or later."""
    readings = state.view(host.id).power
    return {name: power for name, (asked_at, power) in sorted(readings.items()) if asked_at >= moment}


def against(host: Host, powers: Mapping[str, PowerState], proving: Sequence[str]) -> list[str]:
    """Which devices read ON and so speak against what others prove.

    The outlet of a host that its BMC has switched off still reads ON. Beside the OFF of another outlet, that would be
    a second feed.
    """
    known = devices(host)
    outlets = {device.name for device in known if device.outlet}
    strong = {device.name for device in known if device.proves_off and not (device.outlet or device.weak_off)}
    chassis_is_off = not strong.isdisjoint(proving)
    on = sorted(name for name, read in powers.items() if read is PowerState.ON)
    return [name for name in on if name in proving or not (chassis_is_off and name in outlets)]


def note(view: HostView, event: PowerRead, gap_max_s: float) -> None:
    """Keep the newest reading of each device, and since when it reads OFF without ON or a gap in between."""
    for name, read in event.states:
        if name in view.power and event.asked_at < view.power[name][0]:
            continue
        last_at = max(view.power[name][0] if name in view.power else 0.0, view.off_since.get(name, 0.0))
        view.power[name] = (event.asked_at, read)
        if read is not PowerState.OFF:
            view.off_since.pop(name, None)
        elif name not in view.off_since or event.asked_at - last_at > gap_max_s:
            view.off_since[name] = event.asked_at


def has_read_off_for(view: HostView, name: str, seconds: float) -> bool:
    """Whether a device's OFFs in a row span this time, without a gap."""
    since = view.off_since.get(name)
    return since is not None and name in view.power and view.power[name][0] - since >= seconds


def ask_for_power(state: State, host: int, names: tuple[str, ...], now: float) -> None:
    """Have devices read, not more often than once a second."""
    view = state.view(host)
    if names and now - view.power_asked_at >= ASK_EVERY_S:
        view.power_asked_at = now
        state.out.append(ReadPower(host=host, devices=names))
