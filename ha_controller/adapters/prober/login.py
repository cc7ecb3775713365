"""What the channels have in common that log in to hosts over SSH: their settings, and how hard they may press.

A login costs the controller about 6 ms of its CPU, and the host a process or two. So hosts are asked slowly in peace,
and so many logins a second are begun at most, suspects apart from the others: with more hosts than that allows, each is
asked less often, and nothing else suffers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, field_validator

from ha_controller.adapters.prober.channel import AsyncProbe, AsyncProbeConfig
from ha_controller.adapters.ssh_login import SshLogin, run_command
from ha_controller.plugin import ProbeContext, SlowProbeConfig, Target


class LoginConfig(AsyncProbeConfig):
    """How to log in to hosts."""

    username: Annotated[str, Field(min_length=1)]
    key_file: Path
    known_hosts: Path
    port: Annotated[int, Field(ge=1, le=65535)] = 22

    @field_validator("key_file", "known_hosts")
    @classmethod
    def _is_a_file(cls, path: Path) -> Path:
        if not path.is_file():
            raise ValueError("no such file")
        return path

    @property
    def login(self) -> SshLogin:
        """The same, for `run_command`."""
        return SshLogin(username=self.username, key_file=self.key_file, known_hosts=self.known_hosts, port=self.port)


class SlowLoginConfig(LoginConfig, SlowProbeConfig):
    """How to log in to every host again and again."""

    at_once: Annotated[int, Field(ge=1, le=1024)] = 32  #: logins under way; suspects have as many on top
    logins_per_s: Annotated[float, Field(gt=0, le=1000)] = 20.0  #: begun at most; suspects have as many on top


SlowLoginConfigT = TypeVar("SlowLoginConfigT", bound=SlowLoginConfig)


class SlowLoginProbe(AsyncProbe[SlowLoginConfigT]):
    """Base of channels that run one command on every host."""

    def __init__(self, config: SlowLoginConfigT, context: ProbeContext) -> None:
        super().__init__(config, context, per_s=config.logins_per_s)

    async def run(self, target: Target, command: str) -> str:
        """Log in and run it; returns what it printed. Raises LoginFailed, which the channel's base makes UNKNOWN."""
        said = await run_command(self.config.login, target.address, command, timeout_s=self.config.timeout_s)
        return said.text
