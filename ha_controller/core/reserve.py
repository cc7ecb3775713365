"""The reserve: whether so many hosts of each cluster may fail that everything that runs still finds a place.

`assess` is computed beside the decisions, from a snapshot; `note` takes its result in and tells people, once for each
change. Nothing is decided by it: a dead host is fenced whether its VMs fit elsewhere or not.
"""

from __future__ import annotations

from collections.abc import Callable

from ha_controller.core.effects import Severity
from ha_controller.core.events import ClusterReserve, HostLoss, ReserveAssessed
from ha_controller.core.model import Unplaced
from ha_controller.core.simulate import ClusterCapacity, Loss, Snapshot, capacity
from ha_controller.core.state import State

NAMED_MAX = 3  #: VMs in a message


def assess(taken: Snapshot, asked_at: float, breathe: Callable[[], None] = lambda: None) -> ReserveAssessed:
    """What would happen if hosts failed now. `breathe`: as of `capacity`."""
    found = capacity(taken, breathe)
    losses = [loss for cluster in found for loss in cluster.alone]
    return ReserveAssessed(
        asked_at=asked_at,
        clusters=tuple(_cluster(taken, each) for each in found),
        losses=tuple(HostLoss(host=loss.hosts[0], vms=len(loss.must_run), without=_unplaced(loss)) for loss in losses),
    )


def _cluster(taken: Snapshot, found: ClusterCapacity) -> ClusterReserve:
    worst = max(found.alone, key=lambda loss: (len(loss.unserved), -loss.hosts[0]))  # the first of the worst
    loss = worst if worst.unserved else found.too_many
    return ClusterReserve(
        cluster=found.cluster,
        name=taken.hosts[worst.hosts[0]].cluster_name or str(found.cluster),
        hosts=len(found.alone),
        may_fail=found.may_fail,
        worst=loss.hosts if loss else (),
        vms=len(loss.must_run) if loss else 0,
        without=_unplaced(loss) if loss else (),
    )


def _unplaced(loss: Loss) -> tuple[Unplaced, ...]:
    return tuple(Unplaced(vm=each.vm, name=each.name, reason=each.reason) for each in loss.unserved)


def note(state: State, event: ReserveAssessed) -> None:
    """Take in what was computed, and tell what changed. Who does not lead tells nothing."""
    if event.failure:
        if not state.reserve_failure and state.term is not None:
            text = f"The reserve of the clusters could not be computed: {event.failure}"
            state.tell(Severity.WARNING, text, "It is tried again. By hand: ha-controller simulate capacity")
        state.reserve_failure = event.failure if state.term is not None else ""
        return
    state.reserve, state.reserve_failure = event, ""
    if state.term is None:
        state.reserve_told = {}
        return
    for cluster in event.clusters:
        _tell(state, cluster)


def _tell(state: State, found: ClusterReserve) -> None:
    wanted = state.settings.reserve_of(found.name)
    now_missing = () if found.may_fail >= wanted else (found.worst, *sorted(each.vm for each in found.without))
    before = state.reserve_told.pop(found.cluster, ())
    if now_missing:
        state.reserve_told[found.cluster] = now_missing
    if now_missing == before:
        return
    if now_missing:
        state.tell(
            Severity.WARNING, _missing(state, found, wanted), "Free or add a host: ha-controller simulate capacity"
        )
    else:
        text = f"cluster {found.name}: the reserve of {_hosts(wanted)} is kept again: {found.may_fail} may fail"
        state.tell(Severity.INFO, text, "Nothing to do.")


def _missing(state: State, found: ClusterReserve, wanted: int) -> str:
    names = [state.hosts[host].name for host in found.worst if host in state.hosts]
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return (
        f"cluster {found.name}: the reserve of {_hosts(wanted)} is not kept, {found.may_fail} may fail. Without "
        f"{', '.join(names[:NAMED_MAX])}{more}, {described(found.vms, found.without)}"
    )


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


def described(vms: int, without: tuple[Unplaced, ...]) -> str:
    """What would become of VMs, in half a sentence."""
    if not vms:
        return "no running VM would have to move"
    if not without:
        return f"all {vms} running VMs would find a place"
    some = "; ".join(f"{each.name} {each.reason}" for each in without[:NAMED_MAX])
    more = f"; and {len(without) - NAMED_MAX} more" if len(without) > NAMED_MAX else ""
    return f"{len(without)} of {vms} running VMs would not find a place: {some}{more}"
