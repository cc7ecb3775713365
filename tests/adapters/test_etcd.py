"""The arbiter for etcd where a real etcd cannot be made to behave so; the rest is tested with real ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest

from ha_controller.adapters.arbiter import etcd as arbiter_module
from ha_controller.adapters.arbiter.etcd import EtcdArbiter, EtcdConfig
from ha_controller.adapters.arbiter.gateway import Gateway, Kept
from ha_controller.plugin import ArbiterContext

# --- the list of members ----------------------------------------------------------------------------------------------


class Store:
    """An etcd of one member in memory, in which keys without a condition may hang."""

    def __init__(self) -> None:
        self.keys: dict[str, Kept] = {}
        self.cluster = "1"
        self.leases = 0
        self.hangs = False

    async def read(self, key: str) -> Kept | None:
        return self.keys.get(key)

    async def read_all(self, prefix: str) -> list[tuple[str, Kept]]:
        return [(key, kept) for key, kept in sorted(self.keys.items()) if key.startswith(prefix)]

    async def grant(self, ttl_s: int) -> int:
        self.leases += 1
        return self.leases

    async def keep_alive(self, lease: int) -> bool:
        return True

    async def revoke(self, lease: int) -> None:
        self.keys = {key: kept for key, kept in self.keys.items() if kept.lease != lease}

    async def put(self, key: str, value: str, lease: int) -> None:
        if self.hangs:
            await anyio.sleep_forever()
        self.keys[key] = Kept(value=value, mod_revision=1, lease=lease)

    async def put_if(self, expected: Mapping[str, int | str], values: Mapping[str, tuple[str, int] | None]) -> bool:
        for key, written in values.items():
            assert written is not None
            self.keys[key] = Kept(value=written[0], mod_revision=1, lease=written[1])
        return True


def arbiter(store: Store) -> EtcdArbiter:
    made = EtcdArbiter(
        EtcdConfig.model_validate({"endpoints": ["http://127.0.0.1:1"]}),
        ArbiterContext(name="one", instance="id-one", state_dir=Path("/nowhere"), last_term=lambda: 0),
    )
    made._gateway = made._record._gateway = store  # type: ignore[assignment]
    return made


async def test_a_list_of_members_that_cannot_be_written_takes_no_time_from_a_renewal(monkeypatch: pytest.MonkeyPatch):
    """A proven renewal was thrown away because the list, which is for people, was written in the same time."""
    monkeypatch.setattr(arbiter_module, "PRESENCE_S", 0)
    store = Store()
    one = arbiter(store)
    assert await one.acquire() == 1
    del store.keys["/ha-controller/members/id-one"]
    one._presence, store.hangs = None, True
    with anyio.fail_after(0.5):
        await one.renew(1)
    with anyio.fail_after(1.4):  # the leadership looks for 1.5 s
        assert [member.name for member in await one.members()] == ["one"]
    assert "/ha-controller/members/id-one" not in store.keys
    store.hangs = False
    await one.members()
    assert "/ha-controller/members/id-one" in store.keys, "one that could not be written is written later"


# --- answers ----------------------------------------------------------------------------------------------------------

BODY = json.dumps({"header": {}, "kvs": [{"key": "YQ==", "value": "Yg==", "mod_revision": "3"}]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@asynccontextmanager
async def member(*pieces: bytes) -> AsyncIterator[str]:
    """Answers each request in these pieces, one after the other; gives its address."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            for piece in pieces:
                await stream.send(piece)
                await anyio.wait_all_tasks_blocked()  # whoever reads has taken it in

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        group.cancel_scope.cancel()


async def test_an_answer_that_comes_in_pieces_is_an_answer():
    async with member(HEAD + BODY[:20], BODY[20:50], BODY[50:]) as address:
        gateway = Gateway(endpoints=[address], timeout_s=2, deadline_s=3)
        try:
            assert await gateway.read("a") == Kept(value="b", mod_revision=3, lease=0)
        finally:
            await gateway.close()
