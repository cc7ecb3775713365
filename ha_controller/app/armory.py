"""From the configuration and the inventory to fence devices of each host.

Agents are built once for each set of settings and kept while these stay the same. A host whose attributes are missing
gets no device: the readiness guard then says so, by name.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import ValidationError

from ha_controller.adapters.fencer import Device, Fencer, reads_power
from ha_controller.adapters.opennebula import OnedHost
from ha_controller.adapters.recoverer import FencePlan
from ha_controller.config import Config, FenceDevice, MissingAttribute
from ha_controller.core import model
from ha_controller.plugin import AgentConfig, Capability, FenceAgent

log = structlog.get_logger(__name__)


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
        made = {host.id: self._devices_of(host) for host in hosts}
        self._refuse_shared(hosts, made)
        return {host.id: self._equip_one(host, made[host.id]) for host in hosts}

    def _devices_of(self, host: OnedHost) -> dict[str, tuple[FenceDevice, Device]]:
        fences = [fence for fence in self.config.fence if _matches(fence.hosts, host)]
        ordered = sorted(fences, key=lambda fence: fence.level)
        return {fence.name: (fence, made) for fence in ordered if (made := self._device(host, fence)) is not None}

    def _refuse_shared(self, hosts: Sequence[OnedHost], made: dict[int, dict[str, tuple[FenceDevice, Device]]]) -> None:
        """One machine's power is not another's: the very same device at two hosts is a mistake of one of them."""
        owners: defaultdict[str, list[OnedHost]] = defaultdict(list)
        for host in hosts:
            for thing in {thing for _, device in made[host.id].values() for thing in _acted_on(device)}:
                owners[thing].append(host)
        for host in hosts:
            for name, (_, device) in list(made[host.id].items()):
                shared = [thing for thing in _acted_on(device) if len(owners[thing]) > 1]
                if shared:
                    others = [other.name for other in owners[shared[0]] if other.id != host.id]
                    what = shared[0] if shared[0] in device.agent.acts_on else "the very same device"
                    same = f"{host.name} has {what} as {', '.join(others[:3])} has"
                    self._cannot((host.id, name), f"{same}: fencing one hits another")
                    del made[host.id][name]

    def _equip_one(self, host: OnedHost, made: dict[str, tuple[FenceDevice, Device]]) -> FencePlan:
        levels: defaultdict[int, list[model.Device]] = defaultdict(list)
        devices: dict[str, Device] = {}
        for fence, device in made.values():
            devices[fence.name] = device
            capabilities = device.agent.capabilities
            levels[fence.level].append(
                model.Device(
                    name=fence.name,
                    identity_noted=fence.identity == "noted",
                    weak_off=Capability.WEAK_OFF in capabilities,
                    proves_off=reads_power(device),
                    fingerprint=device.fingerprint,
                    tells_identity=Capability.IDENTITY in capabilities,
                    drill_needed=Capability.SELF_RESET in capabilities,
                    lasting=Capability.LASTING in capabilities,
                    outlet=Capability.OUTLET in capabilities,
                    datastores=device.agent.datastores if Capability.STORAGE in capabilities else None,
                )
            )
        self.fencer.equip(host.id, devices)
        timeout_s = max((device.timeout_s for device in devices.values()), default=20.0)
        return FencePlan(levels=tuple(tuple(levels[level]) for level in sorted(levels)), timeout_s=timeout_s)

    def _device(self, host: OnedHost, fence: FenceDevice) -> Device | None:
        key = (host.id, fence.name)
        try:
            settings = fence.settings_for({**host.template, "NAME": host.name})
            known = self._built.get(key)
            if known is not None and known[:2] == (fence, settings):
                return known[2]
            agent_class = self.agents[fence.agent]
            agent = agent_class(agent_class.config_model.model_validate(settings))
        except MissingAttribute as error:
            self._cannot(key, f"host {host.name} has no attribute {error.name} in OpenNebula")
            return None
        except KeyError:
            self._cannot(key, f"agent {fence.agent} was not installed when the controller was started: restart it")
            return None
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            self._cannot(key, f"host {host.name}: {wrong}")
            return None
        except Exception as error:  # the border to a plugin: its bug costs this device and nothing else
            log.exception("a fence agent could not be made", device=fence.name, host=host.name)
            self._cannot(key, f"host {host.name}: bug in the agent {fence.agent} ({type(error).__name__})")
            return None
        if fence.timeout_s < agent.timeout_min_s:
            self._cannot(key, f"its timeout must be at least {agent.timeout_min_s:g} s ({fence.timeout_s:g} s are set)")
            return None
        device = Device(
            name=fence.name,
            agent=agent,
            timeout_s=fence.timeout_s,
            level=fence.level,
            fingerprint=_fingerprint(fence.agent, agent.config),
        )
        self._built[key] = (fence, settings, device)
        return device

    def _cannot(self, key: tuple[int, str], problem: str) -> None:
        self.problems[key] = problem
        log.warning("a fence device cannot be used", device=key[1], problem=problem)


def _acted_on(device: Device) -> tuple[str, ...]:
    """What a device acts on; its very own settings, too, unless it only helps (SSH, a person)."""
    acts = reads_power(device) or Capability.LASTING in device.agent.capabilities
    return (*device.agent.acts_on, *((device.fingerprint,) if acts else ()))


def _fingerprint(kind: str, config: AgentConfig) -> str:
    """Another one means another device. Its secrets are masked, so a new password is the same device."""
    return hashlib.sha256(repr((kind, sorted(config.model_dump().items()))).encode()).hexdigest()[:12]


def _matches(patterns: Sequence[str], host: OnedHost) -> bool:
    return any(fnmatch.fnmatchcase(host.name, pattern) or pattern == str(host.id) for pattern in patterns)
