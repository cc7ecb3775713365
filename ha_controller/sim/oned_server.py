"""OpenNebula's XML-RPC door over TCP: envelopes, codes, faults and MAX_CONN as a real oned 7.4.0 has them.

HTTP 200 always, `Connection: close` always. Requests with a document type are refused as not XML.
"""

from __future__ import annotations

import asyncio
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from ha_controller.sim import oned_xml as xml
from ha_controller.sim.oned_door import IDLE_S, MAX_CONN, Door
from ha_controller.sim.oned_model import BAD_PARAMETER, INTERNAL, NOT_AUTHORIZED, OnedRefusal
from ha_controller.sim.oned_state import Oned
from ha_controller.sim.oned_template import Template, TemplateError, parse
from ha_controller.sim.oned_users import OnedUser, Users

_ENVELOPE = '<?xml version="1.0" encoding="UTF-8"?>\n<methodResponse>\n{}</methodResponse>\n'


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call as it came in; the session is left out."""

    at: float
    method: str
    arguments: tuple[Any, ...]
    ok: bool
    result: object


class Fault(Exception):
    """An XML-RPC fault: oned could not even take the call."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


_Method = Callable[..., object]


class OnedServer:
    """Serves one embedded oned."""

    def __init__(
        self,
        oned: Oned,
        *,
        session: str,
        clock: Callable[[], float],
        max_conn: int = MAX_CONN,
        idle_s: float = IDLE_S,
        users: Users | None = None,
        is_copy: bool = False,
    ) -> None:
        """Nothing is opened yet. `is_copy`: it is only read, and time stands still in it."""
        self.calls: list[Call] = []
        self.hooks: dict[int, Template] = {}
        self.users = users or Users(session)
        self._oned, self._clock, self._is_copy = oned, clock, is_copy
        self._door = Door(self._respond, places=asyncio.Semaphore(max_conn), idle_s=idle_s)
        self._methods: dict[str, tuple[tuple[type, ...], int, _Method]] = self._table()

    async def start(self, address: str, port: int) -> int:
        """Open the port; returns its number."""
        return await self._door.start(address, port)

    def close(self) -> None:
        """Close the port."""
        self._door.close()

    async def _respond(self, body: bytes) -> str:
        return self.answer(body)

    # --- XML-RPC ---

    def answer(self, body: bytes) -> str:
        """The response document for a request document."""
        try:
            method, arguments = parse_call(body)
            result = self._call(method, arguments)
        except Fault as fault:
            return _ENVELOPE.format(
                "<fault>\n<value><struct>\n<member><name>faultCode</name>\n"
                f"<value><i4>{fault.code}</i4></value></member>\n<member><name>faultString</name>\n"
                f"<value><string>{escape(fault.text)}</string></value></member>\n</struct></value>\n</fault>\n"
            )
        except OnedRefusal as refusal:
            return refused(refusal)
        return succeeded(result)

    def _call(self, method: str, arguments: tuple[Any, ...]) -> object:
        if method not in self._methods:
            raise Fault(-506, f"Method '{method}' not defined")
        types, needed, act = self._methods[method]
        given = arguments[1:]
        if not arguments or len(given) < needed:
            raise Fault(
                -500,
                "Unexpected error executing code for particular method, detected by Xmlrpc-c method registry code.  "
                "Method did not fail; it did not complete at all.  Not enough parameters",
            )
        for value, wanted in zip(given, types, strict=False):
            if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
                words = {int: "integer", str: "string", bool: "boolean"}
                raise Fault(-501, f"Parameter that is supposed to be {words[wanted]} is not")
        user = self.users.authenticate(method, str(arguments[0]), self._clock())
        if not self._is_copy:
            self._oned.advance(self._clock())
        try:
            self.users.authorize(method, user, given)
            result = act(user, *given[: len(types)])
        except OnedRefusal as refusal:
            self._note(method, given, False, refusal.text)
            raise
        self._note(method, given, True, result if isinstance(result, int) else "")
        return result

    def _note(self, method: str, given: tuple[Any, ...], ok: bool, result: object) -> None:
        self.calls.append(Call(at=self._clock(), method=method, arguments=given, ok=ok, result=result))

    # --- methods; the first argument of each is the calling user ---

    def _table(self) -> dict[str, tuple[tuple[type, ...], int, _Method]]:
        oned, now = self._oned, self._clock
        return {
            "one.system.version": ((), 0, lambda _: "7.4.0"),
            "one.user.info": ((int, bool), 1, lambda user, *_: xml.user(user)),
            "one.user.update": ((int, str, int), 3, self._update_user),
            "one.user.login": ((str, str, int, int), 3, self._login),
            "one.hostpool.info": ((), 0, lambda user: xml.pool("HOST_POOL", self._hosts(user))),
            "one.hostpool.monitoring": ((int,), 1, self._monitoring),
            "one.host.info": ((int, bool), 1, self._host),
            "one.host.status": ((int, int), 2, lambda _, number, status: oned.set_status(number, status, now())),
            "one.host.update": ((int, str, int), 3, self._update_host),
            "one.vm.info": ((int, bool), 1, self._vm),
            "one.vmpool.infoset": ((str, bool), 1, self._infoset),
            "one.vmpool.infoextended": ((int, int, int, int, str), 4, self._infoextended),
            "one.vm.migrate": ((int, int, bool, bool, int, int), 5, self._migrate),
            "one.vm.action": ((str, int), 2, lambda _, name, number: oned.lifecycle.action(number, name, now())),
            "one.vm.recover": ((int, int), 2, self._recover),
            "one.vm.update": ((int, str, int), 3, self._update_vm),
            "one.vm.lock": ((int, int), 2, lambda _, number, level: oned.lifecycle.lock("one.vm.lock", number, level)),
            "one.vm.unlock": ((int,), 1, lambda _, number: oned.lifecycle.lock("one.vm.unlock", number, 0)),
            "one.datastorepool.info": ((), 0, self._datastore_pool),
            "one.clusterpool.info": ((), 0, self._cluster_pool),
            "one.vmgrouppool.info": (
                (int, int, int),
                3,
                lambda *_: xml.pool("VM_GROUP_POOL", (xml.vm_group(group) for group in oned.groups)),
            ),
            "one.hookpool.info": ((int, int, int), 3, self._hook_pool),
            "one.hook.allocate": ((str,), 1, self._allocate_hook),
            "one.zone.raftstatus": ((), 0, lambda _: _RAFT),
            "one.zone.info": ((int, bool), 1, lambda *_: xml.zone({})),
            "one.zonepool.info": ((), 0, lambda _: xml.pool("ZONE_POOL", [xml.zone({})])),
        }

    def _hosts(self, user: OnedUser) -> list[str]:
        if not (user.admin or user.sees_hosts):
            return []
        return [xml.host(self._oned, host, in_pool=True) for _, host in sorted(self._oned.hosts.items(), reverse=True)]

    def _host(self, _: OnedUser, number: int, *__: bool) -> str:
        return xml.host(self._oned, self._oned.known("one.host.info", number))

    def _monitoring(self, _: OnedUser, seconds: int) -> str:
        del seconds  # the embedded oned keeps the latest record only
        return xml.pool("MONITORING_DATA", (xml.monitoring(host) for _, host in sorted(self._oned.hosts.items())))

    def _vm(self, _: OnedUser, number: int, *__: bool) -> str:
        return xml.vm(self._oned, self._oned.lifecycle.known("one.vm.info", number), all_history=True)

    def _vm_pool(self, numbers: list[int]) -> str:
        vms = [self._oned.vms[number] for number in sorted(numbers, reverse=True) if number in self._oned.vms]
        return xml.pool("VM_POOL", (xml.vm(self._oned, vm, all_history=False) for vm in vms))

    def _infoset(self, user: OnedUser, ids: str, extended: bool = False) -> str:
        del extended
        return self._vm_pool([int(word) for word in ids.split(",") if word.strip().isdigit() and user.admin])

    def _infoextended(self, user: OnedUser, filter_flag: int, start: int, end: int, state: int, query: str = "") -> str:
        del query
        if filter_flag < -4:
            raise OnedRefusal(BAD_PARAMETER, "[one.vmpool.infoextended] Incorrect filter_flag")
        wanted = [vm for vm in self._oned.vms.values() if vm.state == state or (state < 0 and not vm.is_done())]
        known = sorted((vm.id for vm in wanted if user.admin), reverse=True)
        if end < -1:
            known = known[start : start - end]
        elif start >= 0 and end >= 0:
            known = [number for number in known if start <= number <= end]
        return self._vm_pool(known)

    def _migrate(
        self, _: OnedUser, vm: int, host: int, live: bool, enforce: bool, datastore: int, kind: int = 0
    ) -> int:
        del kind
        target = self._oned.known("one.vm.migrate", host)
        return self._oned.lifecycle.migrate(
            vm, target, live=live, enforce=enforce, datastore=datastore, now=self._clock()
        )

    def _recover(self, user: OnedUser, number: int, operation: int) -> int:
        if self._oned.lifecycle.known("one.vm.recover", number).locked and user.id != 0:
            raise OnedRefusal(NOT_AUTHORIZED, f"[one.vm.recover] User [{user.id}] : VM is locked. [{number}].")
        return self._oned.lifecycle.recover(number, operation, self._clock())

    def _update_host(self, _: OnedUser, number: int, text: str, append: int) -> int:
        self._oned.known("one.host.update", number)
        return self._oned.update_host(number, _template("one.host.update", text), append)

    def _update_vm(self, _: OnedUser, number: int, text: str, append: int) -> int:
        self._oned.lifecycle.known("one.vm.update", number)
        return self._oned.lifecycle.update(number, _template("one.vm.update", text), append)

    def _update_user(self, user: OnedUser, number: int, text: str, append: int) -> int:
        del append
        user.template.update(_template("one.user.update", text))
        return user.id if number == -1 else number

    def _login(self, _: OnedUser, name: str, token: str, period_s: int, group: int = -1) -> str:
        del group
        return self.users.login(name, token, period_s, self._clock())

    def _datastore_pool(self, _: OnedUser) -> str:
        stores = sorted(self._oned.datastores.values(), key=lambda store: -store.id)
        return xml.pool("DATASTORE_POOL", (xml.datastore(store) for store in stores))

    def _cluster_pool(self, _: OnedUser) -> str:
        names = {host.cluster: host.cluster_name for host in self._oned.hosts.values()}
        return xml.pool(
            "CLUSTER_POOL",
            (
                xml.cluster(
                    number,
                    name,
                    [host.id for host in self._oned.hosts.values() if host.cluster == number],
                    [store.id for store in self._oned.datastores.values() if number in store.clusters],
                )
                for number, name in sorted(names.items(), reverse=True)
            ),
        )

    def _hook_pool(self, user: OnedUser, *_: int) -> str:
        hooks = sorted(self.hooks.items()) if user.admin else []
        return xml.pool("HOOK_POOL", (xml.hook(number, hook) for number, hook in hooks))

    def _allocate_hook(self, _: OnedUser, text: str) -> int:
        number = len(self.hooks)
        self.hooks[number] = _template("one.hook.allocate", text)
        return number


