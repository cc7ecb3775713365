"""The SSH fence agent: tells a host to power itself off. It helps where a host hangs half-way, and proves nothing.

It can never read the power: a host that cannot be reached is not off. Its order counts as accepted with exit status 0
only; a lost connection leaves the outcome unknown, although it is what a power-off looks like. The check logs in and
runs nothing, because a key may be bound to the power-off command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

import asyncssh
from pydantic import Field, SecretStr, field_validator, model_validator

from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    PowerState,
    Rejected,
    Unreachable,
    addresses_of,
    one_line,
)

SILENCE_MAX_S: Final = 30  #: for a call without a deadline of its own
KEEPALIVE_S: Final = 1.0
KEEPALIVES_LOST_MAX: Final = 3
_NOT_FOUND: Final = frozenset({126, 127})  #: of the shell: cannot be run, is not there


class SshConfig(AgentConfig):
    """How to log in to a host, and what to run there."""

    address: Annotated[str, Field(min_length=1, pattern=r"^\S+$")]  #: of the host itself
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    username: Annotated[str, Field(min_length=1)] = "root"
    password: SecretStr | None = None
    key_file: Path | None = None
    known_hosts: Path  #: in the form of OpenSSH; the host's key is always verified
    command: Annotated[str, Field(min_length=1)] = "poweroff -f"  #: hard: no shutdown of services
    check_command: str | None = None  #: run by the check, such as "sudo -n -l poweroff"; by default nothing is run

    @field_validator("key_file", "known_hosts")
    @classmethod
    def _is_a_file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("no such file")
        return path

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        if self.password is None and self.key_file is None:
            raise ValueError("a key_file or a password is needed")
        return self


class SshAgent(FenceAgent[SshConfig]):
    """Orders a host to power itself off, over SSH; never a proof by itself."""

    kind: ClassVar[str] = "ssh"
    config_model: ClassVar[type[AgentConfig]] = SshConfig
    capabilities = Capability(0)

    async def power_off(self) -> None:
        """Run the command; returns when it ended with status 0.

        Raises:
            AccessDenied, Rejected: nothing was done.
            FenceError: the outcome is unknown, also when the connection broke.
        """
        await self._run(self.config.command)

    async def power_state(self) -> PowerState:
        """Return UNKNOWN: over SSH a host can show life, and never its absence."""
        return PowerState.UNKNOWN

    async def check(self) -> CheckReport:
        """Log in, with the host's key verified. Runs nothing but `check_command`, if there is one.

        Raises:
            FenceError: the host did not answer, or is not the known one, or refused the login.
        """
        if self.config.check_command is not None:
            async with self._connection() as connection:
                done = await connection.run(self.config.check_command, check=False, stdin=asyncssh.DEVNULL)
            succeeded = done.exit_status == 0
            words = "succeeded" if succeeded else f"failed: {self._told(str(done.stderr or done.stdout or ''))}"
            return CheckReport(ok=succeeded, summary=f"logged in as {self.config.username}; check_command {words}")
        async with self._connection():
            pass
        text = f"logged in as {self.config.username}; whether it may power off is not checked (check_command)"
        return CheckReport(ok=True, summary=text)

    async def _run(self, command: str) -> None:
        async with self._connection() as connection:
            done = await connection.run(command, check=False, stdin=asyncssh.DEVNULL)
        if done.exit_status == 0:
            return
        name = self.config.address
        if done.exit_status is None or done.exit_signal is not None:
            raise Unreachable(f"{name}: the connection was lost after the command was sent; it may be going off")
        said = self._told(str(done.stderr or done.stdout or ""))
        text = f"{name}: the command ended with status {done.exit_status}: {said}"
        raise Rejected(text) if done.exit_status in _NOT_FOUND else FenceError(text)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Log in, and be gone at the end without a farewell that could be waited for."""
        config, name = self.config, f"{self.config.address} port {self.config.port}"
        # as known_hosts has it
        alias = config.address if config.port == 22 else f"[{config.address}]:{config.port}"
        try:
            connection = await asyncssh.connect(
                (await addresses_of(config.address, config.port))[0][1][0],
                config.port,
                host_key_alias=alias,
                username=config.username,
                password=None if config.password is None else config.password.get_secret_value(),
                client_keys=None if config.key_file is None else [str(config.key_file)],
                known_hosts=str(config.known_hosts),
                config=None,
                agent_path=None,
                connect_timeout=SILENCE_MAX_S,
                login_timeout=SILENCE_MAX_S,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=KEEPALIVES_LOST_MAX,
            )
            try:
                yield connection
            finally:
                connection.abort()
        except asyncssh.HostKeyNotVerifiable:
            raise AccessDenied(f"{name}: shows another host key than {config.known_hosts} has for it") from None
        except asyncssh.PermissionDenied:
            raise AccessDenied(f"{name}: refuses the login of {config.username}") from None
        except asyncssh.KeyImportError as error:
            raise AccessDenied(f"{name}: the key cannot be used: {self._told(str(error))}") from None
        except (asyncssh.ConnectionLost, TimeoutError) as error:
            raise Unreachable(f"{name}: {self._told(str(error)) or 'no answer'}") from None
        except OSError as error:
            raise Unreachable(f"{name}: {error.strerror or error}") from None
        except (asyncssh.Error, ValueError) as error:
            raise FenceError(f"{name}: {self._told(str(error))}") from None

    def _told(self, text: str) -> str:
        return one_line(text, "" if self.config.password is None else self.config.password.get_secret_value())
