"""What the cloud of one seed looks like: controllers, hosts, racks, devices, channels, settings, VMs."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ha_controller.core.model import Device, Domain, Identity
from ha_controller.core.settings import Channel, Mode, Settings

SSH_TIMEOUT_S = 10.0  #: of oned's ssh to a dead host
BMC, PDU_A, PDU_B, FABRIC, SAN = "bmc", "pdu-a", "pdu-b", "fabric", "san"
CHASSIS = (BMC, FABRIC)  #: devices that switch the machine itself
HOST_MEMORY_MB, VM_MEMORY_MB = 65536, 8192

_HERE = (
    Channel(name="icmp", domain=Domain.MANAGEMENT, proves_userland=False),
    Channel(name="ssh", domain=Domain.MANAGEMENT),
    Channel(name="bmc", domain=Domain.POWER),
    Channel(name="oned", domain=Domain.ONED, gap_max_s=30.0),
    Channel(name="boot-id", domain=Domain.SELF, gap_max_s=90.0),
)
_NEIGHBOURS = Channel(name="neighbours", domain=Domain.VANTAGE, proves_userland=False, gap_max_s=10.0)
_STORAGE = Channel(name="storage", domain=Domain.STORAGE)
#: the product's default first: one domain that decides
CHANNELS = (_HERE, (*_HERE, _NEIGHBOURS), (*_HERE, _STORAGE), (*_HERE, _NEIGHBOURS, _STORAGE))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One cloud."""

    hosts: int
    racks: tuple[str, ...]  #: of each host
    levels: tuple[tuple[tuple[Device, ...], ...], ...]  #: of each host
    vms: tuple[int, ...]  #: how many each host begins with
    memory_mb: int  #: of each host
    controllers: int
    migration_s: float  #: how long a migration takes
    settings: Settings

    def devices(self, host: int) -> list[Device]:
        """All of a host."""
        return [device for level in self.levels[host] for device in level]

    def device(self, host: int, name: str) -> Device:
        """One of them."""
        return next(device for device in self.devices(host) if device.name == name)


def identity_of(host: int) -> Identity:
    """Which machine a host is."""
    return Identity(system_uuid=f"4c4c4544-0000-4000-8000-{host:012x}")


def draw(dice: random.Random, hosts: int, settings: Settings | None) -> Layout:
    """Draw a cloud. `settings`: the operator's own; None: others for every seed."""
    rack_size = dice.choice((2, 3, 4, max(2, hosts)))
    per_host = dice.choice((1, 2, 3, 4, 5))
    drawn = settings or _settings(dice)
    vms = tuple(max(0, per_host + dice.choice((-1, 0, 0, 1))) for _ in range(hosts))
    scarce_mb = (max(vms) + dice.choice((1, 2))) * VM_MEMORY_MB
    return Layout(
        hosts=hosts,
        racks=tuple(f"r{host // rack_size}" for host in range(hosts)),
        levels=tuple(_levels(dice) for _ in range(hosts)),
        vms=vms,
        memory_mb=dice.choice((HOST_MEMORY_MB, HOST_MEMORY_MB, HOST_MEMORY_MB, scarce_mb)),
        controllers=dice.choice((1,) * 9 + (2, 2, 3)),
        migration_s=dice.choice((0.05, 0.05, 4.0)),
        settings=replace(drawn, ssh_timeout_s=SSH_TIMEOUT_S),
    )


def _levels(dice: random.Random) -> tuple[tuple[Device, ...], ...]:
    bmc = Device(name=BMC, tells_identity=True, fingerprint="bmc 1")
    pdus = tuple(
        Device(name=name, identity_noted=True, fingerprint=f"{name} 1", outlet=True) for name in (PDU_A, PDU_B)
    )
    fabric = Device(name=FABRIC, identity_noted=True, weak_off=True, fingerprint="fabric 1")
    san = Device(name=SAN, identity_noted=True, proves_off=False, lasting=True, datastores=(100,), fingerprint="san 1")
    return dice.choice(
        (
            ((bmc,),),
            ((bmc,),),
            ((bmc,), pdus),
            ((bmc,), pdus),
            ((fabric,), (bmc,)),
            (pdus, (bmc,)),
            ((san, bmc),),
            ((bmc,), (san, *pdus)),
        )
    )


def _settings(dice: random.Random) -> Settings:
    return Settings(
        mode=Mode.AUTO,
        channels=dice.choice(CHANNELS),
        settle_s=dice.choice((10.0, 30.0)),
        max_failed_share=dice.choice((0.25, 0.25, 0.34)),
        fences_max=dice.choice((2, 3, 6)),
        fences_per_day_max=dice.choice((12, 40)),
        canary_above=dice.choice((2, 8)),
        moves_parallel=dice.choice((2, 5)),
        quarantine_after=dice.choice((3, 8)),
        power_on=dice.random() < 0.3,
        rejoins_itself=dice.random() < 0.3,
        hosts_asked=(asked := dice.random() < 0.5),
        destroy_leftovers=asked and dice.random() < 0.5,
    )
