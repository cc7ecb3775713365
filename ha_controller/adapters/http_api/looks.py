"""What can be looked at. The first line of each handler is what the document says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio
from aiohttp import web

from ha_controller.adapters import open_pages
from ha_controller.adapters.http_api import answers, foreseen, leader_answers, questions
from ha_controller.adapters.http_api.access import Role
from ha_controller.adapters.http_api.feed import Feed
from ha_controller.adapters.http_api.operations import Call, Operation
from ha_controller.adapters.http_api.paced import Paced, too_much
from ha_controller.adapters.http_api.problems import Problem, no_such_host
from ha_controller.adapters.http_api.sources import BASE, Json, Sources, Unreadable, known_host
from ha_controller.adapters.http_api.streams import stream
from ha_controller.adapters.opennebula import OpenNebulaError
from ha_controller.showable import status_lines

READ_MAX_S: Final = 20.0  #: for what is on record; whoever asks waits for those who asked before
READS_MAX: Final = 8  #: then viewers are refused
Answer = TypeVar("Answer")


class Looks:
    """What is read, and changes nothing."""

    def __init__(self, sources: Sources, feed: Feed, document: Json) -> None:
        """`document` is served as it is; it may still be empty."""
        self._sources = sources
        self._feed = feed
        self._document = document
        self._paced = Paced()
        self._reads = 0  #: of what is on record, that are under way

    def operations(self) -> list[Operation]:
        """All of them."""
        v1, nobody = BASE, Role.NOBODY
        return [
            Operation(method="GET", path="/livez", handler=self.livez, answer=leader_answers.Alive, role=nobody,
                      also={503: leader_answers.Alive}),
            Operation(method="GET", path="/readyz", handler=self.readyz, answer=leader_answers.Ready, role=nobody,
                      also={503: leader_answers.Ready}),
            Operation(method="GET", path="/leader", handler=self.is_leader, answer=leader_answers.Leads, role=nobody,
                      also={503: leader_answers.Leads}),
            Operation(method="GET", path="/metrics", handler=self.metrics, media="text/plain"),
            Operation(method="GET", path="/api/openapi.json", handler=self.openapi, answer=dict[str, Any], role=nobody),
            Operation(method="GET", path=f"{v1}/status", handler=self.status, answer=answers.Status,
                      problems=frozenset({503})),
            Operation(method="GET", path=f"{v1}/hosts", handler=self.hosts, answer=list[answers.HostRow],
                      problems=frozenset({503})),
            Operation(method="GET", path=f"{v1}/hosts/{{host}}/explain", handler=self.explain,
                      answer=answers.Explanation),
            Operation(method="GET", path=f"{v1}/vms/{{vm}}/explain", handler=self.explain_vm,
                      answer=foreseen.VmExplanation, problems=frozenset({503, 504})),
            Operation(method="GET", path=f"{v1}/config", handler=self.config, answer=answers.ConfigInForce,
                      role=Role.OPERATOR),
            Operation(method="GET", path=f"{v1}/drills", handler=self.drills, answer=list[answers.DrillRow]),
            Operation(method="GET", path=f"{v1}/pending", handler=self.pending, answer=list[answers.Pending],
                      problems=frozenset({503})),
            Operation(method="GET", path=f"{v1}/incidents", handler=self.incidents,
                      answer=list[answers.IncidentRecord], query=questions.IncidentsQuery,
                      problems=frozenset({503})),
            Operation(method="GET", path=f"{v1}/incidents/{{number}}", handler=self.incident,
                      answer=answers.IncidentRecord),
            Operation(method="GET", path=f"{v1}/incidents/{{number}}/flight", handler=self.flight,
                      media="application/jsonl"),
            Operation(method="GET", path=f"{v1}/events", handler=self.events, answer=list[answers.TrailLine],
                      query=questions.EventsQuery, problems=frozenset({404})),
            Operation(method="GET", path=f"{v1}/events/stream", handler=self.events_stream,
                      query=questions.StreamQuery, media="text/event-stream",
                      headers={"Last-Event-ID": "^[0-9]{1,18}$"}, problems=frozenset({503})),
            Operation(method="GET", path=f"{v1}/audit/head", handler=self.trail_head, answer=answers.TrailHead),
            Operation(method="GET", path=f"{v1}/doctor", handler=self.doctor, answer=list[answers.Check],
                      problems=frozenset({504})),
            Operation(method="GET", path=f"{v1}/notifiers", handler=self.notifiers, answer=list[answers.NotifierRow]),
            Operation(method="GET", path=f"{v1}/leader", handler=self.leader, answer=leader_answers.Leader),
            Operation(method="GET", path=f"{v1}/sight", handler=self.sight, answer=leader_answers.Sight),
            Operation(method="GET", path=f"{v1}/simulate/fail", handler=self.simulate_fail,
                      answer=foreseen.SimulatedFailure, query=questions.HostsQuery,
                      problems=frozenset({404, 503, 504})),
            Operation(method="GET", path=f"{v1}/simulate/capacity", handler=self.simulate_capacity,
                      answer=foreseen.Capacity, problems=frozenset({503, 504})),
        ]  # fmt: skip

    async def livez(self, call: Call) -> web.Response:
        """Whether the decision loop turns; 503 if it does not."""
        del call
        return open_pages.livez(self._sources)

    async def readyz(self, call: Call) -> web.Response:
        """Whether this controller can do its work, leading or standing by; 503 if it cannot, with why."""
        del call
        why_not, why_unfit = self._sources.why_not_ready(), self._sources.why_unfit()
        answer = {"ready": not why_not, "why_not": why_not, "fit": not why_unfit, "why_unfit": why_unfit}
        return web.json_response(answer, status=503 if why_not else 200)

    async def is_leader(self, call: Call) -> web.Response:
        """200 on the controller that leads, 503 on all others: for load balancers."""
        del call
        return open_pages.leader(self._sources)

    async def metrics(self, call: Call) -> web.Response:
        """What Prometheus reads."""
        del call
        return await open_pages.metrics(self._sources)

    async def openapi(self, call: Call) -> Json:
        """This document."""
        del call
        return self._document

    async def status(self, call: Call) -> web.Response:
        """The cloud in one sentence, and counts."""
        return await self._json_in_turn(call, self._sources.status)

    async def status_text(self, call: Call) -> web.Response:
        """The same as `ha-controller status` says it, for curl."""

        def lines() -> bytes:
            return "".join(f"{line}\n" for line in status_lines(self._sources.status())).encode()

        return web.Response(body=await self._in_turn(call, lines), content_type="text/plain", charset="utf-8")

    async def hosts(self, call: Call) -> web.Response:
        """The hosts, the ones that are not OK first."""
        return await self._json_in_turn(call, self._sources.hosts)

    async def explain(self, call: Call) -> web.Response:
        """Why a host is in its state, what blocks it and what comes next."""
        number = known_host(self._sources, call.path["host"])

        def explained() -> Json:
            found = self._sources.explain(str(number))
            if found is None:
                raise no_such_host()
            return found

        return await self._json_in_turn(call, explained, f"explain {number}")

    async def explain_vm(self, call: Call) -> Json:
        """Where a VM is, what would become of it if its host failed, and what has become of it."""
        word = call.path["vm"]
        numbers = await _of_opennebula(self._sources.vms_called(word))
        if len(numbers) > 1:
            raise Problem(400, f"{len(numbers)} VMs have this name: {', '.join(map(str, numbers[:20]))}. Say an id.")
        found = await _of_opennebula(self._sources.explain_vm(numbers[0])) if numbers else None
        if found is None:
            raise Problem(404, "OpenNebula has no such VM.")
        return found

    async def config(self, call: Call) -> Json:
        """The settings in force, each with where it comes from; secrets are masked."""
        del call
        return self._sources.config()

    async def drills(self, call: Call) -> Json:
        """When each fence device is due for a drill, and what stands in its way."""
        del call
        return self._sources.drills()

    async def pending(self, call: Call) -> web.Response:
        """Decisions that wait for a person."""
        return await self._json_in_turn(call, self._sources.pending)

    async def incidents(self, call: Call) -> web.Response:
        """All incidents on record, newest first."""
        newest = call.asked(questions.IncidentsQuery).limit
        rows = await self._on_record(call, lambda: self._sources.incidents(newest))
        return web.Response(text=f"[{', '.join(rows)}]", content_type="application/json")

    async def incident(self, call: Call) -> Json:
        """One incident, with everything that is on record."""
        number = call.path["number"]
        found = await self._on_record(call, lambda: self._sources.incident(number))
        if found is None:
            raise Problem(404, f"There is no incident {number}.")
        return found

    async def flight(self, call: Call) -> web.Response:
        """The flight record of an incident, one JSON value in each line (docs/replay.md)."""
        number = call.path["number"]
        found = await self._sources.flight(number)
        if found is None:
            raise Problem(404, f"There is no flight record of incident {number}. See docs/replay.md: what is kept.")
        return web.Response(body=found, content_type="application/jsonl")

    async def events(self, call: Call) -> Json:
        """Lines of the trail, oldest first."""
        asked = call.asked(questions.EventsQuery)
        return await self._sources.events(
            after=asked.after,
            before=asked.before,
            host=None if asked.host is None else known_host(self._sources, asked.host),
            incident=asked.incident,
            kind=asked.kind,
            limit=asked.limit,
            newest=asked.newest,
        )

    async def events_stream(self, call: Call) -> web.StreamResponse:
        """The trail and the state, live, as server-sent events: status, hosts, host, gone, trail, gap, alive."""
        return await stream(self._feed, call)

    async def trail_head(self, call: Call) -> Json:
        """The last line of the trail: its number and its seal."""
        del call
        return self._sources.trail_head()

    async def doctor(self, call: Call) -> Json:
        """Live checks, each with what to do about it."""
        del call
        return await self._sources.doctor()

    async def notifiers(self, call: Call) -> Json:
        """The ways to reach people, and how their messages ended."""
        del call
        return self._sources.notifiers()

    async def leader(self, call: Call) -> Json:
        """Who leads, and who could."""
        del call
        return await self._sources.leader()

    async def sight(self, call: Call) -> Json:
        """What this controller sees of the hosts, for the other controllers."""
        del call
        return self._sources.sight()

    async def simulate_fail(self, call: Call) -> Json:
        """Where each VM would go if these hosts failed at once."""
        hosts = [known_host(self._sources, name) for name in call.asked(questions.HostsQuery).host]
        return await _of_opennebula(self._sources.simulate_fail(hosts))

    async def simulate_capacity(self, call: Call) -> Json:
        """How many hosts may fail, by cluster, and what the loss of each would mean."""
        del call
        return await _of_opennebula(self._sources.simulate_capacity())

    async def _on_record(self, call: Call, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the journal has, within a time. Raises Problem."""
        if self._reads >= READS_MAX and call.caller.role <= Role.VIEWER:
            raise too_much()
        self._reads += 1
        try:
            with anyio.fail_after(READ_MAX_S):
                found = await read()
        except TimeoutError:
            raise too_much() from None
        except Unreadable as error:
            raise Problem(503, str(error)) from None
        finally:
            self._reads -= 1
        call.still_welcome()  # what was shown may have been revoked meanwhile
        return found

    async def _json_in_turn(self, call: Call, make: Callable[[], Json], question: str = "") -> web.Response:
        body = await self._in_turn(call, lambda: json.dumps(make()).encode(), question)
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def _in_turn(self, call: Call, make: Callable[[], bytes], question: str = "") -> bytes:
        """Whoever may only look waits for a turn; who may act is answered at once."""
        if call.caller.role > Role.VIEWER:
            return make()
        body = await self._paced.answer(question or call.request.path, make)
        call.still_welcome()
        return body


async def _of_opennebula(answer: Awaitable[Json]) -> Json:
    try:
        return await answer
    except OpenNebulaError as error:
        raise Problem(503, f"OpenNebula does not tell what is needed: {error}", code=7) from None
    except Unreadable as error:
        raise Problem(503, str(error)) from None
