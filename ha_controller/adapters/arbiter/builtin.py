"""Registers the arbiters that come with the controller, through the same hook as anybody else's. Does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.adapters.arbiter.etcd import EtcdArbiter
from ha_controller.adapters.arbiter.opennebula import OpenNebulaArbiter
from ha_controller.adapters.arbiter.single import SingleArbiter
from ha_controller.plugin import Arbiter, hookimpl


@hookimpl
def ha_controller_arbiters() -> Sequence[type[Arbiter[Any]]]:
    """Return the built-in arbiter classes."""
    return [SingleArbiter, EtcdArbiter, OpenNebulaArbiter]
