"""The PDU fence agent of ha-controller: registers `PduAgent` under the kind `pdu`.

`agent` says what is asked of a PDU, `models` knows the makers' objects (from models.toml), `snmp` carries the requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.plugin import FenceAgent, hookimpl
from ha_controller_pdu.agent import PduAgent
from ha_controller_pdu.config import PduConfig

__all__ = ["PduAgent", "PduConfig", "ha_controller_fence_agents"]


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent class of this plugin."""
    return [PduAgent]
