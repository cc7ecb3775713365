"""Checks the record that controllers share, by what a quorum of the pretended engine holds and by nobody's word.

D1 what announces an order is on it before the order leaves, and nothing that is open on it is forgotten. G2 nobody
writes into it but the one who leads, in the very term that goes on. L2 nothing stays open on it at the end.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ha_controller.core.effects import Fence, MoveVm, Order, ResumeVm
from ha_controller.sim.core_level.judge import Violation
from ha_controller.sim.engine_level.quorum import Json, Quorum, Texts, incidents_in
from ha_controller.sim.engine_level.zone import Zone

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.world import World

KEPT = ("host", "opened_at")  #: an incident with others is another one
NO_EFFECT = ("refused", "not sent")  #: what became of power-offs that need not be remembered


class RecordJudge:
    """Looks at each write, and at each order."""

    def __init__(self, world: World) -> None:
        """Nothing was written."""
        self.world = world

    # --- orders ---

    def announces(self, order: Order) -> None:
        """An order leaves: the next leader must be able to read of it."""
        quorum = self.world.arbiter
        if not isinstance(quorum, Quorum | Zone):
            return
        texts = quorum.shared()
        number: int | None = getattr(order, "incident", None)
        if number is None:
            return
        what, incident = type(order).__name__, incidents_in(texts).get(number)
        if incident is None:
            raise Violation("D1", f"{what} of incident {number} left, which is not on the shared record")
        if not _is_announced(order, incident):
            raise Violation("D1", f"{what} of incident {number} left, and the shared record does not announce it")
        if isinstance(order, Fence | MoveVm | ResumeVm):
            if json.loads(texts.get("cloud", "{}")).get("paused_by"):
                raise Violation("G1", f"{what} left although people have paused the cloud, by the shared record")
            if incident["held_by"]:
                raise Violation("G1", f"{what} left although people hold incident {number}, by the shared record")

    # --- writes ---

    def written(self, writer: str, before: Texts, after: Texts, led: tuple[str, int]) -> None:
        """A write was taken in. `led`: who led when it came, by the engine; nobody, if it takes the lead itself."""
        quorum = self.world.arbiter
        if not isinstance(quorum, Quorum | Zone):
            return
        name, term = quorum.in_the_lead() if led == ("", 0) else led
        if name != writer:
            raise Violation("G2", f"{writer} has written into the shared record, and {name or 'nobody'} leads")
        terms = [json.loads(texts.get("written") or "{}").get("term", 0) for texts in (before, after)]
        if terms[1] not in (terms[0], term):  # what is not whole yet keeps the term of before
            raise Violation("G2", f"{writer} has written into the shared record in term {terms[1]}; it is term {term}")
        now = incidents_in(after)
        for number, was in incidents_in(before).items():
            if number in now:
                self._keeps(writer, was, now[number])

    def _keeps(self, writer: str, was: Json, now: Json) -> None:
        number = was["id"]
        if any(was[name] != now[name] for name in KEPT):
            raise Violation("D1", f"{writer} writes another incident {number} over the one of host {was['host']}")
        known = {each["number"] for each in was["attempts"] if each["outcome"] not in NO_EFFECT}
        forgotten = known - {each["number"] for each in now["attempts"]}
        if forgotten:
            raise Violation("D1", f"{writer} forgets power-off {min(forgotten)} of incident {number}")
        for vm, about in was["vms"].items():
            if vm not in now["vms"] or now["vms"][vm]["order"] < about["order"]:
                raise Violation("D1", f"{writer} forgets what was ordered for VM {vm} in incident {number}")

    # --- the end ---

    def at_the_end(self) -> None:
        """Everything is healed, and everybody has had time."""
        quorum = self.world.arbiter
        if isinstance(quorum, Quorum | Zone) and (left := incidents_in(quorum.shared())):
            host = next(iter(left.values()))["host"]
            raise Violation("L2", f"incident {min(left)} of host {host} stays open on the shared record")


def _is_announced(order: Order, incident: dict[str, Any]) -> bool:
    match order:
        case Fence():
            attempt = next((each for each in incident["attempts"] if each["number"] == order.attempt), None)
            return attempt is not None and tuple(attempt["devices"]) == order.devices
        case MoveVm():
            vm = incident["vms"].get(order.vm, {})
            return (vm.get("destination"), vm.get("order")) == (order.destination, order.attempt)
        case ResumeVm():
            return bool(incident["vms"].get(order.vm, {}).get("order") == order.attempt)
        case _:
            return True
