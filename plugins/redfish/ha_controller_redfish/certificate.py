"""Looks at the certificate that a BMC shows: its fingerprint, to be pinned, and its end.

Sends nothing but the handshake.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from datetime import datetime

import anyio
from anyio.streams.tls import TLSAttribute
from cryptography import x509

from ha_controller.plugin import Unreachable, addresses_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What a BMC shows."""

    fingerprint: str  #: SHA-256, as hexadecimal digits
    ends: datetime | None  #: None when it cannot be read


async def shown_certificate(address: str, port: int) -> Certificate:
    """Connect, take the certificate, whoever signed it, and go.

    Raises:
        Unreachable: there is none to be had.
    """
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        literal = (await addresses_of(address, port))[0][1][0]
        connection = await anyio.connect_tcp(literal, port, ssl_context=anyone, tls_standard_compatible=False)
        try:
            raw = connection.extra(TLSAttribute.peer_certificate_binary)
        finally:
            await anyio.aclose_forcefully(connection)
    except (OSError, ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise Unreachable(f"BMC {address} port {port}: shows no certificate ({type(error).__name__})") from None
    if raw is None:
        raise Unreachable(f"BMC {address} port {port}: shows no certificate")
    return Certificate(fingerprint=hashlib.sha256(raw).hexdigest().upper(), ends=_end_of(raw))


def _end_of(raw: bytes) -> datetime | None:
    try:
        return x509.load_der_x509_certificate(raw).not_valid_after_utc
    except ValueError:
        return None
