"""The API over TLS: a client verifies what the configuration names; a key that everybody may read is refused."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ha_controller.app.people import tcp_of
from ha_controller.config import Api
from tests.app.api_door import opened


def certificate(folder: Path) -> tuple[Path, Path]:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one-1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "tls.crt", folder / "tls.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    key_file.chmod(0o640)
    return cert_file, key_file


async def test_a_client_that_verifies_the_certificate_is_answered_and_a_plain_one_is_not(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    tcp = tcp_of(Api.model_validate({"listen": "127.0.0.1:9931", "tls_cert": cert, "tls_key": key}))
    assert tcp is not None
    assert tcp.tls is not None
    assert tcp.tls.minimum_version == ssl.TLSVersion.TLSv1_2
    trusted = ssl.create_default_context(cafile=str(cert))
    async with opened(tmp_path, tls=tcp.tls) as door, aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{door.port}/api/v1/session"
        body = {"user": "anna", "password": "anna-secret"}
        async with session.post(url, json=body, ssl=trusted) as answer:
            assert answer.status == 200
            assert "; Secure" in answer.headers["Set-Cookie"]
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http"))


def test_a_key_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    key.chmod(0o644)
    with pytest.raises(OSError, match="chmod o-rwx"):
        tcp_of(Api.model_validate({"listen": "127.0.0.1:9931", "tls_cert": cert, "tls_key": key}))
