"""E-mail for ha-controller: registers `Email` under the kind `email`."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import aiosmtplib
import anyio.to_thread
from pydantic import Field, SecretStr

from ha_controller.plugin import (
    FenceError,
    Message,
    NotDelivered,
    Notifier,
    NotifierConfig,
    Undeliverable,
    addresses_of,
    hookimpl,
    one_line,
)

SUBJECT_MAX = 120
SOCKET_S = 10.0
Address = Annotated[str, Field(pattern=r"^[^\s@<>,;]+@[^\s@<>,;]+$")]


class EmailConfig(NotifierConfig):
    """The mail server, and who gets the mails."""

    server: str = Field("localhost", min_length=1)
    port: int = Field(25, ge=1, le=65535)
    tls: Literal["starttls", "always", "never"] = Field(
        "starttls", description="never: neither mails nor the login are protected; for a server on this machine"
    )
    username: str = ""
    password: SecretStr | None = None
    sender: Address
    to: Annotated[tuple[Address, ...], Field(min_length=1)]
    ca_file: Path | None = Field(None, description="CAs to trust in place of the system's")


class Email(Notifier[EmailConfig]):
    """Sends mails, one thread for each incident."""

    kind = "email"
    config_model = EmailConfig

    def __init__(self, config: EmailConfig, source: str) -> None:
        """Keep the settings."""
        super().__init__(config, source)
        self._trust: ssl.SSLContext | None = None

    async def tell(self, message: Message) -> None:
        """Send it over a connection of its own."""
        config = self.config
        secret = config.password.get_secret_value() if config.password is not None else ""
        try:
            server = aiosmtplib.SMTP(
                hostname=config.server,
                sock=await self._connected(),
                timeout=SOCKET_S,
                use_tls=config.tls == "always",
                start_tls=config.tls == "starttls",
                tls_context=await self._trusted(),
            )
            async with server:
                if config.password is not None:
                    await server.login(config.username, secret)
                await server.send_message(self.mail(message))
        except FenceError as error:  # of the lookup
            raise NotDelivered(one_line(str(error))) from None
        except aiosmtplib.SMTPException as error:
            raise _problem(error, secret) from None
        except (OSError, ssl.SSLError) as error:
            raise NotDelivered(f"{config.server}:{config.port}: {one_line(str(error), secret)}") from None

    async def _connected(self) -> socket.socket:
        """A connection to the first address that takes one; looked up where a hung lookup stops no other one."""
        failure: OSError | None = None
        for family, address in await addresses_of(self.config.server, self.config.port):
            connection = socket.socket(family)
            connection.setblocking(False)
            with ExitStack() as unless_connected:
                unless_connected.callback(connection.close)
                try:
                    await asyncio.get_running_loop().sock_connect(connection, address)
                except OSError as error:
                    failure = error
                    continue
                unless_connected.pop_all()
                return connection
        raise failure or OSError("it has no address")

    async def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            # reading the system's authorities takes tens of milliseconds: not on the loop
            ca_file = None if self.config.ca_file is None else str(self.config.ca_file)
            self._trust = await anyio.to_thread.run_sync(partial(ssl.create_default_context, cafile=ca_file))
        return self._trust

    def mail(self, message: Message) -> EmailMessage:
        """The mail as it is sent."""
        mail = EmailMessage()
        first, _, more = message.text.partition("\n")
        mail["Subject"] = f"[ha-controller] {message.severity.upper()} {one_line(first, characters_max=SUBJECT_MAX)}"
        mail["From"] = self.config.sender
        mail["To"] = ", ".join(self.config.to)
        mail["Date"] = format_datetime(datetime.fromtimestamp(message.at, UTC))
        mail["Message-ID"] = make_msgid(domain=self._domain())
        mail["Auto-Submitted"] = "auto-generated"
        if message.incident is not None:
            # of a mail that need not exist: what refers to the same one is one thread
            mail["References"] = f"<incident.{message.incident}.ha-controller@{self._domain()}>"
        about = [f"Controller: {self.source}"]
        about += [f"Host: {message.host}"] if message.host else []
        about += [f"Incident: {message.incident}  (ha-controller incidents show {message.incident})"] * bool(
            message.incident
        )
        about += [f"Audit trail: {message.trail}"] if message.trail else []
        mail.set_content("\n".join([first, *more.splitlines(), "", message.next_step, "", *about]) + "\n")
        return mail

    def _domain(self) -> str:
        return re.sub(r"[^A-Za-z0-9.-]", "-", self.source) or "ha-controller"


def _problem(error: aiosmtplib.SMTPException, secret: str) -> NotDelivered:
    """A reply of 5xx is for good (RFC 5321, 4.2.1)."""
    final = isinstance(error, aiosmtplib.SMTPResponseException) and 500 <= error.code < 600
    final = final or isinstance(error, aiosmtplib.SMTPRecipientsRefused)
    return (Undeliverable if final else NotDelivered)(f"{type(error).__name__}: {one_line(str(error), secret)}")


@hookimpl
def ha_controller_notifiers() -> Sequence[type[Notifier[Any]]]:
    """Register the notifier."""
    return [Email]
