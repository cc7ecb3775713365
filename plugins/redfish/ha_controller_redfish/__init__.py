"""The Redfish fence agent of ha-controller: registers `RedfishAgent` under the kind `redfish`.

`agent` says what is asked of a BMC, `service` carries it over HTTPS, `documents` reads the answers and `certificate`
looks at the certificate that is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.plugin import FenceAgent, hookimpl
from ha_controller_redfish.agent import RedfishAgent, RedfishConfig

__all__ = ["RedfishAgent", "RedfishConfig", "ha_controller_fence_agents"]


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent class of this plugin."""
    return [RedfishAgent]
