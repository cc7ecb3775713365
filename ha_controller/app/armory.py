"""From the configuration and the inventory to fence devices and probe targets of each host.

Agents are built once for each set of settings and kept while these stay the same. A host whose attributes are missing
gets no device: the readiness guard then says so, by name.
"""

from __future__ import annotations

import fnmatch
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog
from pydantic import ValidationError

from ha_controller.adapters.fencer import Device, Fencer
from ha_controller.adapters.opennebula import OnedHost
from ha_controller.adapters.recoverer import FencePlan
from ha_controller.config import Config, FenceDevice, MissingAttribute
from ha_controller.core import model
from ha_controller.plugin import AgentConfig, Capability, FenceAgent, Target

log = structlog.get_logger(__name__)

ADDRESS = "HA_ADDRESS"  #: host attribute: the literal address to probe; without it the host's name is looked up
RESOLVE_TIMEOUT_S = 5.0


@dataclass
class Armory:
    """Builds the devices of each host."""

    config: Config
    agents: Mapping[str, type[FenceAgent[AgentConfig]]]
    fencer: Fencer
    problems: dict[tuple[int, str], str] = field(default_factory=dict)  #: (host, device) -> what is missing
    _built: dict[tuple[int, str], tuple[FenceDevice, dict[str, Any], Device]] = field(default_factory=dict)

    def equip(self, hosts: Sequence[OnedHost]) -> dict[int, FencePlan]:
        """Give every host its devices; returns the plans for the core."""
        self.problems.clear()
        return {host.id: self._equip_one(host) for host in hosts}

    def _equip_one(self, host: OnedHost) -> FencePlan:
        levels: defaultdict[int, list[model.Device]] = defaultdict(list)
        devices: dict[str, Device] = {}
        for fence in sorted(self.config.fence, key=lambda fence: fence.level):
            if not _matches(fence.hosts, host):
                continue
            device = self._device(host, fence)
            if device is None:
                continue
            devices[fence.name] = device
            capabilities = device.agent.capabilities
            levels[fence.level].append(
                model.Device(
                    name=fence.name,
                    identity_noted=fence.identity == "noted",
                    weak_off=Capability.WEAK_OFF in capabilities,
                    proves_off=Capability.READ_POWER in capabilities and Capability.STORAGE not in capabilities,
                )
            )
        self.fencer.equip(host.id, devices)
        timeout_s = max((device.timeout_s for device in devices.values()), default=20.0)
        return FencePlan(levels=tuple(tuple(levels[level]) for level in sorted(levels)), timeout_s=timeout_s)

    def _device(self, host: OnedHost, fence: FenceDevice) -> Device | None:
        key = (host.id, fence.name)
        try:
            settings = fence.settings_for(host.template)
            known = self._built.get(key)
            if known is not None and known[:2] == (fence, settings):
                return known[2]
            agent_class = self.agents[fence.agent]
            agent = agent_class(agent_class.config_model.model_validate(settings))
        except MissingAttribute as error:
            self._cannot(key, f"host {host.name} has no attribute {error.name} in OpenNebula")
            return None
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            self._cannot(key, f"host {host.name}: {wrong}")
            return None
        device = Device(name=fence.name, agent=agent, timeout_s=fence.timeout_s)
        self._built[key] = (fence, settings, device)
        return device

    def _cannot(self, key: tuple[int, str], problem: str) -> None:
        self.problems[key] = problem
        log.warning("a fence device cannot be used", device=key[1], problem=problem)


def _matches(patterns: Sequence[str], host: OnedHost) -> bool:
    return any(fnmatch.fnmatchcase(host.name, pattern) or pattern == str(host.id) for pattern in patterns)


class Addresses:
    """Literal addresses of hosts. Names are looked up beside the probing, never on its path."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._resolved: dict[str, str] = {}

    def targets(self, hosts: Sequence[OnedHost]) -> list[Target]:
        """Targets with what is known by now; the address is empty while a name has not been resolved."""
        return [
            Target(
                host=host.id,
                name=host.name,
                address=host.template.get(ADDRESS) or self._resolved.get(host.name, ""),
            )
            for host in hosts
        ]

    async def resolve(self, hosts: Sequence[OnedHost]) -> bool:
        """Look up names that are not known yet; says whether anything new was learned."""
        names = [host.name for host in hosts if not host.template.get(ADDRESS) and host.name not in self._resolved]
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(self._resolve_one, name)
        return any(name in self._resolved for name in names)

    async def _resolve_one(self, name: str) -> None:
        try:
            with anyio.fail_after(RESOLVE_TIMEOUT_S):
                found = await anyio.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            log.warning("a host's name cannot be resolved; set HA_ADDRESS on it", host=name, error=str(error))
            return
        self._resolved[name] = str(found[0][4][0])
