"""A folder with a configuration and its secrets, as on an operator's machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import Field, SecretStr, field_validator

from ha_controller.adapters.arbiter.etcd import EtcdConfig
from ha_controller.adapters.arbiter.opennebula import OpenNebulaConfig
from ha_controller.adapters.arbiter.single import SingleConfig
from ha_controller.config import Config, ConfigError, Problem, load
from ha_controller.plugin import AgentConfig, NotifierConfig, ProbeConfig


class BmcConfig(AgentConfig):
    """Shaped like the settings of the IPMI agent."""

    address: str
    port: int = Field(623, ge=1, le=65535)
    username: str
    password: SecretStr
    kg: SecretStr | None = None
    timeout_s: float = Field(1.0, gt=0)  # beside the key `timeout` that every device has
    zones: list[str] = Field(default_factory=list)

    @field_validator("password")
    @classmethod
    def _is_short(cls, password: SecretStr) -> SecretStr:
        if len(password.get_secret_value()) > 20:
            raise ValueError(f"{password.get_secret_value()} is too long. At most 20 bytes")  # a careless plugin
        return password


class BrokenConfig(AgentConfig):
    """Of a plugin with a bug in its check."""

    password: SecretStr

    @field_validator("password")
    @classmethod
    def _falls_over(cls, password: SecretStr) -> SecretStr:
        raise TypeError(f"cannot handle {password.get_secret_value()}")


class PortConfig(ProbeConfig):
    port: int = Field(22, ge=1, le=65535)
    token: SecretStr | None = None


class PagerConfig(NotifierConfig):
    key: SecretStr


AGENTS = {"ipmi": BmcConfig, "broken": BrokenConfig}
ARBITERS = {"single": SingleConfig, "etcd": EtcdConfig, "opennebula": OpenNebulaConfig}
NOTIFIERS = {"pager": PagerConfig}
CHANNELS = {"icmp": ProbeConfig, "ssh": PortConfig, "bmc": ProbeConfig, "oned": ProbeConfig}


@dataclass(frozen=True)
class Site:
    """Writes files, loads them, and tells the problems as an operator sees them."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "config.toml"

    @property
    def good(self) -> str:
        """A complete configuration of 11 lines; its last table is the fence device."""
        return f"""\
mode = "auto"
[opennebula]
auth = {{ file = "{self.folder}/one_auth" }}
[guard]
self_check = ["192.0.2.1"]
[[fence]]
name = "bmc"
agent = "ipmi"
address = "{{FENCE_IP}}"
username = "admin"
password = {{ file = "{self.folder}/bmc" }}
"""

    def secret(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def write(self, text: str, name: str = "config.toml") -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())

    def load(self, text: str | None = None, environ: Mapping[str, str] | None = None) -> Config:
        if text is not None:
            self.write(text)
        return load(
            self.path, environ=environ or {}, agents=AGENTS, channels=CHANNELS, arbiters=ARBITERS, notifiers=NOTIFIERS
        )

    def problems(self, text: str | None = None, environ: Mapping[str, str] | None = None) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ)
        return caught.value.problems

    def told(self, text: str | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
        return [str(problem) for problem in self.problems(text, environ)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.secret("one_auth", "oneadmin:opennebula\n")
    made.secret("bmc", "hunter2\n")
    return made


@pytest.fixture
def search_path() -> str:
    """Of this process, for commands that are run by name."""
    return os.environ["PATH"]
