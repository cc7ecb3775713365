"""What can be ordered. The first line of each handler is what the document says."""

from __future__ import annotations

from ha_controller.adapters.commander import Commander
from ha_controller.adapters.http_api import answers, questions
from ha_controller.adapters.http_api.access import Role
from ha_controller.adapters.http_api.operations import Call, Handler, Operation
from ha_controller.adapters.http_api.problems import Problem, refused
from ha_controller.adapters.http_api.sources import BASE, Json, Sources, known_host
from ha_controller.core.events import Verb


class Acts:
    """What is ordered. Each order is on record with who gave it, from where and why, before anything is done."""

    def __init__(self, sources: Sources, commander: Commander) -> None:
        """Orders go to the core by the commander."""
        self._sources = sources
        self._commander = commander

    def operations(self) -> list[Operation]:
        """All of them."""
        operator, admin = Role.OPERATOR, Role.ADMIN
        of_host, of_incident = f"{BASE}/hosts/{{host}}", f"{BASE}/incidents/{{number}}"
        why, needed = questions.ReasonBody, questions.NeededReasonBody
        orders: list[tuple[str, Handler, type[questions.ReasonBody], Role]] = [
            (f"{BASE}/pause", self._pause, questions.PauseBody, operator),
            (f"{BASE}/resume", self._resume, why, operator),
            (f"{of_incident}/approve", self._approve, why, operator),
            (f"{of_incident}/reject", self._reject, why, operator),
            (f"{of_host}/hold", self._hold, why, operator),
            (f"{of_host}/release", self._release, why, operator),
            (f"{of_host}/maintenance/on", self._maintenance_on, questions.MaintenanceBody, operator),
            (f"{of_host}/maintenance/off", self._maintenance_off, why, operator),
            (f"{of_host}/fence", self._fence, needed, admin),
            (f"{of_host}/confirm-off", self._confirm_off, questions.OfIncidentBody, admin),
            (f"{of_host}/unfence", self._unfence, questions.UnfenceBody, admin),
            (f"{of_host}/drill", self._drill, why, admin),
            (f"{BASE}/leader/step-down", self._step_down, questions.StepDownBody, admin),
        ]
        found = [_ordered(path, handler, body, role) for path, handler, body, role in orders]
        rows, tests = list[answers.HostRow], list[answers.NotifierTest]
        return [
            *found,
            Operation(method="POST", path=f"{BASE}/fencing/check", handler=self._check_devices, answer=rows,
                      query=questions.DevicesQuery, role=operator, ordered=True, problems=frozenset({404})),
            Operation(method="POST", path=f"{BASE}/reload", handler=self._reload, answer=answers.Reloaded,
                      body=questions.ReloadBody, role=admin, ordered=True),
            Operation(method="POST", path=f"{BASE}/notifiers/test", handler=self._test_notifiers, answer=tests,
                      query=questions.NotifiersQuery, role=operator, ordered=True, problems=frozenset({404})),
        ]  # fmt: skip

    async def _pause(self, call: Call) -> Json:
        """No power-off and no move anywhere; probing goes on."""
        sent = call.sent(questions.PauseBody)
        return await self._order(Verb.PAUSE, call, for_s=sent.for_s, here=sent.here)

    async def _resume(self, call: Call) -> Json:
        """End the pause."""
        return await self._order(Verb.RESUME, call)

    async def _approve(self, call: Call) -> Json:
        """Say yes to what an incident asks: power off a silent host, or start VMs before others are ready."""
        return await self._order(Verb.APPROVE, call)

    async def _reject(self, call: Call) -> Json:
        """Do not power off the host of an incident."""
        return await self._order(Verb.REJECT, call)

    async def _hold(self, call: Call) -> Json:
        """Stop the incident of a host: no further power-off, no further move."""
        return await self._order(Verb.HOLD, call)

    async def _release(self, call: Call) -> Json:
        """Take up the incident of a host again."""
        return await self._order(Verb.RELEASE, call)

    async def _maintenance_on(self, call: Call) -> Json:
        """Take a host out of the controller's hands; written on it in OpenNebula."""
        return await self._order(Verb.MAINTENANCE_ON, call, for_s=call.sent(questions.MaintenanceBody).for_s)

    async def _maintenance_off(self, call: Call) -> Json:
        """Give a host back: it is watched, and powered off if it fails."""
        return await self._order(Verb.MAINTENANCE_OFF, call)

    async def _fence(self, call: Call) -> Json:
        """Power a silent host off now, without waiting for the verdict. Refused while it shows life."""
        return await self._order(Verb.FENCE, call)

    async def _confirm_off(self, call: Call) -> Json:
        """Say that you have seen that a host is off; its VMs are started elsewhere."""
        return await self._order(Verb.CONFIRM_OFF, call, incident=call.sent(questions.OfIncidentBody).incident)

    async def _unfence(self, call: Call) -> Json:
        """Give a host back to OpenNebula once it answers again."""
        sent = call.sent(questions.UnfenceBody)
        return await self._order(Verb.UNFENCE, call, incident=sent.incident, force=sent.force, repaired=sent.repaired)

    async def _drill(self, call: Call) -> Json:
        """Power a host in maintenance off and on with each of its fence devices. Takes minutes."""
        return await self._order(Verb.DRILL, call)

    async def _step_down(self, call: Call) -> Json:
        """Have this controller give the lead to another one."""
        sent, caller = call.sent(questions.StepDownBody), call.caller
        code, text = await self._sources.step_down(
            who=caller.who, origin=caller.origin, reason=sent.reason, force=sent.force
        )
        return _done(code, text)

    async def _reload(self, call: Call) -> Json:
        """Read the configuration again and take over what may change without a restart. A bad one changes nothing."""
        sent, caller = call.sent(questions.ReloadBody), call.caller
        return await self._sources.reload(
            who=caller.who, origin=caller.origin, reason=sent.reason, dry_run=sent.dry_run
        )

    async def _check_devices(self, call: Call) -> Json:
        """Check fence devices now: login, right to power off, identity. Changes nothing."""
        name = call.asked(questions.DevicesQuery).host
        host = None if name is None else known_host(self._sources, name)
        await self._note(call, "fencing check", host=host)
        return await self._sources.check_devices(host)

    async def _test_notifiers(self, call: Call) -> Json:
        """Send a test message through some notifiers, or through all, now."""
        known = [row["name"] for row in self._sources.notifiers()]
        names = call.asked(questions.NotifiersQuery).name or known
        if set(names) - set(known):
            raise Problem(404, "There is no such notifier. See: ha-controller notify list")
        rows = await self._sources.test_notifiers(names, who=call.caller.who)
        said = ", ".join(f"{row['name']} {'ok' if row['ok'] else 'failed'}" for row in rows)
        await self._note(call, f"notify test {' '.join(names)}", result=said)
        return rows

    async def _note(self, call: Call, what: str, *, host: int | None = None, result: str = "") -> None:
        who, origin = call.caller.who, call.caller.origin
        await self._sources.note(who=who, origin=origin, what=what, host=host, code=0, result=result)

    async def _order(
        self, verb: Verb, call: Call, *, incident: int | None = None, for_s: float | None = None, force: bool = False,
        repaired: bool = False, here: bool = False,
    ) -> Json:  # fmt: skip
        name = call.path.get("host")
        answer = await self._commander.order(
            verb,
            who=call.caller.who,
            origin=call.caller.origin,
            reason=call.sent(questions.ReasonBody).reason,
            host=None if name is None else known_host(self._sources, name),
            incident=call.path.get("number", incident),
            for_s=for_s,
            force=force,
            repaired=repaired,
            here=here,
        )
        return _done(answer.code, answer.text, on_record=answer.request != 0)  # 0: the core has not seen it


def _ordered(path: str, handler: Handler, body: type[questions.ReasonBody], role: Role) -> Operation:
    return Operation(method="POST", path=path, handler=handler, body=body, role=role, ordered=True, answer=answers.Done)


def _done(code: int, text: str, *, on_record: bool = True) -> Json:
    if code != 0:
        raise refused(code, text, on_record=on_record)
    return {"code": code, "text": text}
