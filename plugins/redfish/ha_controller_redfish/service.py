"""Carries requests to one BMC over HTTPS and turns everything that goes wrong into a `FenceError`.

One connection per call, closed at its end, also when cancelled: BMCs have few, and none goes stale. Basic
authentication with each request leaves no session behind. Redirects are not followed, so that the password goes
nowhere else. The certificate is verified before anything is sent, by a CA or by its fingerprint.
"""

from __future__ import annotations

import json
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
from yarl import URL

from ha_controller.plugin import AccessDenied, FenceError, Rejected, Unreachable, one_line
from ha_controller.resolver import Resolver
from ha_controller_redfish.documents import Document, said

Trust = ssl.SSLContext | aiohttp.Fingerprint | bool  #: what aiohttp verifies a certificate by
ANSWER_BYTES_MAX: Final = 2_000_000
SILENCE_MAX_S: Final = 30.0  #: for a call without a deadline of its own
#: the order was refused as such
_NOTHING_DONE: Final = frozenset({400, 405, 406, 409, 411, 413, 415, 501})


class NotFound(Rejected):
    """The BMC does not know the path."""


class WantsETag(Rejected):
    """The BMC takes the order only with the ETag of what is changed (412, 428)."""


class Busy(Rejected):
    """The BMC has no room now (429, 503); a later try can succeed."""

    retryable = True


class UntrustedCertificate(AccessDenied):
    """The certificate is not the one that was expected; nothing was sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """Where the BMC is and who we are there."""

    address: str
    port: int
    username: str
    password: str = field(repr=False)

    @property
    def name(self) -> str:
        """For people."""
        return f"BMC {self.address} port {self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back."""

    status: int
    document: Document
    etag: str | None
    location: str | None


class Service:
    """One BMC's Redfish service, for the length of one call."""

    def __init__(self, login: Login, session: aiohttp.ClientSession, trust: Trust):
        """The session belongs to the caller."""
        self._login = login
        self._session = session
        self._trust = trust
        self._headers = {
            "Authorization": aiohttp.encode_basic_auth(login.username, login.password),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "OData-Version": "4.0",
        }

    async def get(self, path: str) -> Answer:
        """Read a document.

        Raises:
            Rejected: there is no such document (`NotFound`), or it is not given.
            FenceError: it could not be read.
        """
        return await self._request("GET", path)

    async def post(self, path: str, body: Mapping[str, Any], etag: str | None = None) -> Answer:
        """Give an order.

        Raises:
            AccessDenied, Rejected: nothing was done.
            FenceError: the outcome is unknown.
        """
        return await self._request("POST", path, body, {} if etag is None else {"If-Match": etag})

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        url = URL.build(scheme="https", host=self._login.address, port=self._login.port).join(URL(path, encoded=True))
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                headers={**self._headers, **(headers or {})},
                ssl=self._trust,
                allow_redirects=False,
            ) as response:
                raw = await _read(response)
        except aiohttp.ServerFingerprintMismatch:
            raise UntrustedCertificate(f"{self._login.name} shows another certificate than the pinned one") from None
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "") or "not valid"
            raise UntrustedCertificate(f"{self._login.name}: its certificate is not trusted: {why}") from None
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"{self._login.name}: {error.strerror or error.os_error}") from None
        except TimeoutError:
            raise Unreachable(f"{self._login.name}: no answer") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            raise Unreachable(f"{self._login.name}: the connection broke ({type(error).__name__})") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise FenceError(f"{self._login.name}: no proper HTTP answer ({type(error).__name__})") from None
        return self._judged(method, path, response, raw)

    def _judged(self, method: str, path: str, response: aiohttp.ClientResponse, raw: bytes) -> Answer:
        document, status = self._document(raw), response.status
        if status in (200, 201, 202, 204):
            if document is None and (raw or method == "GET"):
                raise FenceError(f"{self._login.name}: {path} is no JSON object")
            return Answer(
                status=status,
                document=document or {},
                etag=response.headers.get("ETag"),
                location=response.headers.get("Location"),
            )
        words = one_line(said(document), self._login.password)  # a device may quote what it was sent
        text = f"{self._login.name}: HTTP {status} to {method} {path}" + (f": {words}" if words else "")
        if status in (401, 403):
            raise AccessDenied(text)
        if status == 404:
            raise NotFound(text)
        if status in (412, 428):
            raise WantsETag(text)
        if status == 429 or (status == 503 and method == "GET"):
            raise Busy(text)  # to an order, 503 may come from a proxy whose back end took it
        if status in _NOTHING_DONE or 300 <= status < 400:
            raise Rejected(text)
        raise FenceError(text)

    @staticmethod
    def _document(raw: bytes) -> Document | None:
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body; raises ValueError for one that is too long."""
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > ANSWER_BYTES_MAX:
            raise ValueError("too long")
    if response.headers.get("Content-Encoding", "identity") not in ("gzip", "x-gzip"):
        return bytes(raw)
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # some BMCs compress although nobody wants it
    try:
        unpacked = unpacker.decompress(raw, ANSWER_BYTES_MAX)
    except zlib.error as error:
        raise ValueError("broken gzip") from error
    if not unpacker.eof:
        raise ValueError("too long, or cut off")
    return unpacked


@asynccontextmanager
async def open_service(login: Login, trust: Trust) -> AsyncIterator[Service]:
    """Lend the service of a BMC; its connection is closed at the end. Nothing is sent before the first request."""
    connector = aiohttp.TCPConnector(limit=1, resolver=Resolver())
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_MAX_S, sock_read=SILENCE_MAX_S)
    session = aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )  # unpacked here, within a bound
    try:
        yield Service(login, session, trust)
    finally:
        with anyio.CancelScope(shield=True):
            await session.close()


def trust_in(ca_file: Path | None, fingerprint: str | None) -> Trust:
    """Return what aiohttp verifies the certificate by: this fingerprint, these CAs, or the system's CAs."""
    if fingerprint is not None:
        return aiohttp.Fingerprint(bytes.fromhex(fingerprint))
    if ca_file is not None:
        return ssl.create_default_context(cafile=str(ca_file))
    return True
