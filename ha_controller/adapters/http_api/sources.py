"""Where the answers of the API come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ha_controller.adapters import open_pages
from ha_controller.adapters.http_api.feed import Seen
from ha_controller.adapters.http_api.problems import Problem, no_such_host

Json = Any
BASE = "/api/v1"


class Unreadable(Exception):
    """What is on record cannot be read. The text says why, and what helps."""


class Sources(open_pages.Shown, Seen, Protocol):
    """Where answers come from."""

    def explain(self, host: str) -> Json:
        """Why a host is in its state; None if there is no such host."""

    def knows_hosts(self) -> bool:
        """Whether the hosts were read since the start; before that none is known, and none is missing."""

    def host_id(self, host: str) -> int | None:
        """The id of a host by id or name; None: there is no such host, or more than one."""

    def drills(self) -> Json:
        """When each fence device is due for a drill."""

    def pending(self) -> Json:
        """Decisions that wait for a person."""

    async def vms_called(self, word: str) -> list[int]:
        """The ids of the VMs that are called so, else of the one with this id; raises OpenNebulaError."""

    async def explain_vm(self, number: int) -> Json:
        """Where a VM is, what would become of it and what has; None: none. Raises OpenNebulaError, Unreadable."""

    def config(self) -> Json:
        """The settings in force, and where each comes from."""

    async def reload(self, *, who: str, origin: str, reason: str, dry_run: bool) -> Json:
        """Read the configuration again, and take over what may be."""

    async def incidents(self, newest: int | None = None) -> list[str]:
        """The incidents on record, newest first, each as JSON. Raises Unreadable."""

    async def incident(self, number: int) -> Json:
        """One of them; None: there is none. Raises Unreadable."""

    async def flight(self, incident: int) -> bytes | None:
        """The flight record of an incident as text; None if there is none."""

    async def events(
        self,
        *,
        after: int,
        before: float | None,
        host: int | None,
        incident: int | None,
        kind: str | None,
        limit: int,
        newest: bool,
    ) -> Json:
        """Lines of the trail, oldest first."""

    async def leader(self) -> Json:
        """Who leads, and who could."""

    def sight(self) -> Json:
        """What this controller sees of the hosts."""

    async def step_down(self, *, who: str, origin: str, reason: str, force: bool) -> tuple[int, str]:
        """Give the lead away; returns an exit code and a sentence."""

    async def check_devices(self, host: int | None) -> Json:
        """Check fence devices now; returns the rows of the hosts."""

    async def doctor(self) -> Json:
        """Live checks."""

    def notifiers(self) -> Json:
        """The ways to reach people, and how their messages ended."""

    async def test_notifiers(self, names: Sequence[str], *, who: str) -> Json:
        """Send a test through these now; one row each, with why it failed."""

    async def simulate_fail(self, hosts: Sequence[int]) -> Json:
        """Where the VMs of these hosts would go; raises OpenNebulaError."""

    async def simulate_capacity(self) -> Json:
        """How many hosts may fail; raises OpenNebulaError."""

    def why_not_ready(self) -> list[str]:
        """Why this controller cannot do its work; empty if it can."""

    def why_unfit(self) -> list[str]:
        """Why it cannot tell other controllers what is silent; empty if it can."""

    async def note(
        self, *, who: str, origin: str, what: str, reason: str = "", host: int | None = None, code: int, result: str
    ) -> None:
        """Put on the audit trail what the core does not see: an act of another kind, or one that was refused here."""

    def trail_head(self) -> Json:
        """The last entry of the trail: its number and its seal."""


def known_host(sources: Sources, name: str) -> int:
    """The id of a host by id or name. Raises Problem: there is none, or nobody knows yet."""
    found = sources.host_id(name)
    if found is None and not sources.knows_hosts():
        raise Problem(503, "The hosts were not read from OpenNebula yet. Try again.", code=6)
    if found is None:
        raise no_such_host()
    return found
