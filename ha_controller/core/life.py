"""Life that speaks against a power-off: on our own channels, and as other controllers see it.

Asked by the guard `life`, by people's commands, after orders with an unknown outcome, and once more when an order
leaves. Reads only, but for `told`, which notes what other controllers say: that is all that their word changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from ha_controller.core import sight
from ha_controller.core.detector import VerdictKind, alive_channels, fell_silent_at, life_since
from ha_controller.core.effects import ORDER_VALID_S, Effect, Fence, MoveVm, RecoverVm, ResumeVm
from ha_controller.core.events import (
    Event,
    EvidenceTaken,
    FenceReported,
    FenceResult,
    OrderResult,
    SightTold,
    VmOrderReported,
)
from ha_controller.core.incident import Incident
from ha_controller.core.model import Domain, HostState, Reading, Signal
from ha_controller.core.state import State


def told(state: State, event: SightTold, now: float) -> set[int]:
    """Note which hosts another controller sees alive; no host is to be looked at because of that.

    It brings nothing about: whatever comes next asks whether it speaks against that.
    """
    kernel = sight.kernel_channels(state.settings)
    for seen in event.alive:
        if (view := state.views.get(seen.host)) is not None:
            sight.note(view.seen_by, event.controller, seen, kernel, now)
    return set()


def unexpected(state: State, host: int, incident: Incident, alive: Iterable[str]) -> list[str]:
    """The channels that show life and must not, if the verdict is right."""
    channels = state.rules(host).channels
    kernel = {channel.name for channel in channels if not channel.proves_userland}
    away = {channel.name for channel in channels if channel.domain is not Domain.MANAGEMENT}
    expected: dict[str, set[str]] = {VerdictKind.HUNG: kernel, VerdictKind.ISOLATED: away}
    return [name for name in alive if name not in expected.get(incident.verdict, set())]


def seen_elsewhere(state: State, host: int, now: float, *, is_hung: bool = False, after: float = 0.0) -> str:
    """Which other controllers have lately seen life after a moment, in words; empty if none has.

    The words stay the same for as long as they see it: they stand in the record, which is written when it changes.
    """
    found = sight.against(state.view(host).seen_by, state.rules(host), now, is_hung=is_hung, after=after)
    return f"{', '.join(found)} {'sees' if len(found) == 1 else 'see'} it alive" if found else ""


def vetoed_elsewhere(state: State, incident: Incident, now: float) -> str:
    """The same, if it speaks against a power-off. The kernel of a hung host is no news while we hear it, too."""
    heard_here = alive_channels(state.view(incident.host).views, state.rules(incident.host), now)
    is_hung = incident.verdict == VerdictKind.HUNG and bool(heard_here)
    return seen_elsewhere(state, incident.host, now, is_hung=is_hung)


def seen_since_an_order(state: State, incident: Incident, now: float) -> str:
    """Who has seen life after the last power-off that may have had an effect; empty if none may have had one."""
    ordered = [attempt.ordered_at for attempt in incident.attempts if not attempt.had_no_effect]
    if not ordered:
        return ""
    is_hung = incident.verdict == VerdictKind.HUNG  # its kernel went on until the power did
    return seen_elsewhere(state, incident.host, now, is_hung=is_hung, after=max(ordered))


def if_wrong(state: State, host: int, now: float) -> str:
    """What people can do if another controller sees life where there is none; empty if none sees any."""
    found = sight.against(state.view(host).seen_by, state.rules(host), now)
    whose = "its [[controller]] table" if len(found) == 1 else "their [[controller]] tables"
    return f"If {' and '.join(found)} is wrong: stop it, or take {whose} out here and restart." if found else ""


def or_wrong(state: State, host: int, text: str, now: float) -> str:
    """A text for people, with that."""
    wrong = if_wrong(state, host, now)
    return f"{text.removesuffix('.')}. {wrong}" if wrong else text


def since(state: State, host: int, moment: float) -> str:
    """The channel that saw life in a question that left after `moment`, here or elsewhere; empty if none did."""
    view = state.view(host)
    return life_since(view.views, moment) or sight.since(view.seen_by, moment)


def shown(state: State, host: int, now: float) -> str:
    """Who shows life of a host now, here or elsewhere, in words; empty if nobody does."""
    here = alive_channels(state.view(host).views, state.rules(host), now)
    answers = f"{', '.join(here)} answers" if here else ""
    return ", ".join(filter(None, (answers, seen_elsewhere(state, host, now))))


def is_news(state: State, host: int, now: float) -> bool:
    """Whether life speaks against the silence here, and is not only from before it: every host that dies has lived."""
    views, rules = state.view(host).views, state.rules(host)
    return bool(alive_channels(views, rules, now)) or bool(
        seen_elsewhere(state, host, now, after=fell_silent_at(views, rules))
    )


def taken_back(state: State, order: Effect, waiting: Iterable[Event]) -> FenceReported | VmOrderReported | None:
    """The report of an order whose host has shown life while it was put on record, which a slow disk draws out.

    Reads only.
    """
    match order:
        case Fence(send=True):
            return _power_off_taken_back(state, order, [*waiting])
        case MoveVm() | ResumeVm() | RecoverVm():
            return _start_taken_back(state, order, waiting)
        case _:
            return None


def _start_taken_back(
    state: State, order: MoveVm | ResumeVm | RecoverVm, waiting: Iterable[Event]
) -> VmOrderReported | None:
    """Of a VM whose host was proven off. Any life since voids the proof: no VM is started on it."""
    incident = next((known for known in state.incidents.values() if known.id == order.incident), None)
    if incident is None or incident.proof is None or incident.state is not HostState.FENCED:
        return None
    host, proven_at, seen = incident.host, incident.proof.at, list[str]()
    for event in waiting:
        match event:
            case EvidenceTaken(channel=name, readings=readings):
                alive = (each for each in readings if each.host == host and _is_alive(each))
                seen += [name for each in alive if each.sent_at > proven_at]
            case SightTold(controller=name, alive=words):
                told_of = (each for each in words if each.host == host)
                seen += [f"{each.channel} from {name}" for each in told_of if each.at > proven_at]
    if not seen:
        return None
    detail = f"not sent: {', '.join(dict.fromkeys(seen))} answered meanwhile"
    keys = {"vm": order.vm, "incident": order.incident, "attempt": order.attempt}
    return VmOrderReported(**keys, result=OrderResult.NOT_NOW, detail=detail)


def _is_alive(reading: Reading) -> bool:
    return reading.signal is Signal.ALIVE


def _power_off_taken_back(state: State, order: Fence, events: list[Event]) -> FenceReported | None:
    """Life that the verdict expects (the kernel of a hung host) does not speak against it."""
    incident = state.incidents.get(order.host)
    if incident is None:
        return None
    alive = {
        event.channel
        for event in events
        if isinstance(event, EvidenceTaken)
        for reading in event.readings
        if reading.host == order.host and _is_alive(reading)
    }
    against = [f"{name} answered" for name in unexpected(state, order.host, incident, sorted(alive))]
    against += _told_meanwhile(state, order, incident, events)
    if not against:
        return None
    return FenceReported(
        host=order.host,
        incident=order.incident,
        attempt=order.attempt,
        result=FenceResult.NOT_SENT,
        off_read_at=None,
        detail=f"not sent: {', '.join(against)} meanwhile",
    )


def _told_meanwhile(state: State, order: Fence, incident: Incident, waiting: Iterable[Event]) -> list[str]:
    """What other controllers have said since the order was decided on."""
    decided_at, rules = order.not_after - ORDER_VALID_S, state.rules(order.host)
    seen_by: sight.SeenBy = {}
    words = [(event.controller, seen) for event in waiting if isinstance(event, SightTold) for seen in event.alive]
    for name, seen in words:
        if seen.host == order.host:
            sight.note(seen_by, name, seen, sight.kernel_channels(rules), decided_at)
    heard_here = alive_channels(state.view(order.host).views, rules, decided_at)
    is_hung = incident.verdict == VerdictKind.HUNG and bool(heard_here)
    found = sight.against(seen_by, rules, decided_at, is_hung=is_hung)
    return [f"{name} saw it alive" for name in found]
