"""How often an order about a VM is given, and when again.

What counts as a try is an order that OpenNebula took, or may have taken. A refusal, and an order that it did not take
at that moment (an expired login, a follower that does not know the VM yet, no connection in time), did nothing: they
are repeated with pauses, told, and bounded for themselves. Where a VM goes is not decided here.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core.events import OrderResult, VmOrderReported
from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.settings import Settings
from ha_controller.core.state import Hold, State

REPEAT_AFTER_S = 5.0  #: an order without effect, or one that was not taken, is repeated after this long
REFUSED_AGAIN_S = 60.0  #: what was refused `move_tries_max` times is tried again so seldom
UNDER_WAY = (VmStage.MOVING, VmStage.RESUMING)
TOLD_AFTER = 2  #: orders in a row that were not taken: one may be a moment's trouble


def is_under_way(record: VmRecord) -> bool:
    """Whether it takes the place of one that is moved or started: not while OpenNebula has taken no order about it."""
    return record.stage in UNDER_WAY and (record.tries > 0 or record.maybe_done)


def may_order(state: State, record: VmRecord, free: int, now: float, stage: VmStage | None = None) -> bool:
    """The first order when there is a place; a repetition only after the last one has surely ended without effect.

    The first one of a later `stage` at once.
    """
    if stage not in (None, record.stage):
        return True
    if now < record.not_before:
        return False
    if record.stage is VmStage.WAITING:
        return free > 0
    if record.tries >= state.settings.move_tries_max and record.stage is not VmStage.RECOVERING:
        return False  # the time runs out, and then it is left with the last reason
    lost = not record.answered or record.maybe_done
    is_over = now - record.ordered_at >= (state.settings.order_timeout_s if lost else REPEAT_AFTER_S)
    return is_over and (free > 0 or is_under_way(record) or record.stage is VmStage.LOCKING)


def reported(settings: Settings, record: VmRecord, event: VmOrderReported, now: float, *, away: bool) -> VmRecord:
    """Take in what became of an order. `away`: the VM is not on the host that failed any more."""
    after = replace(record, answered=True, reason=event.detail)
    match event.result:
        case OrderResult.ACCEPTED:
            return replace(after, refusals=0, put_off=0)
        case OrderResult.UNKNOWN:
            return replace(after, maybe_done=True)
        case OrderResult.SKIPPED if record.stage in (VmStage.MOVING, VmStage.RECOVERING):
            return replace(_uncounted(after, away), put_off=record.put_off + 1)
        case OrderResult.SKIPPED:
            return after
        case OrderResult.NOT_NOW:
            return replace(_uncounted(after, away), put_off=record.put_off + 1, not_before=now + REPEAT_AFTER_S)
        case OrderResult.REFUSED:
            return _refused(settings, after, now, away)


def _refused(settings: Settings, record: VmRecord, now: float, away: bool) -> VmRecord:
    """OpenNebula said no. After an order that was lost, that may only mean that it has been carried out."""
    if record.maybe_done or record.stage is VmStage.LOCKING:
        return record
    if record.stage is VmStage.RECOVERING:
        return _presumes_nothing(record)
    refusals = record.refusals + 1
    pause_s = REFUSED_AGAIN_S if refusals >= settings.move_tries_max else 0.0
    after = replace(_uncounted(record, away), refusals=refusals, not_before=now + pause_s)
    if record.stage is VmStage.MOVING:
        bad = {*record.refused_on} if record.destination is None else {*record.refused_on, record.destination}
        after = replace(_before_a_move(after), refused_on=tuple(sorted(bad)))
    return after


def _uncounted(record: VmRecord, away: bool) -> VmRecord:
    """Nothing was done by the last order: it is as if it had not been given, but for those before it."""
    was_second = record.second_starts > 0 and record.presumed_by == record.order
    tries, record = max(0, record.tries - 1), _presumes_nothing(record)
    match record.stage:
        case VmStage.MOVING if tries == 0 and not record.maybe_done:
            return _before_a_move(record)
        case VmStage.MOVING | VmStage.RESUMING:
            return replace(record, tries=tries, first_ordered_at=record.first_ordered_at if tries else 0.0)
        case VmStage.RECOVERING if not record.maybe_done:
            return replace(
                record, recovers=max(0, record.recovers - 1), boots=max(0, record.boots - (away and not was_second))
            )
        case _:
            return record


def _presumes_nothing(record: VmRecord) -> VmRecord:
    """The last order did nothing. What one before it was presumed to do may be done all the same."""
    if record.presumed_by != record.order:
        return record
    if record.stage is VmStage.RECOVERING:
        return replace(record, doubted=False, recreated=False, second_starts=0)
    return replace(record, ordered_to=tuple(host for host in record.ordered_to if host != record.destination))


def _before_a_move(record: VmRecord) -> VmRecord:
    return replace(record, stage=VmStage.WAITING, destination=None, tries=0, first_ordered_at=0.0)


def why_given_up(settings: Settings, record: VmRecord) -> str:
    """Why a VM gets no further order, although nothing was done with it; empty if it does."""
    if record.refusals >= settings.move_tries_max + settings.refusals_max:
        return f"OpenNebula refused the order {record.refusals} times: {record.reason}"
    if record.put_off >= settings.put_offs_max:
        return f"OpenNebula did not take the order, {record.put_off} times in a row: {record.reason}"
    return ""


def trouble(settings: Settings, incident: Incident) -> Hold | None:
    """What people are told while orders are refused, not taken, or not carried out."""
    waiting = [record for record in incident.vms if not record.settled]
    if refused := [record for record in waiting if record.refusals >= settings.move_tries_max]:
        why = f"{_names(refused)}: {refused[0].reason}"
        next_step = "If a quota or a right is lacking, grant it: the orders are repeated every minute"
        return Hold("refused by OpenNebula", why, f"{next_step}, {settings.refusals_max} times.")
    if untaken := [record for record in waiting if record.put_off >= TOLD_AFTER]:
        why = f"{_names(untaken)}: {untaken[0].reason}"
        return Hold("OpenNebula does not take orders", why, "They are repeated. Look at oned: ha-controller doctor")
    if undone := [record for record in waiting if record.stage is VmStage.MOVING and record.tries >= TOLD_AFTER]:
        why = f"{_names(undone)}: ordered {undone[0].tries} times, and still where they were"
        next_step = "They are repeated, and the VMs are left when their time has run out. Look at oned."
        return Hold("OpenNebula does not carry out orders", why, next_step)
    return None


def _names(records: list[VmRecord]) -> str:
    more = f" and {len(records) - 3} others" if len(records) > 3 else ""
    return f"{', '.join(record.name for record in records[:3])}{more}"
