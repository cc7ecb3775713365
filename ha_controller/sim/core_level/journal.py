"""A pretended journal: what a decision wants on disk, and what a restart finds there."""

from __future__ import annotations

from ha_controller.core.controller import Decision
from ha_controller.core.incident import CloudRecord, Incident
from ha_controller.core.model import HostTrust


class Record:
    """All that is durable."""

    def __init__(self) -> None:
        """An empty journal."""
        self.incidents: dict[int, Incident] = {}
        self.cloud = CloudRecord()
        self.trusts: dict[int, HostTrust] = {}
        self.term = 0

    def write(self, decisions: list[Decision]) -> None:
        """One commit for all that a round decided."""
        for decision in decisions:
            for incident in decision.incidents:
                self.incidents[incident.id] = incident
            for trust in decision.trusts:
                self.trusts[trust.host] = trust
            self.cloud = decision.cloud or self.cloud
            self.term = self.term if decision.term is None else decision.term

    def open_of(self, host: int) -> Incident | None:
        """The open incident of a host."""
        return next((each for each in self.incidents.values() if each.host == host and each.open), None)

    def forget_closed(self, older_than: float) -> None:
        """Years of closed incidents would not fit into memory."""
        done = [number for number, each in self.incidents.items() if each.closed_at and each.closed_at < older_than]
        for number in done:
            del self.incidents[number]
