"""What the local door shows: views of the core, the trail, live checks, metrics. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from pydantic import SecretStr

from ha_controller.adapters.http_api import Unreadable
from ha_controller.adapters.journal import Entry, Journal, JournalError
from ha_controller.adapters.opennebula import OpenNebulaError, RaftState, Unauthenticated
from ha_controller.app import drills, messages, metrics, reloading, standing, vantage, vm_pages
from ha_controller.app.black_box import BlackBox
from ha_controller.app.doctor import examine, ssh_timeout
from ha_controller.app.exposition import Scrapes
from ha_controller.app.ledger import Ledger
from ha_controller.app.surroundings import SecondMaster
from ha_controller.core import report, trust
from ha_controller.core.state import State

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

log = structlog.get_logger(__name__)

Json = Any
TRAIL_CHECKED = 5000  #: entries
ONEADMIN = 0  #: the id of the user that OpenNebula itself uses


@contextmanager
def _or_unreadable() -> Iterator[None]:
    try:
        yield
    except JournalError as error:
        raise Unreadable(str(error)) from error


class ControllerSources:
    """Answers for the HTTP API."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        journal: Journal,
        ledger: Ledger,
        second_master: SecondMaster,
        black_box: BlackBox,
    ) -> None:
        """Everything it reads from."""
        self._runtime = runtime
        self._journal = journal
        self._ledger = ledger
        self._second_master = second_master
        self._black_box = black_box
        self._scrapes = Scrapes(lambda: metrics.exposition(runtime, self.round_age_s()))

    @property
    def _state(self) -> State:
        return self._runtime.controller.state

    def status(self) -> Json:
        """The cloud in one sentence, and counts."""
        return report.status(self._state, self._runtime.clock(), self.round_age_s())

    def hosts(self) -> Json:
        """One row for each host."""
        return report.hosts(self._state, self._runtime.clock())

    def knows_hosts(self) -> bool:
        """Whether the hosts were read since the start."""
        return self._state.oned_at is not None

    def host_id(self, host: str) -> int | None:
        """The id of a host by id or name; None: there is no such host, or more than one."""
        return report.host_id(self._state, host)

    def explain(self, host: str) -> Json:
        """Why a host is in its state; None if there is no such host."""
        number = self.host_id(host)
        if number is None:
            return None
        return report.explain(self._state, self._state.hosts[number], self._runtime.clock())

    async def vms_called(self, word: str) -> list[int]:
        """The ids of the VMs that are called so, else of the one with this id."""
        return await vm_pages.vms_called(self._runtime, word)

    async def explain_vm(self, number: int) -> Json:
        """Where a VM is, what would become of it and what has; None if there is none."""
        with _or_unreadable():
            return await vm_pages.explain_vm(self._runtime, number, self._ledger)

    def config(self) -> Json:
        """The settings in force, and where each comes from."""
        return reloading.shown(self._runtime)

    async def reload(self, *, who: str, origin: str, reason: str, dry_run: bool) -> Json:
        """Read the configuration again, and take over what may be."""
        return await self._runtime.reloader.reload(who=who, origin=origin, reason=reason, dry_run=dry_run)

    def pending(self) -> Json:
        """Decisions that wait for a person."""
        return report.pending(self._state)

    async def incidents(self, newest: int | None = None) -> list[str]:
        """The incidents on record, newest first, each as JSON."""
        with _or_unreadable():
            return await self._ledger.shown(lambda incident: json.dumps(report.incident(incident)), newest=newest)

    async def incident(self, number: int) -> Json:
        """One of them; None if there is none."""
        with _or_unreadable():
            return await self._ledger.shown_of(number, report.incident)

    async def flight(self, incident: int) -> bytes | None:
        """The flight record of an incident as text; None if there is none."""
        return await self._black_box.fetch(incident)

    async def events(
        self,
        *,
        after: int = 0,
        before: float | None = None,
        host: int | None = None,
        incident: int | None = None,
        kind: str | None = None,
        limit: int = 200,
        newest: bool = False,
    ) -> Json:
        """Lines of the trail, oldest first."""
        entries = await self._journal.entries(
            after_id=after, before=before, host=host, incident=incident, kind=kind, limit=limit, newest_first=newest
        )
        return [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.id)]

    async def trail(self, *, after: int, limit: int) -> list[Json]:
        """Lines of the trail with higher numbers, oldest first."""
        return [asdict(entry) for entry in await self._journal.entries(after_id=after, limit=limit)]

    async def trail_end(self) -> int:
        """The number of its last line; 0 if there is none."""
        last = await self._journal.entries(limit=1, newest_first=True)
        return last[0].id if last else 0

    async def kept(self, prefix: str) -> dict[str, str]:
        """Texts on record, by their keys, of those that begin like this."""
        records = await self._journal.records()
        return {key: text for key, text in records.items() if key.startswith(prefix)}

    async def keep(self, key: str, text: str | None, *, who: str, origin: str, what: str) -> None:
        """Put a text on record (None: remove it), together with who did it.

        Raises:
            JournalError: it is not on record.
        """
        data = {"who": who, "origin": origin, "verb": what, "reason": "", "result": "", "code": 0}
        line = Entry(at=self.now(), kind="operator", host=None, incident=None, text=f"{who} orders {what}", data=data)
        await self._journal.commit({key: text}, [line])

    def now(self) -> float:
        """Seconds since 1970 on the controller's clock."""
        return self._runtime.clock()

    async def groups_of(self, user: str, password: str) -> frozenset[str] | None:
        """The groups of an OpenNebula user: the primary one's name, all by number; None: OpenNebula does not know it.

        Raises:
            OpenNebulaError: OpenNebula does not tell.
        """
        try:
            found = await self._runtime.client.as_user(SecretStr(f"{user}:{password}")).user()
        except Unauthenticated:
            return None
        if found.name != user:
            return None
        return found.groups

    def drills(self) -> Json:
        """When each fence device is due for a drill."""
        return drills.schedule(self._state, self._runtime.config.drill, self._runtime.clock())

    def leads(self) -> bool:
        """Whether this controller leads now."""
        return self._runtime.leadership.term is not None

    async def leader(self) -> Json:
        """Who leads, and who could."""
        others = vantage.shown(self._runtime.controllers.sights, self._runtime.clock())
        return {**standing.shown(self._runtime.leadership), "controllers": others}

    def sight(self) -> Json:
        """What this controller sees of the hosts, for the others."""
        return vantage.told(self._runtime)

    async def note(
        self, *, who: str, origin: str, what: str, reason: str = "", host: int | None = None, code: int, result: str
    ) -> None:
        """Put an act that the core knows nothing of on the audit trail, or that one was refused at the door."""
        await self._runtime.audit.note(
            who=who, origin=origin, what=what, reason=reason, host=host, code=code, result=result
        )

    def trail_head(self) -> Json:
        """The last entry of the trail: its number and its seal."""
        return asdict(self._journal.head)

    async def step_down(self, *, who: str, origin: str, reason: str, force: bool) -> tuple[int, str]:
        """Give the lead away; returns an exit code and a sentence."""
        leadership = self._runtime.leadership
        code, text = self._may_step_down(force=force)
        noted = await self._runtime.audit.note(
            who=who, origin=origin, what="leader step-down", reason=reason, code=code, result=text
        )
        if not code and not noted and not force:
            return 1, "It could not be put on record, so it was not done. See: ha-controller doctor"
        if not code:
            code, text = self._may_step_down(force=force)  # writing takes its time, and hosts fail meanwhile
        if code:
            return code, text
        log.warning("ordered to step down", who=who, reason=reason, force=force)
        leadership.step_down(f"{who} ordered it to step down{f': {reason}' if reason else ''}")
        return code, text

    def _may_step_down(self, *, force: bool) -> tuple[int, str]:
        if self._runtime.leadership.term is None:
            return 9, "This controller does not lead. See: ha-controller leader show"
        if why := standing.why_no_step_down(self._runtime.leadership, self._state, force=force):
            return 4, why
        return 0, "It does not lead any more. See who does: ha-controller leader show"

    async def simulate_fail(self, hosts: Sequence[int]) -> Json:
        """Where the VMs of these hosts would go."""
        return await self._runtime.foresight.fail(hosts)

    async def simulate_capacity(self) -> Json:
        """How many hosts may fail."""
        return await self._runtime.foresight.capacity()

    async def metrics(self) -> str:
        """Prometheus text."""
        return await self._scrapes.text()

    def round_age_s(self) -> float:
        """How long ago the decision loop finished a round."""
        engine = self._runtime.engine
        return 1e9 if engine is None else self._runtime.clock() - engine.last_round_at

    def why_not_ready(self) -> list[str]:
        """Why this controller cannot do its work, as leader or standing by; empty if it can."""
        state, why_not = self._state, []
        if self.round_age_s() >= report.ROUND_AGE_MAX_S:
            why_not.append("the decision loop does not turn")
        if state.oned_at is None or state.oned_detail:
            why_not.append(f"OpenNebula cannot be read: {state.oned_detail or 'not read yet'}")
        return why_not

    def why_unfit(self) -> list[str]:
        """Why this controller cannot tell others what is silent; empty if it can."""
        return vantage.why_unfit(self._runtime)

    async def check_devices(self, host: int | None) -> Json:
        """Check the fence devices of one host, or of all, now; returns their rows."""
        await self._runtime.fencer.check_now(host)
        await anyio.sleep(0.2)  # the reports are in the core's inbox
        return [row for row in self.hosts() if host is None or row["id"] == host]

    def notifiers(self) -> Json:
        """The ways to reach people, and how their messages ended."""
        return messages.standing(self._runtime.notifier)

    async def test_notifiers(self, names: Sequence[str], *, who: str) -> Json:
        """Send a test through these now; one row each, with why it failed."""
        return await messages.test(self._runtime.notifier, names, who=who, now=self._runtime.clock())

    # --- doctor ---

    async def doctor(self) -> Json:
        """Live checks, each with what to do about it."""
        state = self._state
        checks = [await self._check_oned(), await self._check_zone(), self._check_second_master(), self._check_lead()]
        checks += [
            {"ok": state.self_check, "text": f"self-check: {state.self_check_detail}"}
            if state.settings.self_check_needed
            else {"ok": None, "text": "no witnesses: guard.self_check is empty, a cut-off of ours goes unnoticed"}
        ]
        checks += [{"ok": ok, "text": text} for ok, text in self._channels()]
        checks += self._check_devices()
        checks.append(await ssh_timeout(self._runtime.config.opennebula.ssh_timeout_s))
        checks.append(await self._check_trail())
        checks += [
            {"ok": not row["trouble"], "text": f"messages by {row['name']}: {row['trouble'] or 'they went out'}"}
            for row in self.notifiers()
            if row["trouble"] or row["results"]["sent"]
        ]
        return checks + await examine(self._runtime)

    async def _check_oned(self) -> Json:
        endpoint = self._runtime.config.opennebula.endpoint
        began_at = self._runtime.clock()
        try:
            version = await self._runtime.client.version()
            user = await self._runtime.client.user()
        except OpenNebulaError as error:
            return {"ok": False, "text": f"OpenNebula at {endpoint}: {error}"}
        took_ms = (self._runtime.clock() - began_at) / 2 * 1000  # the mean of two calls
        rights = "group oneadmin" if user.in_oneadmin else "not in oneadmin: needs ADMIN on HOST and VM by ACL"
        text = f"OpenNebula {version} at {endpoint} in {took_ms:.0f} ms, user {user.name} ({rights})"
        if why := self._runtime.order_login.why_configured(user):
            return {"ok": None, "text": f"{text}; orders go by the configured login: {why}"}
        if self._runtime.leadership.arbiter.regains and user.id == ONEADMIN:
            own = (
                "a user of its own for the controller is better, as all its login tokens are revoked at each take-over"
            )
            return {"ok": None, "text": f"{text}; {own}"}
        return {"ok": True if user.in_oneadmin else None, "text": text}

    async def _check_zone(self) -> Json:
        """A front-end that follows reads late: a decision on what it says may be one on what is over."""
        try:
            status = await self._runtime.client.raft_status()
        except OpenNebulaError as error:
            return {
                "ok": None,
                "text": f"zone: OpenNebula does not say whether it is one of several front-ends: {error}",
            }
        match status.state:
            case RaftState.SOLO:
                return {"ok": True, "text": "zone: OpenNebula is one front-end"}
            case RaftState.LEADER:
                return {"ok": True, "text": f"zone: the OpenNebula we ask leads its zone (server {status.id})"}
        follows = f"zone: the OpenNebula we ask (server {status.id}) does not lead its zone, and reads late"
        if self._runtime.leadership.arbiter.kind == "opennebula":
            return {"ok": None, "text": f"{follows}; nothing is ordered from here"}
        return {"ok": False, "text": f"{follows}. Set opennebula.endpoint to the virtual address of the zone's leader"}

    async def _check_trail(self) -> Json:
        """The newest part of the trail; all of it is checked by `audit verify`, elsewhere and in peace."""
        try:
            chain = await self._journal.check(TRAIL_CHECKED)
        except JournalError as error:
            return {"ok": False, "text": f"trail: {error}"}
        if chain.faults:
            return {"ok": False, "text": f"trail: {chain.faults[0]}. All of it: ha-controller audit verify"}
        if not chain.count:
            return {"ok": True, "text": "trail: nothing is on it yet"}
        return {"ok": True, "text": f"trail: the newest {chain.count} entries are as they were written ({chain.head})"}

    def _check_second_master(self) -> Json:
        last = self._second_master.last
        ok = None if last.present is None else not last.present
        return {"ok": ok, "text": f"second master: {last.detail}"}

    def _check_lead(self) -> Json:
        leadership = self._runtime.leadership
        if (term := leadership.term) is not None:
            return {"ok": True, "text": f"lead: this controller leads, term {term} ({leadership.arbiter.kind})"}
        trouble = leadership.ended or leadership.trouble
        return {"ok": False if trouble else None, "text": f"lead: {trouble or self._state.why_not_leading}"}

    def _channels(self) -> list[tuple[bool | None, str]]:
        now = self._runtime.clock()
        found: list[tuple[bool | None, str]] = []
        for channel in self._state.settings.channels:
            if channel.name == "bmc":
                continue  # asked about suspects only; the devices' own checks tell more
            views = [view.views.get(channel.name) for view in self._state.views.values()]
            alive = sum(view is not None and view.alive_at is not None and now - view.alive_at < 60 for view in views)
            told = next((view.unknown_detail for view in views if view is not None and view.unknown_detail), "")
            ok = True if alive else None
            note = f"; {told}" if told else ""
            found.append((ok, f"channel {channel.name}: {alive} of {len(views)} hosts answered lately{note}"))
        return found

    def _check_devices(self) -> list[Json]:
        checks: list[Json] = []
        for host in self._state.hosts.values():
            if host.excluded:
                continue
            if not host.levels:
                checks.append({"ok": False, "text": f"{host.name}: no fence device; if it dies, its VMs stay down"})
            for device in (device for level in host.levels for device in level):
                view = self._state.view(host.id).devices.get(device.name)
                if view is None:
                    checks.append({"ok": None, "text": f"{host.name}: {device.name}: not checked yet"})
                else:
                    ok = False if view.mismatch else view.ok
                    text = view.mismatch or view.summary
                    whose = trust.how_trusted(self._state, host, device)
                    checks.append({"ok": ok, "text": f"{host.name}: {device.name} ({whose}): {text}"})
        for (_, name), problem in sorted(self._runtime.armory.problems.items()):
            checks.append({"ok": False, "text": f"{name}: {problem}"})
        return checks
