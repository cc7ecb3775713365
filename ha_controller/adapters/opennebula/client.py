"""The client of oned: reads pools, hosts and VMs, and gives the few orders that a failover needs.

It must never repeat a call by itself, never wait without a deadline, never follow a redirect, and never show the
session string. It decides nothing: a "true" from oned only means accepted, and callers read back what became of it.
Orders and questions come from the other adapters; oned's XML goes through `xmlrpc.py`, `reader.py` and `documents.py`.

oned serves 15 connections at most and closes each after one reply (observed on 7.4.0), so the client opens a few, one
for each call, and shares them in three lanes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from copy import copy
from dataclasses import replace
from enum import IntEnum
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from ha_controller.adapters.opennebula import documents
from ha_controller.adapters.opennebula.gate import WAITING_MAX, Gate, Lane
from ha_controller.adapters.opennebula.models import (
    OnedCluster,
    OnedDatastore,
    OnedHook,
    OnedHost,
    OnedUser,
    OnedVm,
    OnedZone,
    RaftStatus,
)
from ha_controller.adapters.opennebula.reader import BadDocument, DocumentReader, Fields, Kind, Model
from ha_controller.adapters.opennebula.timed import Heed, timed, unheeded
from ha_controller.adapters.opennebula.transport import HttpTransport, Transport
from ha_controller.adapters.opennebula.xmlrpc import (
    BadReply,
    EmptyPool,
    NoAnswer,
    OpenNebulaError,
    Parameter,
    ReplyReader,
    Unconfirmed,
    Withheld,
    request_body,
    template_text,
)
from ha_controller.core.resources import VmGroup

ORDER_BODY_LIMIT = 16 << 20
POOL_BODY_LIMIT = 1 << 30  #: oned's own limit (MESSAGE_SIZE in oned.conf)
VMS_PER_CALL = 500  #: about 2.3 MB on the wire
LAST_ID = 2**31 - 1
VMS_MAX = 1_000_000  #: more are not believed

_EVERYONE, _NOT_DONE, _APPEND = -2, -1, 1  # filter flag, state filter, kind of update


class HostStatus(IntEnum):
    """What `one.host.status` can make of a host."""

    ENABLE = 0
    DISABLE = 1
    OFFLINE = 2


class Secret(Protocol):
    """What holds the session string, for example pydantic's SecretStr."""

    def get_secret_value(self) -> str:
        """Return "user:password" or "user:token"."""


