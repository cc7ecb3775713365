"""From the configuration and the inventory to what is probed: addresses, witnesses, and the channels that ask them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence

import anyio
import structlog

from ha_controller.adapters.opennebula import OnedHost
from ha_controller.adapters.plugins import Registry
from ha_controller.adapters.prober import Prober
from ha_controller.app.counting import Counting
from ha_controller.app.surroundings import Witnesses
from ha_controller.config import Config
from ha_controller.core.detector import alive_channels
from ha_controller.core.events import Event, EvidenceTaken, HostReaddressed
from ha_controller.core.model import HostState
from ha_controller.core.state import State
from ha_controller.plugin import Domain, OnedView, PowerState, Probe, ProbeConfig, ProbeContext, Reading, Target

log = structlog.get_logger(__name__)

ADDRESS = "HA_ADDRESS"  #: host attribute: the literal address to probe; without it the host's name is looked up
RESOLVE_TIMEOUT_S = 5.0
RESOLVE_EVERY_S = 60.0  #: a name may come to mean another address


class Watching:
    """Has the hosts of the inventory and the witnesses probed, and hands on what is seen."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        *,
        state: State,
        read_power: Callable[[int], Awaitable[PowerState]],
        oned_view: Callable[[int], OnedView | None],
        post: Callable[[Event], None],
        clock: Callable[[], float],
        counting: Counting,
    ) -> None:
        """Nothing is probed before `aim`."""
        self._state, self._post, self._clock, self._counting = state, post, clock, counting
        self._hosts: Sequence[OnedHost] = ()
        self._addresses = Addresses(clock)
        self.witnesses = Witnesses(addresses=config.guard.self_check, report=post, clock=clock)
        context = ProbeContext(read_power=read_power, oned_view=oned_view, neighbours=self._neighbours)
        channels: dict[str, Probe[ProbeConfig]] = {}
        for name in config.detect.channels:
            probe_class = registry.probes[name]
            settings = probe_class.config_model.model_validate(config.channel.get(name, {}))
            channels[name] = probe_class(settings, context)
        self.prober = Prober(
            channels,
            interval_s=config.detect.interval_s,
            confirm_interval_s=config.detect.confirm_interval_s,
            clock=clock,
            sink=self._evidence,
            heed_lag=counting.lagged,
        )

    def targets(self) -> Sequence[Target]:
        """All hosts, with the addresses that are known by now."""
        return self._addresses.targets(self._hosts)

    def aim(self, hosts: Sequence[OnedHost]) -> None:
        """Probe these hosts from now on, and the witnesses."""
        self._hosts = hosts
        for host in self._addresses.moved(hosts):
            self._post(HostReaddressed(host=host))
        self.prober.set_targets([*self.targets(), *self.witnesses.targets()])

    async def resolve(self) -> None:
        """Look up names beside the probing; never raises: names come from people."""
        try:
            if await self._addresses.resolve(self._hosts):
                self.aim(self._hosts)
        except Exception:  # a border: no name may end the controller
            log.exception("the names of hosts could not be looked up")

    def _neighbours(self, host: int) -> Sequence[Target]:
        """Healthy hosts of the same cluster, beginning after the host itself, so that not all suspects ask the same."""
        state, now = self._state, self._clock()
        suspect = state.hosts.get(host)
        if suspect is None:
            return ()
        healthy = {
            known.id
            for known in state.hosts.values()
            if known.id != host
            and known.cluster == suspect.cluster
            and not known.excluded
            and state.view(known.id).state is HostState.OK
            and alive_channels(state.view(known.id).views, state.settings, now)
        }
        targets = [target for target in self.targets() if target.host in healthy]
        return sorted(targets, key=lambda target: (target.host < host, target.host))

    def _evidence(self, channel: str, domain: Domain, readings: list[Reading]) -> None:
        del domain
        self._counting.probed(channel, readings, self._clock())
        if self.witnesses.addresses:
            self.witnesses.note(reading for reading in readings if reading.host < 0)
            readings = [reading for reading in readings if reading.host >= 0]
        if readings:
            self._post(EvidenceTaken(channel=channel, readings=tuple(readings)))


class Addresses:
    """Literal addresses of hosts. Names are looked up beside the probing, never on its path."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing is known yet."""
        self._clock = clock
        self._resolved: dict[str, str] = {}
        self._asked_at: dict[str, float] = {}
        self._used: dict[int, str] = {}

    def targets(self, hosts: Sequence[OnedHost]) -> list[Target]:
        """Targets with what is known by now; the address is empty while a name has not been resolved."""
        return [Target(host=host.id, name=host.name, address=self._address(host)) for host in hosts]

    def _address(self, host: OnedHost) -> str:
        return host.template.get(ADDRESS) or self._resolved.get(host.name, "")

    def moved(self, hosts: Sequence[OnedHost]) -> list[int]:
        """Hosts whose address is another one than at the last call."""
        now = {host.id: self._address(host) for host in hosts}
        moved = [host for host, address in now.items() if self._used.get(host, address) not in ("", address)]
        self._used = now
        return moved

    async def resolve(self, hosts: Sequence[OnedHost]) -> bool:
        """Look up names that are not known yet, or not lately; says whether anything new was learned."""
        now, before = self._clock(), dict(self._resolved)
        names = [host.name for host in hosts if not host.template.get(ADDRESS)]
        due = [name for name in names if now - self._asked_at.get(name, -RESOLVE_EVERY_S) >= RESOLVE_EVERY_S]
        async with anyio.create_task_group() as group:
            for name in due:
                self._asked_at[name] = now
                group.start_soon(self._resolve_one, name)
        return self._resolved != before

    async def _resolve_one(self, name: str) -> None:
        """What is known stays when a lookup fails: a name server that is down does not move hosts."""
        try:
            with anyio.fail_after(RESOLVE_TIMEOUT_S):
                found = await anyio.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError) as error:
            self._asked_at[name] = self._clock() - RESOLVE_EVERY_S + RESOLVE_TIMEOUT_S  # again soon
            log.warning("a host's name cannot be resolved; set HA_ADDRESS on it", host=name, error=str(error))
            return
        addresses = [str(entry[4][0]) for entry in found]
        if self._resolved.get(name) not in addresses:
            self._resolved[name] = addresses[0]
