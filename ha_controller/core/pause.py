"""The cloud's pause: nothing is powered off or moved anywhere, until a person says so or a time has passed.

With a shared record whoever leads next is paused, too. Else the pause is on this controller's record alone. So where
another one leads it is refused, with that one's name: a person who believes the cloud to be paused while its leader
goes on is worse off than one who was told no. `here` puts it on record all the same, for the day on which this
controller takes the lead.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core.effects import DONE, NOT_LEADING, Severity
from ha_controller.core.events import OperatorCommanded
from ha_controller.core.incident import CloudRecord
from ha_controller.core.state import State

OVER = (
    "VMs of hosts that are off are moved from now on; nothing is powered off for the settle time. "
    "To pause again: ha-controller pause --reason WHY"
)


def begin(state: State, command: OperatorCommanded, who: str, now: float) -> None:
    """Pause, with an end or without one. One that ends later takes the place of the one before, and no other does:

    whoever paused first relies on it, and may not know of those who pause for a moment.
    """
    if state.leader and not command.here:
        text = (
            f"{state.leader} leads, not this controller: nothing was paused. Pause it there. That this controller "
            "stays paused, should it take the lead: ha-controller pause --here --reason WHY"
        )
        state.answer(command.request, NOT_LEADING, text)
        return
    before, until = state.cloud, None if command.for_s is None else now + command.for_s
    if before.paused_by and until is not None and (before.paused_until is None or before.paused_until > until):
        lasts = "without an end" if before.paused_until is None else f"for {before.paused_until - now:.0f} s more"
        stays = f" It was paused by {before.paused_by} {lasts}, and stays so. To end it sooner: ha-controller resume"
        state.answer(command.request, DONE, f"{_whose(state)}{stays}")
        return
    state.save_cloud(paused(before, who, now, until))
    state.answer(command.request, DONE, f"{_whose(state)}{_until(command)}")


def end(state: State, command: OperatorCommanded) -> None:
    """End the pause of this controller."""
    if state.leader and not state.cloud.paused_by:
        text = f"{state.leader} leads, and this controller is not paused: nothing was done. Resume it there."
        state.answer(command.request, NOT_LEADING, text)
        return
    state.save_cloud(paused(state.cloud, by=""))
    only = f" That was this controller alone: {state.leader} leads." if state.leader else ""
    state.answer(command.request, DONE, f"Resumed.{only}")


def end_when_due(state: State, now: float) -> None:
    """End a pause whose time is over. People get the settle time to press it again before anything is powered off.

    It counts from when it is told: the process may have stood still, and heard nothing, over the end of the pause.
    """
    until = state.cloud.paused_until
    if until is None or now < until or state.stands_by:
        return  # where the record is shared, only the leader's says what is paused
    who = state.cloud.paused_by
    state.save_cloud(paused(state.cloud, by=""))
    state.settle_until = max(state.settle_until, now + state.settings.settle_s)
    state.tell(Severity.WARNING, f"the pause has ended, its time is over (paused by {who})", OVER)


def tell_of_lead(state: State) -> None:
    """Say that the controller that leads from now on is paused: whoever paused it may think of another one."""
    if state.cloud.paused_by:
        text = f"this controller leads now and is paused by {state.cloud.paused_by}: nothing is powered off or moved"
        state.tell(Severity.WARNING, text, "To go on: ha-controller resume")


def paused(cloud: CloudRecord, by: str, at: float = 0.0, until: float | None = None) -> CloudRecord:
    """The record of a cloud that is paused, without an end unless one is given; "" for `by`: of one that is not."""
    return replace(cloud, paused_by=by, paused_at=at, paused_until=until)


def restored(cloud: CloudRecord, now: float) -> CloudRecord:
    """As it counts after a restart. With a clock that was set back since, a pause lasts no longer than was ordered."""
    if cloud.paused_until is None or cloud.paused_at <= now:
        return cloud
    return replace(cloud, paused_at=now, paused_until=now + cloud.paused_until - cloud.paused_at)


def _whose(state: State) -> str:
    if state.leader:
        return f"This controller is paused, should it take the lead. {state.leader} leads and is NOT paused by this."
    if state.term is None:
        return "Paused: this controller powers nothing off and moves nothing. It does not lead now; others may."
    return "Paused: nothing is powered off or moved. Probing goes on."


def _until(command: OperatorCommanded) -> str:
    return "" if command.for_s is None else f" It ends by itself after {_lasts(command.for_s)}."


def _lasts(seconds: float) -> str:
    whole = round(seconds)
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if whole >= size and whole % size == 0:
            return f"{whole // size} {unit}"
    return f"{whole} s"
