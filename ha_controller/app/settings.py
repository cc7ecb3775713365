"""From the configuration to what the core and the adapters need. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ha_controller.adapters.recoverer import Scope
from ha_controller.config import Config, Detect
from ha_controller.core.model import Domain
from ha_controller.core.settings import Channel, Mode, Policy, Settings
from ha_controller.plugin import Probe, ProbeConfig

VANTAGE_GAP_MAX_S = 10.0  #: neighbours take seconds to answer


def core_settings(config: Config, probes: Mapping[str, type[Probe[ProbeConfig]]]) -> Settings:
    """The core's settings."""
    guard = config.guard
    settings = Settings(
        mode=Mode(config.mode),
        policies={name.replace("_", " "): Policy(value) for name, value in config.policy.model_dump().items()},
        settle_s=guard.settle_s,
        max_failed_share=guard.max_failed_hosts,
        fences_max=guard.max_fences.count,
        fences_per_s=guard.max_fences.per_s,
        fences_per_day_max=guard.max_fences_per_day,
        storm_cooldown_s=guard.storm_cooldown_s,
        self_check_needed=bool(guard.self_check),
        quarantine_after=guard.quarantine.count,
        quarantine_within_s=guard.quarantine.per_s,
        second_master_waived=guard.second_master == "none",
        fence_rounds_max=guard.fence_rounds,
        order_timeout_s=4 * config.opennebula.timeout_s,
        ssh_timeout_s=config.opennebula.ssh_timeout_s,
        moves_parallel=config.recover.parallel,
        vm_timeout_s=config.recover.vm_timeout_s,
    )
    poll_s = config.opennebula.poll_s
    clusters = {
        name: _judging(settings, rules.over(config.detect), probes, poll_s) for name, rules in config.cluster.items()
    }
    return replace(_judging(settings, config.detect, probes, poll_s), clusters=clusters)


def _judging(
    settings: Settings, detect: Detect, probes: Mapping[str, type[Probe[ProbeConfig]]], poll_s: float
) -> Settings:
    """The settings with the rules for judging hosts."""
    gaps_s = {Domain.ONED: 3 * poll_s, Domain.VANTAGE: VANTAGE_GAP_MAX_S}
    return replace(
        settings,
        channels=tuple(
            Channel(
                name=name,
                domain=probes[name].domain,
                proves_userland=probes[name].proves_userland,
                gap_max_s=gaps_s.get(probes[name].domain, 0.0),
            )
            for name in detect.channels
        ),
        misses=detect.misses,
        evidence_ttl_s=detect.evidence_ttl_s,
        fail_after_s=detect.fail_after_s,
        fail_after_per_vm_s=detect.fail_after_per_vm_s,
        need=detect.need,
        weights={Domain(name): weight for name, weight in detect.weights.model_dump().items() if weight != 1},
        single_domain_after_s=detect.single_domain_after_s,
        hung_after_s=detect.hung_after_s,
        dump_await_s=detect.dump_await_s if "kdump" in detect.channels else 0.0,
        dump_max_s=detect.dump_max_s,
        planned_reboot_max_s=detect.planned_reboot_max_s,
    )


def scope(config: Config) -> Scope:
    """Which hosts are ours."""
    return Scope(clusters=tuple(config.scope.clusters), exclude=tuple(config.scope.exclude), places=config.guard.places)