_RAFT = xml.raft(SERVER_ID=-1, STATE=0, TERM=0, VOTEDFOR=-1, COMMIT=0, LOG_INDEX=-1, LOG_TERM=-1, FEDLOG_INDEX=-1)


def parse_call(body: bytes) -> tuple[str, tuple[Any, ...]]:
    """The method and its arguments, the session first. Raises Fault."""
    not_xml = "Call XML not a proper XML-RPC call.  Call is not valid XML.  "
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise Fault(-503, f"{not_xml}document types are refused")
    try:
        arguments, method = xmlrpc.client.loads(body)
    except Exception as error:  # xmlrpc.client raises whatever its parser and its conversions raise
        raise Fault(-503, f"{not_xml}{type(error).__name__}") from None
    return method or "", tuple(arguments)


def succeeded(result: object) -> str:
    """The answer of a call that was accepted."""
    inner = f"<i4>{result}</i4>" if isinstance(result, int) else f"<string>{escape(str(result))}</string>"
    return _values("<boolean>1</boolean>", inner, "<i4>0</i4>")


def refused(refusal: OnedRefusal) -> str:
    """The answer of a call that was not."""
    return _values(
        "<boolean>0</boolean>",
        f"<string>{escape(refusal.text)}</string>",
        f"<i4>{refusal.code}</i4>",
        f"<i4>{refusal.object_id}</i4>",
        "<i8>-1</i8>",
    )


def _values(*values: str) -> str:
    rows = "".join(f"<value>{value}</value>\n" for value in values)
    return _ENVELOPE.format(
        f"<params>\n<param><value><array><data>\n{rows}</data></array></value></param>\n</params>\n"
    )


def _template(call: str, text: str) -> Template:
    try:
        return parse(text)
    except TemplateError as error:
        raise OnedRefusal(INTERNAL, f"[{call}] Cannot update template. Parse error: {error}") from None
