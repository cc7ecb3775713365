"""From the inventory to devices and addresses: what people write costs one device or one host, never the controller."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from leads import always
from pydantic import SecretStr

from ha_controller.adapters.fencer import Fencer
from ha_controller.app.armory import Armory
from ha_controller.app.watching import Addresses
from ha_controller.config.model import Config, FenceDevice, OpenNebula
from ha_controller.plugin import AgentConfig, Capability, CheckReport, FenceAgent, PowerState


@dataclass
class OneHost:
    """As much of a host as these parts look at."""

    id: int = 3
    name: str = "kvm-03"
    template: dict[str, str] = field(default_factory=dict)


class BoxConfig(AgentConfig):
    address: str
    password: SecretStr = SecretStr("")


class Box(FenceAgent[BoxConfig]):
    kind = "box"
    config_model = BoxConfig
    capabilities = Capability.READ_POWER

    def __init__(self, config: BoxConfig) -> None:
        super().__init__(config)
        if config.address == "bug":
            raise RuntimeError("bug")

    async def power_off(self) -> None: ...

    async def power_state(self) -> PowerState:
        return PowerState.ON

    async def check(self) -> CheckReport:
        return CheckReport(ok=True, summary="ok")


def armory(**settings: Any) -> Armory:
    fence = FenceDevice.model_validate({"name": "bmc", "agent": "box", "address": "{FENCE_IP}", **settings})
    config = Config(opennebula=OpenNebula(auth=SecretStr("a:b")), fence=(fence,))
    fencer = Fencer(report=lambda event: None, may_act=always, clock=lambda: 0.0)
    return Armory(config=config, agents={"box": Box}, fencer=fencer)  # type: ignore[dict-item]


def fingerprint(made: Armory, host: OneHost) -> str:
    plan = made.equip([host])[host.id]  # type: ignore[list-item]
    return plan.levels[0][0].fingerprint


def test_another_address_is_another_device_and_another_password_is_not():
    here, there = (OneHost(template={"FENCE_IP": address}) for address in ("192.0.2.1", "192.0.2.2"))
    first = fingerprint(armory(password=SecretStr("one")), here)
    assert fingerprint(armory(password=SecretStr("two")), here) == first
    assert fingerprint(armory(), there) != first


def test_a_password_in_the_hosts_template_is_no_part_of_the_fingerprint():
    made = armory(password="{FENCE_PASSWORD}")
    one, two = (OneHost(template={"FENCE_IP": "192.0.2.1", "FENCE_PASSWORD": word}) for word in ("one", "two"))
    assert fingerprint(made, one) == fingerprint(made, two)


def test_a_changed_timeout_reaches_the_device():
    made, host = armory(), OneHost(template={"FENCE_IP": "192.0.2.1"})
    made.equip([host])  # type: ignore[list-item]
    made.config = made.config.model_copy(
        update={"fence": (made.config.fence[0].model_copy(update={"timeout_s": 90.0}),)}
    )
    assert made.equip([host])[3].timeout_s == 90.0  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"address": "bug"}, "bug in the agent box (RuntimeError)"),
        ({"agent": "installed-later", "address": "192.0.2.1"}, "was not installed when the controller was started"),
        ({}, "has no attribute FENCE_IP"),
        ({"address": "192.0.2.1", "port": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_device_that_cannot_be_made_costs_only_itself(settings, problem, logged):
    made = armory(**settings)
    assert made.equip([OneHost()])[3].levels == ()  # type: ignore[list-item]
    assert problem in made.problems[(3, "bmc")]


@pytest.mark.parametrize("name", ["nœud_01", "büro host", "a" * 70, "kvm..01", ""])
async def test_a_host_whose_name_no_resolver_takes_is_told_and_nothing_else(name, logged):
    addresses = Addresses(lambda: 0.0)
    assert not await addresses.resolve([OneHost(name=name)])  # type: ignore[list-item]
    assert addresses.targets([OneHost(name=name)])[0].address == ""  # type: ignore[list-item]
    assert logged


async def test_a_name_is_looked_up_again_and_another_address_is_noticed():
    now = 0.0
    addresses, host = Addresses(lambda: now), OneHost(name="localhost")
    await addresses.resolve([host])  # type: ignore[list-item]
    assert addresses.moved([host]) == []  # type: ignore[list-item]
    addresses._resolved["localhost"] = "192.0.2.9"  # it meant another address before
    assert addresses.moved([host]) == [3]  # type: ignore[list-item]
    assert not await addresses.resolve([host])  # type: ignore[list-item]
    now = 100.0
    assert await addresses.resolve([host])  # type: ignore[list-item]
    assert addresses.moved([host]) == [3]  # type: ignore[list-item]
    host.template["HA_ADDRESS"] = "192.0.2.7"
    assert addresses.moved([host]) == [3]  # type: ignore[list-item]


def test_the_very_same_device_at_two_hosts_is_refused_to_both():
    made = armory()
    hosts = [OneHost(id=number, name=f"kvm-0{number}", template={"FENCE_IP": ip})
             for number, ip in ((1, "192.0.2.1"), (2, "192.0.2.1"), (3, "192.0.2.3"))]  # fmt: skip
    plans = made.equip(hosts)  # type: ignore[arg-type]
    assert [bool(plans[number].levels) for number in (1, 2, 3)] == [False, False, True]
    assert "the very same device as kvm-02" in made.problems[(1, "bmc")]
