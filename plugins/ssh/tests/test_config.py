"""Settings of the SSH agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ha_controller_ssh import SshAgent, SshConfig
from pydantic import ValidationError

from ha_controller.plugin import Capability, PowerState


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "known_hosts").touch()
    return {"address": "192.0.2.1", "known_hosts": str(tmp_path / "known_hosts"), "password": "secret-7"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"known_hosts": "/no/such/file"}, "no such file"),
        ({"key_file": "/no/such/file"}, "no such file"),
        ({"password": None}, "key_file or a password"),
        ({"command": ""}, "at least 1"),
        ({"known_host": "x"}, "Extra inputs"),
    ],
)
def test_wrong_settings_are_told(good: dict[str, Any], changes: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words) as raised:
        SshConfig.model_validate(good | changes)
    assert "secret-7" not in str(raised.value)


def test_host_keys_cannot_be_left_unverified(good: dict[str, Any]):
    good.pop("known_hosts")
    with pytest.raises(ValidationError, match="known_hosts"):
        SshConfig.model_validate(good)


async def test_it_proves_nothing(good: dict[str, Any]):
    agent = SshAgent(SshConfig.model_validate(good))
    assert await agent.power_state() is PowerState.UNKNOWN
    assert Capability.READ_POWER not in agent.capabilities
