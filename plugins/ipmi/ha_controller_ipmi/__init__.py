"""The IPMI fence agent of ha-controller: registers `IpmiAgent` under the kind `ipmi`.

Imported once, at start, and only when the configuration names the kind. It never touches the network: everything that
does lives in `agent` (what is asked of a BMC), `session` (one login over asyncio) and `rmcp` (the protocol).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.plugin import FenceAgent, hookimpl
from ha_controller_ipmi.agent import IpmiAgent, IpmiConfig

__all__ = ["IpmiAgent", "IpmiConfig", "ha_controller_fence_agents"]


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent class of this plugin."""
    return [IpmiAgent]