class Client:
    """One oned. Use as `async with Client(...)`; every method raises `OpenNebulaError` and nothing else.

    Orders return when oned accepted them. If one fails with `outcome_unknown`, read the object again before repeating
    it. Everything takes at most `timeout_s`, waiting for a connection and reading the body included.
    """

    def __init__(
        self,
        endpoint: str,
        session: Secret,
        *,
        orders: Secret | None = None,
        timeout_s: float = 5.0,
        connections: int = 4,
        transport: Transport | None = None,
        heed: Heed = unheeded,
    ) -> None:
        """Check the settings. No I/O here. `orders`: the session of what is proven, empty while there is none.

        `transport`: another way to oned than HTTP. `heed` is told how each call ended.

        Raises:
            ValueError: the endpoint is not an http or https URL without user and password, or too few connections.
        """
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("the endpoint must be a URL like http://127.0.0.1:2633/RPC2")
        if parts.username is not None or parts.password is not None:
            raise ValueError("the endpoint must not hold a user or a password")
        self._endpoint = endpoint
        self._session = session
        self._orders = orders or session
        self._timeout_s = timeout_s
        self._gate = Gate(connections)
        self._heed = heed
        self._transport = HttpTransport(endpoint) if transport is None else transport
        self._may_send: Callable[[], Awaitable[bool]] | None = None
        self._is_confirmed: Callable[[], Awaitable[bool]] | None = None

    def proven(
        self, may_send: Callable[[], Awaitable[bool]], is_confirmed: Callable[[], Awaitable[bool]] | None = None
    ) -> Client:
        """The same client, open like this one, whose orders and notes leave only if this says so.

        Each call asks once it has its connection, and leaves at once then: a proof from before the wait may be old.
        One that is not allowed raises `Withheld`. `is_confirmed` is asked when oned has accepted an order, where that
        is no proof that it will last; one that is not confirmed raises `Unconfirmed`.
        """
        client = copy(self)
        client._may_send, client._is_confirmed = may_send, is_confirmed
        return client

    def as_user(self, session: Secret) -> Client:
        """The same client with another session."""
        client = copy(self)
        client._session = client._orders = session
        return client

    def __repr__(self) -> str:
        """Show the endpoint only."""
        return f"Client({self._endpoint!r})"

    async def __aenter__(self) -> Self:
        """Open the client; connections are opened by the calls."""
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._transport.close()

    # --- reads --------------------------------------------------------------------------------------------------------

    async def version(self) -> str:
        """Return oned's release, like "7.4.0"."""
        pieces: list[str] = []
        await self._call(Lane.READ, "one.system.version", (), pieces.append)
        return "".join(pieces)

    async def user(self) -> OnedUser:
        """Return the user whose session this is."""
        return await self._one(documents.USER, "one.user.info", -1, False)

    async def hosts(self) -> list[OnedHost]:
        """Return all hosts that the user may see, ascending by id.

        oned leaves MONITORING empty in the host pool (observed on 7.4.0), so the time of the last news is read from
        `one.hostpool.monitoring` first: it may be older than the rest of the host, never newer.

        Raises:
            EmptyPool: no host is visible, which is what oned shows to a user without rights.
        """
        records = await self._pool(documents.MONITORING, "one.hostpool.monitoring", 0)
        told = {record.id: record for record in records}

        def build(host: Fields) -> OnedHost:
            model = documents.HOSTS.build(host)
            record = told.get(model.id)
            if record is None:
                return model
            newest = max(model.monitored_at, record.monitored_at)
            return replace(model, monitored_at=newest, monitoring=model.monitoring or record.values)

        hosts = await self._pool(replace(documents.HOSTS, build=build), "one.hostpool.info")
        if not hosts:
            raise EmptyPool("one.hostpool.info", "no host is visible: has the user no rights on hosts?")
        return hosts

    async def host(self, host: int) -> OnedHost:
        """Return one host."""
        return await self._one(documents.HOST, "one.host.info", host, False)

    async def vm(self, vm: int) -> OnedVm:
        """Return one VM with its whole history; a DONE one too."""
        return await self._one(documents.VM, "one.vm.info", vm, False)

    async def vms(self, vms: Iterable[int]) -> list[OnedVm]:
        """Return these VMs, ascending by id, DONE ones too. One that does not exist is missing from the result."""
        wanted = sorted(set(vms))
        found: list[OnedVm] = []
        for start in range(0, len(wanted), VMS_PER_CALL):
            ids = ",".join(map(str, wanted[start : start + VMS_PER_CALL]))
            found += await self._pool(documents.VMS, "one.vmpool.infoset", ids, True)
        return found

    async def all_vms(self) -> list[OnedVm]:
        """Return all VMs that are not DONE, ascending by id.

        Reads ranges of ids. oned's pages count from the newest VM, so a VM that ends between two of them shifts all
        older ones and hides one. Ids have gaps of any size; the width of a range follows what was found in the last.
        """
        newest = await self._vm_pool(0, -2)  # oned's shortest page: two VMs
        if not newest:
            return []
        found: dict[int, OnedVm] = {}
        first, width = 0, VMS_PER_CALL
        while first <= LAST_ID:
            last = first + width - 1 if first + width <= newest[-1].id else LAST_ID
            vms = await self.vms_between(first, last)
            found |= {vm.id: vm for vm in vms}
            if len(found) > VMS_MAX or any(not first <= vm.id <= last for vm in vms):
                raise BadReply("one.vmpool.infoextended", "it answers VMs that were not asked for, or without an end")
            first = last + 1
            width = max(VMS_PER_CALL // 4, min(width * 8, width * VMS_PER_CALL // max(len(vms), 1)))
        return [found[vm] for vm in sorted(found)]

    async def vms_between(self, first: int, last: int) -> list[OnedVm]:
        """Return the VMs with first <= id <= last that are not DONE, ascending by id."""
        return await self._vm_pool(first, last)

    async def datastores(self) -> list[OnedDatastore]:
        """Return all datastores that the user may see."""
        return await self._pool(documents.DATASTORES, "one.datastorepool.info")

    async def clusters(self) -> list[OnedCluster]:
        """Return all clusters that the user may see."""
        return await self._pool(documents.CLUSTERS, "one.clusterpool.info")

    async def vm_groups(self) -> list[VmGroup]:
        """Return all VM groups that the user may see."""
        return await self._pool(documents.VM_GROUPS, "one.vmgrouppool.info", _EVERYONE, -1, -1)

    async def hooks(self) -> list[OnedHook]:
        """Return the hooks. Users outside oneadmin get an empty list: see `OnedUser.in_oneadmin`."""
        return await self._pool(documents.HOOKS, "one.hookpool.info", _EVERYONE, -1, -1)

    async def zones(self) -> list[OnedZone]:
        """Return all zones of the federation; one if there is none."""
        return await self._pool(documents.ZONES, "one.zonepool.info")

    async def raft_status(self) -> RaftStatus:
        """Return what this server says about its part in the zone's Raft; it answers by itself. Takes ADMIN ZONE."""
        return await self._one(documents.RAFT, "one.zone.raftstatus")

    # --- orders -------------------------------------------------------------------------------------------------------

    async def set_host_status(self, host: int, status: HostStatus) -> None:
        """Enable, disable or take a host offline."""
        await self._order("one.host.status", host, int(status))

    async def update_host(self, host: int, attributes: Mapping[str, str]) -> None:
        """Set attributes of a host, and keep its others."""
        text = template_text("one.host.update", attributes)
        await self._order("one.host.update", host, text, _APPEND)

    async def update_user(self, user: int, attributes: Mapping[str, str]) -> None:
        """Set attributes of a user, and keep its others."""
        text = template_text("one.user.update", attributes)
        await self._order("one.user.update", user, text, _APPEND)

    async def login(self, user: str, token: str, valid_s: int) -> str:
        """Return a new login token; with `valid_s` 0, revoke that token, or with an empty one all of the user."""
        pieces: list[str] = []
        try:
            await self._call(Lane.ORDER, "one.user.login", (user, token, valid_s, -1), pieces.append)
        except OpenNebulaError as error:
            raise _without(error, token) from error.__cause__
        return "".join(pieces)

    async def note_vm(self, vm: int, attributes: Mapping[str, str]) -> None:
        """Set attributes of a VM's user template for people to read, and keep its others; behind everything else."""
        await self._note("one.vm.update", vm, attributes)

    async def note_host(self, host: int, attributes: Mapping[str, str]) -> None:
        """The same of a host."""
        await self._note("one.host.update", host, attributes)

    async def migrate(
        self, vm: int, host: int, *, enforce: bool = True, live: bool = False, datastore: int = -1, type: int = 0
    ) -> None:
        """Move a VM. `type`: 0 save, 1 power off, 2 power off hard (needed for PCI); -1 keeps the datastore.

        `enforce` checks CPU and memory only; oned accepts a target in ERROR and breaks affinity without complaint.
        """
        await self._order("one.vm.migrate", vm, host, live, enforce, datastore, type)

    async def vm_action(self, vm: int, action: str) -> None:
        """Do something with a VM: "resume", "poweroff-hard", "resched", ..."""
        await self._order("one.vm.action", action, vm)

    async def recover(self, vm: int, operation: int) -> None:
        """End a VM's transient state: 0 failure, 1 success, 2 retry, 3 delete, 4 recreate, 5 delete from database."""
        await self._order("one.vm.recover", vm, operation)

    async def lock(self, vm: int, level: int) -> None:
        """Lock a VM: 1 use, 2 manage, 3 admin, 4 all. The lock is then the caller's own."""
        await self._order("one.vm.lock", vm, level)

    async def unlock(self, vm: int) -> None:
        """Take a VM's lock away."""
        await self._order("one.vm.unlock", vm)

    # --- the call -----------------------------------------------------------------------------------------------------

    async def _order(self, method: str, *parameters: Parameter) -> None:
        await self._call(Lane.ORDER, method, parameters, lambda _: None)

    async def _note(self, method: str, number: int, attributes: Mapping[str, str]) -> None:
        parameters = (number, template_text(method, attributes), _APPEND)
        await self._call(Lane.NOTE, method, parameters, lambda _: None)

    async def _vm_pool(self, start: int, end: int) -> list[OnedVm]:
        return await self._pool(documents.VMS, "one.vmpool.infoextended", _EVERYONE, start, end, _NOT_DONE)

    async def _one(self, kind: Kind[Model], method: str, *parameters: Parameter) -> Model:
        [model] = await self._read(Lane.READ, kind, method, parameters)  # a complete document has one root
        return model

    async def _pool(self, kind: Kind[Model], method: str, *parameters: Parameter) -> list[Model]:
        return await self._read(Lane.POOL, kind, method, parameters)

    async def _read(self, lane: Lane, kind: Kind[Model], method: str, parameters: tuple[Parameter, ...]) -> list[Model]:
        reader = DocumentReader(kind)
        try:
            await self._call(lane, method, parameters, reader.feed)
            return reader.close()
        except BadDocument as error:
            raise BadReply(method, f"the document cannot be read: {error}") from error

    async def _call(
        self, lane: Lane, method: str, parameters: tuple[Parameter, ...], take: Callable[[str], None]
    ) -> None:
        """Make one call; hand the payload to `take` while it arrives. Raises OpenNebulaError and what `take` raises."""
        with timed(method, self._heed):
            await self._made(lane, method, parameters, take)

    async def _made(
        self, lane: Lane, method: str, parameters: tuple[Parameter, ...], take: Callable[[str], None]
    ) -> None:
        session, sent = self._session.get_secret_value(), False
        is_order = self._may_send is not None and lane in (Lane.ORDER, Lane.NOTE)
        try:
            async with asyncio.timeout(self._timeout_s), self._gate.slot(lane):
                if is_order:
                    session = await self._session_of_order(method)
                body = request_body(method, (session, *parameters))
                sent = True
                await self._exchange(lane, method, body, take)
        except asyncio.QueueFull:
            raise NoAnswer(method, f"{WAITING_MAX} calls are waiting already", sent=False) from None
        except TimeoutError as error:
            reason = "no complete answer" if sent else "no free connection"
            raise NoAnswer(method, f"{reason} within {self._timeout_s:g} s", sent=sent) from error
        except OpenNebulaError as error:
            raise _without(error, session) from error.__cause__
        if is_order and lane is Lane.ORDER and self._is_confirmed is not None and not await self._is_confirmed():
            raise Unconfirmed(method, "accepted, and no majority of the zone has it for certain")

    async def _session_of_order(self, method: str) -> str:
        """Once it may leave. What a new leader revokes is looked up as late as possible."""
        if self._may_send is None or not await self._may_send():
            raise Withheld(method, "not sent: too late, or we no longer lead")
        session = self._orders.get_secret_value()
        if not session:
            raise Withheld(method, "not sent: there is no login token for orders")
        return session

    async def _exchange(self, lane: Lane, method: str, body: bytes, take: Callable[[str], None]) -> None:
        reader = ReplyReader(method, body_limit=POOL_BODY_LIMIT if lane is Lane.POOL else ORDER_BODY_LIMIT)

        def read(chunk: bytes) -> None:
            if text := reader.feed(chunk):
                take(text)

        await self._transport.exchange(method, body, read)
        reader.close()


def _without(error: OpenNebulaError, session: str) -> OpenNebulaError:
    """Take the session string out of an error's text, should a server send it back."""
    for secret in (session, session.partition(":")[2]):
        if secret:
            error.message = error.message.replace(secret, "(hidden)")
    error.args = (f"{error.method}: {error.message}",)
    return error
