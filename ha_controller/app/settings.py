"""From the configuration to what the core and the adapters need. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ha_controller.adapters.recoverer import Scope
from ha_controller.adapters.ssh_login import SshLogin
from ha_controller.config import Config, Detect
from ha_controller.core.model import Domain, VmPolicy
from ha_controller.core.settings import Channel, Mode, Policy, Settings
from ha_controller.durations import parse_duration
from ha_controller.plugin import Arbiter, Probe, ProbeConfig, SlowProbeConfig

VANTAGE_GAP_MAX_S = 10.0  #: neighbours take seconds to answer
SLOW_GAP_ROUNDS = 3  #: a channel that is asked slowly is blind after so many rounds without a word


def core_settings(
    config: Config, probes: Mapping[str, type[Probe[ProbeConfig]]], arbiter: Arbiter[Any] | None = None
) -> Settings:
    """The core's settings. `arbiter`: whether the record is shared; None: it is not."""
    guard, shared = config.guard, arbiter is not None and arbiter.record is not None
    settings = Settings(
        mode=Mode(config.mode),
        policies={name.replace("_", " "): Policy(value) for name, value in config.policy.model_dump().items()},
        record_is_shared=shared,
        lead_is_given_away=arbiter is not None and shared and arbiter.regains and arbiter.hands_over,
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
        reserve_hosts=config.capacity.reserve_hosts,
        cluster_reserve_hosts=config.capacity.cluster_reserve_hosts,
        write_attributes=config.opennebula.write_attributes,
        order_timeout_s=4 * config.opennebula.timeout_s,
        ssh_timeout_s=config.opennebula.ssh_timeout_s,
        moves_parallel=config.recover.parallel,
        moves_per_host=config.recover.parallel_per_host,
        moves_per_datastore=config.recover.parallel_per_datastore,
        vm_priority=config.recover.priority,
        ready_delay_s=config.recover.ready_delay_s,
        tier_timeout_s=config.recover.tier_timeout_s,
        tier_stops=config.recover.tier_on_timeout == "stop",
        vm_timeout_s=config.recover.vm_timeout_s,
        vm_policy=VmPolicy(config.recover.policy),
        vm_policies={name: VmPolicy(policy) for name, policy in config.recover.cluster_policy.items()},
        recreate_allowed=config.recover.recreate,
        powered_off_moved=config.recover.powered_off == "move",
        locked_moved=config.recover.locked == "move",
        rejoins_itself=config.recover.rejoin == "auto",
        hosts_asked=bool(config.identity.username),
        destroy_leftovers=config.recover.destroy_leftovers,
        power_on=config.recover.power_on,
        soften_anti_affinity=config.recover.soften_anti_affinity,
    )
    channels = {name: _channel(name, probes[name], config) for name in config.detect.channels}
    clusters = {name: _judging(settings, rules.over(config.detect), channels) for name, rules in config.cluster.items()}
    return replace(_judging(settings, config.detect, channels), clusters=clusters)


def _channel(name: str, probe: type[Probe[ProbeConfig]], config: Config) -> Channel:
    gaps_s = {Domain.ONED: 3 * config.opennebula.poll_s, Domain.VANTAGE: VANTAGE_GAP_MAX_S}
    gap_max_s = gaps_s.get(probe.domain, 0.0)
    if issubclass(probe.config_model, SlowProbeConfig):
        every = config.channel.get(name, {}).get("every", probe.config_model.model_fields["every_s"].default)
        gap_max_s = SLOW_GAP_ROUNDS * parse_duration(every)
    return Channel(name=name, domain=probe.domain, proves_userland=probe.proves_userland, gap_max_s=gap_max_s)


def _judging(settings: Settings, detect: Detect, channels: Mapping[str, Channel]) -> Settings:
    """The settings with the rules for judging hosts."""
    weights = {Domain(name): weight for name, weight in detect.weights.model_dump().items() if weight != 1}
    return replace(
        settings,
        channels=tuple(channels[name] for name in detect.channels),
        misses=detect.misses,
        evidence_ttl_s=detect.evidence_ttl_s,
        fail_after_s=detect.fail_after_s,
        fail_after_per_vm_s=detect.fail_after_per_vm_s,
        need=detect.need,
        weights=weights,
        single_domain_after_s=detect.single_domain_after_s,
        hung_after_s=detect.hung_after_s,
        dump_await_s=detect.dump_await_s if "kdump" in detect.channels else 0.0,
        dump_max_s=detect.dump_max_s,
        planned_reboot_max_s=detect.planned_reboot_max_s,
    )


def host_login(config: Config) -> SshLogin | None:
    """How hosts are asked something over SSH; None: nobody may log in there."""
    identity = config.identity
    if not identity.username:
        return None
    return SshLogin(
        username=identity.username,
        key_file=identity.key_file,
        known_hosts=identity.known_hosts,
        port=identity.port,
    )


def scope(config: Config) -> Scope:
    """Which hosts are ours."""
    return Scope(clusters=tuple(config.scope.clusters), exclude=tuple(config.scope.exclude), places=config.guard.places)
