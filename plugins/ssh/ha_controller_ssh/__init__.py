"""The SSH fence agent of ha-controller: registers `SshAgent` under the kind `ssh`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.plugin import FenceAgent, hookimpl
from ha_controller_ssh.agent import SshAgent, SshConfig

__all__ = ["SshAgent", "SshConfig", "ha_controller_fence_agents"]


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent class of this plugin."""
    return [SshAgent]
