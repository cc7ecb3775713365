"""OpenNebula's XML-RPC door over TCP: envelopes, codes, faults and MAX_CONN as a real oned 7.4.0 has them.

HTTP 200 always, `Connection: close` always. Requests with a document type are refused as not XML.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import xmlrpc.client
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from ha_controller.sim import oned_xml as xml
from ha_controller.sim.oned_state import Oned, OnedRefusal

MAX_CONN = 15
IDLE_S = 15.0
BODY_MAX = 1 << 20
NOT_AUTHENTICATED = 256
_ATTRIBUTE = re.compile(r'^\s*([A-Za-z0-9_]+)\s*=\s*"((?:[^"\\]|\\.)*)"', re.M)

_ENVELOPE = '<?xml version="1.0" encoding="UTF-8"?>\n<methodResponse>\n{}</methodResponse>\n'


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call as it came in; the session is left out."""

    at: float
    method: str
    arguments: tuple[Any, ...]
    ok: bool
    result: object


class _Fault(Exception):
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
        datastores: Sequence[xml.Datastore],
        session: str,
        clock: Callable[[], float],
        max_conn: int = MAX_CONN,
    ) -> None:
        """Nothing is opened yet."""
        self.calls: list[Call] = []
        self.hooks: dict[int, dict[str, str]] = {}
        self.user_template: dict[str, str] = {}
        self._oned, self._session, self._clock = oned, session, clock
        self._datastores = {store.id: store for store in datastores}
        self._places = asyncio.Semaphore(max_conn)
        self._server: asyncio.Server | None = None
        self._methods: dict[str, tuple[tuple[type, ...], int, _Method]] = self._table()

    async def start(self, address: str, port: int) -> int:
        """Open the port; returns its number."""
        self._server = await asyncio.start_server(self._connection, address, port)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.close()

    # --- HTTP ---

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection takes one of MAX_CONN places until it has its answer or was idle for too long."""
        try:
            async with self._places, asyncio.timeout(IDLE_S):
                body = await self._request(reader)
                answer = self.answer(body).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {len(answer)}\r\n"
                writer.write(head.encode() + b"Connection: close\r\n\r\n" + answer)
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @staticmethod
    async def _request(reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if size > BODY_MAX:
            raise ValueError("too large")
        return await reader.readexactly(size)

    # --- XML-RPC ---

    def answer(self, body: bytes) -> str:
        """The response document for a request document."""
        try:
            method, arguments = self._parse(body)
            result = self._call(method, arguments)
        except _Fault as fault:
            return _ENVELOPE.format(
                "<fault>\n<value><struct>\n<member><name>faultCode</name>\n"
                f"<value><i4>{fault.code}</i4></value></member>\n<member><name>faultString</name>\n"
                f"<value><string>{escape(fault.text)}</string></value></member>\n</struct></value>\n</fault>\n"
            )
        except OnedRefusal as refusal:
            return _values(
                "<boolean>0</boolean>",
                f"<string>{escape(refusal.text)}</string>",
                f"<i4>{refusal.code}</i4>",
                f"<i4>{refusal.object_id}</i4>",
                "<i8>-1</i8>",
            )
        inner = f"<i4>{result}</i4>" if isinstance(result, int) else f"<string>{escape(str(result))}</string>"
        return _values("<boolean>1</boolean>", inner, "<i4>0</i4>")

    @staticmethod
    def _parse(body: bytes) -> tuple[str, tuple[Any, ...]]:
        not_xml = "Call XML not a proper XML-RPC call.  Call is not valid XML.  "
        if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
            raise _Fault(-503, f"{not_xml}document types are refused")
        try:
            arguments, method = xmlrpc.client.loads(body)
        except Exception as error:
            raise _Fault(-503, f"{not_xml}{type(error).__name__}") from None
        return method or "", tuple(arguments)

    def _call(self, method: str, arguments: tuple[Any, ...]) -> object:
        if method not in self._methods:
            raise _Fault(-506, f"Method '{method}' not defined")
        types, needed, act = self._methods[method]
        given = arguments[1:]
        if not arguments or len(given) < needed:
            raise _Fault(
                -500,
                "Unexpected error executing code for particular method, detected by Xmlrpc-c method registry code.  "
                "Method did not fail; it did not complete at all.  Not enough parameters",
            )
        for value, wanted in zip(given, types, strict=False):
            if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
                words = {int: "integer", str: "string", bool: "boolean"}
                raise _Fault(-501, f"Parameter that is supposed to be {words[wanted]} is not")
        if arguments[0] != self._session:
            text = f"[{method}] User couldn't be authenticated, aborting call."
            raise OnedRefusal(NOT_AUTHENTICATED, text)
        self._oned.advance(self._clock())
        try:
            result = act(*given[: len(types)])
        except OnedRefusal as refusal:
            self._note(method, given, False, refusal.text)
            raise
        self._note(method, given, True, result if isinstance(result, int) else "")
        return result

    def _note(self, method: str, given: tuple[Any, ...], ok: bool, result: object) -> None:
        self.calls.append(Call(at=self._clock(), method=method, arguments=given, ok=ok, result=result))

    # --- methods ---

    def _table(self) -> dict[str, tuple[tuple[type, ...], int, _Method]]:
        oned, now = self._oned, self._clock
        return {
            "one.system.version": ((), 0, lambda: "7.4.0"),
            "one.user.info": ((int, bool), 1, lambda *_: xml.user(self._session.split(":")[0], self.user_template)),
            "one.user.update": ((int, str, int), 3, self._update_user),
            "one.hostpool.info": ((), 0, lambda: xml.pool("HOST_POOL", self._hosts())),
            "one.hostpool.monitoring": ((int,), 1, self._monitoring),
            "one.host.info": ((int, bool), 1, lambda number, *_: xml.host(oned, oned.info_host(number))),
            "one.host.status": ((int, int), 2, lambda number, status: oned.set_status(number, status, now())),
            "one.host.update": ((int, str, int), 3, self._update_host),
            "one.vm.info": ((int, bool), 1, lambda number, *_: self._vm(oned.info_vm(number).id, True)),
            "one.vmpool.infoset": ((str, bool), 1, self._infoset),
            "one.vmpool.infoextended": ((int, int, int, int, str), 4, self._infoextended),
            "one.vm.migrate": ((int, int, bool, bool, int, int), 5, self._migrate),
            "one.vm.action": ((str, int), 2, lambda name, number: oned.action(number, name, now())),
            "one.vm.recover": ((int, int), 2, oned.recover),
            "one.datastorepool.info": ((), 0, self._datastore_pool),
            "one.hookpool.info": ((int, int, int), 3, self._hook_pool),
            "one.hook.allocate": ((str,), 1, self._allocate_hook),
            "one.zone.raftstatus": ((), 0, lambda: _RAFT),
        }

    def _hosts(self) -> list[str]:
        return [xml.host(self._oned, host) for _, host in sorted(self._oned.hosts.items(), reverse=True)]

    def _monitoring(self, seconds: int) -> str:
        del seconds
        return xml.pool("MONITORING_DATA", (xml.monitoring(host) for _, host in sorted(self._oned.hosts.items())))

    def _vm(self, number: int, all_history: bool) -> str:
        return xml.vm(self._oned, self._oned.vms[number], self._datastores, all_history=all_history)

    def _infoset(self, ids: str, extended: bool = False) -> str:
        del extended
        wanted = [int(word) for word in ids.split(",") if word.strip().isdigit()]
        return xml.pool("VM_POOL", (self._vm(number, False) for number in wanted if number in self._oned.vms))

    def _infoextended(self, filter_flag: int, start: int, end: int, state: int, query: str = "") -> str:
        del query
        if filter_flag < -4:
            raise OnedRefusal(4096, "[one.vmpool.infoextended] Incorrect filter_flag")
        known = [vm for _, vm in sorted(self._oned.vms.items(), reverse=True) if state < 0 or vm.state == state]
        if end < -1:
            known = known[start : start - end]
        elif start >= 0 and end >= 0:
            known = [vm for vm in known if start <= vm.id <= end]
        return xml.pool("VM_POOL", (self._vm(vm.id, False) for vm in known))

    def _migrate(self, vm: int, host: int, live: bool, enforce: bool, datastore: int, kind: int = 0) -> int:
        del live, datastore, kind
        return self._oned.migrate(vm, host, enforce, self._clock())

    def _update_host(self, number: int, text: str, append: int) -> int:
        del append
        return self._oned.update_host(number, _template(text))

    def _update_user(self, number: int, text: str, append: int) -> int:
        del append
        self.user_template.update(_template(text))
        return number

    def _datastore_pool(self) -> str:
        stores = sorted(self._datastores.values(), key=lambda store: -store.id)
        return xml.pool("DATASTORE_POOL", (xml.datastore(store) for store in stores))

    def _hook_pool(self, *_: int) -> str:
        return xml.pool("HOOK_POOL", (xml.hook(number, hook) for number, hook in sorted(self.hooks.items())))

    def _allocate_hook(self, text: str) -> int:
        number = len(self.hooks)
        self.hooks[number] = _template(text)
        return number


_RAFT = (
    "<RAFT><SERVER_ID>-1</SERVER_ID><STATE>0</STATE><TERM>0</TERM><VOTEDFOR>-1</VOTEDFOR><COMMIT>0</COMMIT>"
    "<LOG_INDEX>-1</LOG_INDEX><LOG_TERM>-1</LOG_TERM><FEDLOG_INDEX>-1</FEDLOG_INDEX></RAFT>"
)


def _values(*values: str) -> str:
    rows = "".join(f"<value>{value}</value>\n" for value in values)
    return _ENVELOPE.format(
        f"<params>\n<param><value><array><data>\n{rows}</data></array></value></param>\n</params>\n"
    )


def _template(text: str) -> dict[str, str]:
    """Plain attributes of an OpenNebula template."""
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in _ATTRIBUTE.findall(text)}
