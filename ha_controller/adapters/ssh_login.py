"""Logs in to a host over SSH and runs one command: the way in that channels and the host identity share.

The host's key is always verified, the user's own configuration and agent are never used, and a login ends without a
farewell that could be waited for. It never shows what a host said in an error: only what failed.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from ha_controller.plugin import FenceError

if TYPE_CHECKING:
    import asyncssh

OUTPUT_MAX: Final = 65536  #: characters; a host that says more is not listened to
CHUNK: Final = 4096


@dataclass(frozen=True, kw_only=True)
class SshLogin:
    """How to log in to hosts."""

    username: str
    key_file: Path
    known_hosts: Path  #: in the form of OpenSSH
    port: int = 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What became of a command."""

    text: str  #: standard output, at most OUTPUT_MAX characters
    status: int | None  #: None: it was ended by a signal, or the connection was lost


class LoginFailed(FenceError):
    """The host could not be asked: no connection, no login, another host's key. The text is one line."""


async def run_command(
    login: SshLogin,
    address: str,
    command: str,
    *,
    timeout_s: float,
    why_not: Callable[[], Awaitable[str]] | None = None,
) -> Output:
    """Log in to a literal address and run a command; a key may be bound to another one (a forced command).

    Args:
        why_not: asked once more when the login is done, which may take seconds: what it says keeps the command back.

    Raises:
        LoginFailed: the command was not run, or its end is not known.
    """
    import asyncssh  # a sixth of all imports: no host waits for it at a start. See app/warming.py

    try:
        with anyio.fail_after(timeout_s):
            connection = await asyncssh.connect(
                address,
                login.port,
                username=login.username,
                client_keys=[str(login.key_file)],
                known_hosts=str(login.known_hosts),
                config=None,
                agent_path=None,
                connect_timeout=timeout_s,
                login_timeout=timeout_s,
            )
            try:
                if why_not is not None and (why := await why_not()):
                    raise LoginFailed(f"not sent: {why}")
                return await _run(connection, command)
            finally:
                connection.abort()
    except (OSError, ValueError, asyncssh.Error) as error:
        raise LoginFailed(_reason(error, login)) from error


async def _run(connection: asyncssh.SSHClientConnection, command: str) -> Output:
    """A host that talks without end must not fill our memory: what is not read stays with it."""
    import asyncssh

    process = await connection.create_process(
        command, stdin=asyncssh.DEVNULL, stderr=asyncssh.DEVNULL, encoding="utf-8", errors="replace"
    )
    text = ""
    while chunk := str(await process.stdout.read(CHUNK)):
        text += chunk
        if len(text) > OUTPUT_MAX:
            raise LoginFailed("it does not stop talking")
    await process.wait(check=False)
    return Output(text=text, status=process.exit_status)


def _reason(error: Exception, login: SshLogin) -> str:
    """In words: what libraries say may quote what the host or a key file holds."""
    import asyncssh

    match error:
        case TimeoutError():
            return "no answer to the login in time"
        case asyncssh.HostKeyNotVerifiable():
            return "its host key is not the one in known_hosts"
        case asyncssh.PermissionDenied():
            return f"it refuses the login of {login.username}"
        case asyncssh.KeyImportError():
            return "the key cannot be used"
        case asyncssh.ConnectionLost():
            return "the connection was lost"
        case OSError(errno=int() as code):
            return os.strerror(code).lower()
    return f"cannot be asked ({type(error).__name__})"
