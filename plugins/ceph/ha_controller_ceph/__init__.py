"""The Ceph fence agent of ha-controller: registers `CephAgent` under the kind `ceph`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.plugin import FenceAgent, hookimpl
from ha_controller_ceph.agent import CephAgent, CephConfig

__all__ = ["CephAgent", "CephConfig", "ha_controller_fence_agents"]


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent class of this plugin."""
    return [CephAgent]
