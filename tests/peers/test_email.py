"""Mails to a real SMTP server (aiosmtpd), over TLS and without, and to servers that refuse or are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from ha_controller_email import Email, EmailConfig
from peers.certificates import Certificate, self_signed
from pydantic import ValidationError

from ha_controller.plugin import Message, NotDelivered, Undeliverable


def message(text: str = "kvm-07 has FAILED", **changes: Any) -> Message:
    values = {"at": 1_790_000_000.0, "severity": "critical", "host": "kvm-07", "incident": 3}
    return Message(**{**values, "text": text, "next_step": "Nothing for you to do.", **changes})


@dataclass
class Box:
    reply: str = "250 taken"
    mails: list[Any] = field(default_factory=list)
    port: int = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        return self.reply


def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    good = (data.login, data.password) == (b"ha", b"s3cret")
    return AuthResult(success=good, handled=False)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "mail")


@pytest.fixture
async def box(certificate: Certificate) -> AsyncIterator[Box]:
    found = Box()
    context = certificate.server_context()

    def speak() -> SMTP:
        return SMTP(found, hostname="mail", tls_context=context, authenticator=login, auth_require_tls=True)

    server = await asyncio.get_running_loop().create_server(speak, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()


def email(box: Box, **settings: Any) -> Email:
    config = {"server": "127.0.0.1", "port": box.port, "sender": "ha@example.org", "to": ["a@example.org"], **settings}
    return Email(EmailConfig.model_validate(config), "one-1")


@pytest.fixture
def protected(certificate: Certificate) -> dict[str, Any]:
    return {"ca_file": certificate.cert, "username": "ha", "password": "s3cret"}


async def test_mails_of_an_incident_are_one_thread(box, protected):
    notifier = email(box, **protected)
    await notifier.tell(message())
    await notifier.tell(message("kvm-07 is RECOVERED", severity="info", ends=True))
    first, second = box.mails
    assert first["Subject"] == "[ha-controller] CRITICAL kvm-07 has FAILED"
    assert first["References"] == second["References"]
    assert first["Message-ID"] != second["Message-ID"]
    assert "Nothing for you to do." in first.get_content()
    assert "ha-controller incidents show 3" in first.get_content()


async def test_names_with_line_ends_make_no_headers(box, protected):
    await email(box, **protected).tell(message("evil\r\nBcc: x@example.org\r\n\r\nhas FAILED"))
    [mail] = box.mails
    assert mail["Bcc"] is None
    assert "Bcc: x@example.org" in mail.get_content()


async def test_a_server_that_is_not_trusted_gets_neither_mail_nor_password(box, protected):
    with pytest.raises(NotDelivered, match="certificate") as caught:
        await email(box, **{**protected, "ca_file": None}).tell(message())
    assert box.mails == []
    assert "s3cret" not in str(caught.value)


async def test_a_wrong_password_is_refused_for_good(box, protected):
    with pytest.raises(Undeliverable) as caught:
        await email(box, **{**protected, "password": "wr0ng"}).tell(message())
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize(("reply", "final"), [("451 later", False), ("550 no such user", True)])
async def test_a_reply_of_5_is_for_good(box, protected, reply, final):
    box.reply = reply
    with pytest.raises(NotDelivered) as caught:
        await email(box, **protected).tell(message())
    assert isinstance(caught.value, Undeliverable) is final


async def test_without_protection_when_that_is_asked_for(box):
    await email(box, tls="never").tell(message(incident=None))
    assert box.mails[0]["References"] is None


async def test_a_server_that_is_gone_is_told(box):
    with pytest.raises(NotDelivered, match=r"127\.0\.0\.1:9") as caught:
        await email(box, port=9).tell(message())
    assert caught.value.retryable
    with pytest.raises(NotDelivered, match="cannot be resolved"):
        await email(box, server="mail.invalid").tell(message())


@pytest.mark.parametrize("to", [[], ["nobody"], ["a@b, c@d"], ["a@b\nBcc: c@d"]])
def test_what_is_no_address_is_refused(box, to):
    with pytest.raises(ValidationError):
        email(box, to=to)
