"""From the configuration to what the core and the adapters need. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from ha_controller.adapters.recoverer import Scope
from ha_controller.config import Config
from ha_controller.core.model import Domain
from ha_controller.core.settings import Channel, Mode, Policy, Settings
from ha_controller.plugin import Probe, ProbeConfig

VANTAGE_GAP_MAX_S = 10.0  #: neighbours take seconds to answer


def core_settings(config: Config, probes: Mapping[str, type[Probe[ProbeConfig]]]) -> Settings:
    """The core's settings."""
    detect, guard = config.detect, config.guard
    return Settings(
        mode=Mode(config.mode),
        channels=tuple(
            Channel(
                name=name,
                domain=probes[name].domain,
                proves_userland=probes[name].proves_userland,
                gap_max_s={Domain.ONED: 3 * config.opennebula.poll_s, Domain.VANTAGE: VANTAGE_GAP_MAX_S}.get(
                    probes[name].domain, 0.0
                ),
            )
            for name in detect.channels
        ),
        policies={name.replace("_", " "): Policy(value) for name, value in config.policy.model_dump().items()},
        misses=detect.misses,
        evidence_ttl_s=detect.evidence_ttl_s,
        fail_after_s=detect.fail_after_s,
        single_domain_after_s=detect.single_domain_after_s,
        hung_after_s=detect.hung_after_s,
        settle_s=guard.settle_s,
        max_failed_share=guard.max_failed_hosts,
        fences_max=guard.max_fences.count,
        fences_per_s=guard.max_fences.per_s,
        fences_per_day_max=guard.max_fences_per_day,
        storm_cooldown_s=guard.storm_cooldown_s,
        self_check_needed=bool(guard.self_check),
        second_master_waived=guard.second_master == "none",
        fence_rounds_max=guard.fence_rounds,
        order_timeout_s=4 * config.opennebula.timeout_s,
        ssh_timeout_s=config.opennebula.ssh_timeout_s,
        moves_parallel=config.recover.parallel,
        vm_timeout_s=config.recover.vm_timeout_s,
    )


def scope(config: Config) -> Scope:
    """Which hosts are ours."""
    return Scope(clusters=tuple(config.scope.clusters), exclude=tuple(config.scope.exclude), places=config.guard.places)
