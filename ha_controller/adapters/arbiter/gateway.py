"""A small client of etcd's v3 JSON gateway: several endpoints, TLS, users, a deadline for every call.

Every read is linearizable: a quorum stands behind it. A call without an answer has an unknown outcome, and writes are
never sent twice: whoever calls reads back. Numbers of 64 bits are texts in etcd's JSON, keys and values are base64.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import anyio
from pydantic import SecretStr

from ha_controller.plugin import ArbiterUnreachable, one_line

Json = dict[str, Any]
T = TypeVar("T")

UNAUTHENTICATED, INVALID, NOT_FOUND = 16, 3, 5  #: gRPC status codes
_ANSWER_BYTES_MAX = 1 << 20
_PAGE_KEYS, _PAGE_BYTES_MAX = 32, 1 << 24  #: of `read_all`: what one transaction may write fits often enough
#: what reading an answer raises that is none of etcd's
_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Refused(ArbiterUnreachable):
    """etcd answered and did nothing: a bad request, a missing right, no space. Another endpoint would say the same."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"etcd refuses: {text}")
        self.code = code
        self.text = text


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A key as a quorum holds it."""

    value: str
    mod_revision: int
    lease: int


@dataclass(kw_only=True)
class Gateway:
    """Asks one endpoint at a time; the one that answered last is asked first."""

    endpoints: Sequence[str]
    timeout_s: float  #: of one try at one endpoint
    deadline_s: float  #: of a call
    username: str = ""
    password: SecretStr = field(default=SecretStr(""))
    tls: ssl.SSLContext | None = None
    cluster: str = ""  #: number of the etcd that answered the last `read`; another one when its data is another's
    _first: int = 0
    _token: str = field(default="", repr=False)
    _session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # --- calls ---

    async def read(self, key: str) -> Kept | None:
        """What a quorum holds under a key now; None: nothing."""

        def read(answer: Json) -> tuple[str, Kept | None]:
            found = _kept(answer)
            return str(_inner(answer, "header").get("cluster_id", "")), found[0][1] if found else None

        self.cluster, found = await self._call("/v3/kv/range", {"key": _packed(key)}, read)
        return found

    async def read_all(self, prefix: str) -> list[tuple[str, Kept]]:
        """All keys below a prefix, in their order, page by page: others may write meanwhile."""
        after = _packed(prefix[:-1] + chr(ord(prefix[-1]) + 1))
        found: list[tuple[str, Kept]] = []
        begin, more = _packed(prefix), True
        while more:
            body = {"key": begin, "range_end": after, "limit": str(_PAGE_KEYS)}
            page, more = await self._call("/v3/kv/range", body, _page)
            found += page
            begin = _packed(page[-1][0] + "\0") if page else after
        return found

    async def grant(self, ttl_s: int) -> int:
        """A new lease. One whose answer is lost ends by itself."""
        return await self._call("/v3/lease/grant", {"TTL": str(ttl_s)}, lambda answer: int(answer["ID"]))

    async def keep_alive(self, lease: int) -> bool:
        """Prolong a lease; False if there is none any more (etcd answers 200 without a TTL then)."""

        def lives(answer: Json) -> bool:
            return int(_inner(answer, "result").get("TTL", 0)) > 0

        return await self._call("/v3/lease/keepalive", {"ID": str(lease)}, lives)

    async def revoke(self, lease: int) -> None:
        """End a lease, and delete what hangs on it."""
        await self._call("/v3/lease/revoke", {"ID": str(lease)}, bool)

    async def put(self, key: str, value: str, lease: int) -> None:
        """Write a key, whatever is there."""
        body = {"key": _packed(key), "value": _packed(value), "lease": str(lease)}
        await self._call("/v3/kv/put", body, bool, once=True)

    async def put_if(self, expected: Mapping[str, int | str], values: Mapping[str, tuple[str, int] | None]) -> bool:
        """Write keys (value, lease; None deletes) if each expected one has that mod_revision (0: none) or value.

        Raises:
            Refused: nothing was written.
            ArbiterUnreachable: it may have been written, also later: read back.
        """
        compare = [
            {"key": _packed(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(wanted)}
            if isinstance(wanted, int)
            else {"key": _packed(key), "target": "VALUE", "result": "EQUAL", "value": _packed(wanted)}
            for key, wanted in expected.items()
        ]
        success = [
            {"request_delete_range": {"key": _packed(key)}}
            if wanted is None
            else {"request_put": {"key": _packed(key), "value": _packed(wanted[0]), "lease": str(wanted[1])}}
            for key, wanted in values.items()
        ]

        def done(answer: Json) -> bool:
            return answer.get("succeeded") is True

        return await self._call("/v3/kv/txn", {"compare": compare, "success": success}, done, once=True)

    # --- below ---

    async def _call(self, path: str, body: Json, read: Callable[[Json], T], *, once: bool = False) -> T:
        """Ask until an endpoint answers, within the deadline. `once`: not again when it may have been taken in.

        An answer that `read` cannot read is none: whatever else is behind that address, it is not etcd.
        """
        last = "no answer"
        with anyio.move_on_after(self.deadline_s):
            for _ in range(2 * len(self.endpoints)):
                endpoint = self.endpoints[self._first % len(self.endpoints)]
                try:
                    with anyio.fail_after(self.timeout_s):
                        return read(await self._authenticated(endpoint, path, body))
                except Refused:
                    raise
                except (ArbiterUnreachable, TimeoutError, aiohttp.ClientError, OSError, *_NONSENSE) as error:
                    last = f"{endpoint}: {_told(error, self.timeout_s)}"
                    self._first += 1
                    if once and not isinstance(error, aiohttp.ClientConnectorError):
                        break
        raise ArbiterUnreachable(f"etcd does not answer: {last}")

    async def _authenticated(self, endpoint: str, path: str, body: Json) -> Json:
        """Log in when it is needed; a token that is not known any more is replaced once."""
        if not self.username:
            return await self._post(endpoint, path, body)
        if self._token:
            try:
                return await self._post(endpoint, path, body)
            except Refused as error:
                if not _asks_for_login(error):
                    raise
        self._token = ""
        login = {"name": self.username, "password": self.password.get_secret_value()}
        self._token = str((await self._post(endpoint, "/v3/auth/authenticate", login))["token"])
        return await self._post(endpoint, path, body)

    async def _post(self, endpoint: str, path: str, body: Json) -> Json:
        """One request, one answer.

        Raises:
            Refused: etcd says no for good.
            ArbiterUnreachable: this endpoint cannot tell; another one may.
        """
        headers = {"Authorization": self._token} if self._token else {}
        status, raw = await self._exchanged(endpoint.rstrip("/") + path, body, headers)
        text = raw.decode()
        if status >= 300 and not text.lstrip().startswith("{"):
            raise ArbiterUnreachable(f"HTTP {status}: {one_line(text, self._secret(), self._token)}")
        answer = json.loads(text)
        if not isinstance(answer, dict):
            raise ArbiterUnreachable("not an answer of etcd's gateway")
        if status >= 300 or "error" in answer:
            raise self._error(answer)
        return answer

    async def _exchanged(self, url: str, body: Json, headers: Mapping[str, str]) -> tuple[int, bytes]:
        async with self._opened().post(url, json=body, headers=headers, allow_redirects=False) as response:
            return response.status, await _whole(
                response.content, _PAGE_BYTES_MAX if "limit" in body else _ANSWER_BYTES_MAX
            )

    def _error(self, answer: Json) -> ArbiterUnreachable:
        inner = answer["error"] if isinstance(answer.get("error"), dict) else answer
        code = int(inner.get("code", inner.get("grpc_code", 2)) or 2)
        text = one_line(str(inner.get("message") or inner.get("error") or "no reason"), self._secret(), self._token)
        # 2 unknown, 4 deadline, 13 internal, 14 unavailable (no leader, lost while waiting): another may know more
        return ArbiterUnreachable(text) if code in (1, 2, 4, 10, 13, 14) else Refused(code, text)

    def _secret(self) -> str:
        return self.password.get_secret_value()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=True if self.tls is None else self.tls, limit=16)
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,  # a small answer could unpack to any size
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
            )
        return self._session


async def _whole(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """The answer to its end or the bound: one `read` gives what has arrived so far."""
    found = bytearray()
    while len(found) < bytes_max and (piece := await content.read(bytes_max - len(found))):
        found += piece
    return bytes(found)


def _asks_for_login(error: Refused) -> bool:
    """A restarted member knows no tokens, and one from before a change of users is too old (seen: etcd 3.4)."""
    return error.code == UNAUTHENTICATED or (error.code == INVALID and "revision" in error.text)


def _told(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, _NONSENSE):
        return f"not an answer of etcd's gateway ({type(error).__name__})"
    return one_line(str(error)) or type(error).__name__


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _inner(answer: Json, name: str) -> Json:
    found = answer.get(name)
    if not isinstance(found, dict):
        raise ArbiterUnreachable("not an answer of etcd's gateway")
    return found


def _kept(answer: Json) -> list[tuple[str, Kept]]:
    return [
        (
            base64.b64decode(found["key"]).decode(),
            Kept(
                value=base64.b64decode(found.get("value", "")).decode(),
                mod_revision=int(found["mod_revision"]),
                lease=int(found.get("lease", 0)),
            ),
        )
        for found in answer.get("kvs", [])
    ]


def _page(answer: Json) -> tuple[list[tuple[str, Kept]], bool]:
    """Keys, and whether there are more of them."""
    return _kept(answer), bool(answer.get("more")) and bool(answer.get("kvs"))
