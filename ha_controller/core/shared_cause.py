"""What hosts that fall silent together have in common: a rack, a switch, the way to their fence devices.

It looks at evidence and at incidents, and decides nothing: what it finds is a reason of the guard `shared cause`.
"""

from __future__ import annotations

from typing import NamedTuple

from ha_controller.core.detector import last_life, power_is_blind
from ha_controller.core.model import Host, HostState
from ha_controller.core.state import State

WITHIN_S = 300.0  #: hosts that fall silent this close to each other may have a cause in common
MIN = 2


class Fallen(NamedTuple):
    """A host, and those whose trouble began about when its own did."""

    for_us: list[Host]
    for_everybody: list[Host]
    either: list[Host]


def common_cause(state: State, host: Host, now: float) -> str:
    """What makes it likely that a silent host lives, like others that fell silent with it; empty if nothing does."""
    return cause_among(fallen_together(state, host), state, host, now)


def cause_among(fallen: Fallen, state: State, host: Host, now: float) -> str:
    """The same, for a caller that has those who fell with it."""
    if _is_blind(state, host, now):
        blind = {each.id for each in fallen.either if _is_blind(state, each, now)}
        if together := _most_of(fallen, blind):
            text = f"the fence devices of {_names(together)} fell silent together with their hosts"
            return f"{text}: more likely the network"
    ours = [each for each in state.hosts.values() if not each.excluded]
    for place in host.places:
        members = [each for each in ours if place in each.places]
        silent = [each for each in fallen.either if place in each.places]
        if len(members) < len(ours) and len(silent) >= MIN and 2 * len(silent) >= len(members):
            where = f"{place[0]} {place[1]}"
            text = f"{_names(silent)} fell silent together, {len(silent)} of {len(members)} hosts of {where}"
            return f"{text}: more likely that than the hosts"
    return ""


def _most_of(fallen: Fallen, blind: set[int]) -> list[Host]:
    """The blind ones, if they are half of those that fell together in any of the ways; empty if not.

    In any: who joins in one way only must not outvote those that fell together in the other.
    """
    for group in fallen:
        found = [each for each in group if each.id in blind]
        if len(found) >= MIN and 2 * len(found) >= len(group):
            return found
    return []


def fallen_together(state: State, host: Host) -> Fallen:
    """Looks at every host, for every silent host: with a thousand of them each line here counts."""
    silent_at, opened_at = _troubles_at(state, host)
    fallen, views = Fallen([], [], []), state.views
    for each in state.hosts.values():
        if views[each.id].state is HostState.OK or each.excluded:
            continue
        silent, opened = _troubles_at(state, each)
        for_us, for_everybody = abs(silent - silent_at) <= WITHIN_S, abs(opened - opened_at) <= WITHIN_S
        if for_us:
            fallen.for_us.append(each)
        if for_everybody:
            fallen.for_everybody.append(each)
        if for_us or for_everybody or abs(silent - opened_at) <= WITHIN_S or abs(opened - silent_at) <= WITHIN_S:
            fallen.either.append(each)
    return fallen


def _is_blind(state: State, host: Host, now: float) -> bool:
    """Whether its fence devices do not answer. One in use is not read beside that, and says nothing by its silence."""
    incident = state.incidents.get(host.id)
    if incident is not None and incident.attempts:
        return False
    return power_is_blind(state.views[host.id].views, state.rules(host.id), now)


def _troubles_at(state: State, host: Host) -> tuple[float, float]:
    """When its trouble began: for us, and for everybody, which is later where neighbours saw it for longer.

    Either may be the moment at which it fell with others: what cuts them off need not cut all ways at once.
    """
    incident, view = state.incidents.get(host.id), state.views[host.id]
    if incident is None:
        return view.since, view.since
    if view.state is HostState.RECOVERED and view.answers_since is None:  # it was on again, and fell silent once more
        fell_at = max(incident.opened_at, last_life(view.views))
        return fell_at, fell_at
    silent_at = view.since if view.state is HostState.SUSPECT else incident.suspect_at
    return incident.opened_at if silent_at is None else silent_at, incident.opened_at


def _names(hosts: list[Host]) -> str:
    more = f" and {len(hosts) - 4} more" if len(hosts) > 4 else ""
    return f"{', '.join(sorted(host.name for host in hosts)[:4])}{more}"
