"""The example shows what is in force, hosts fill placeholders, and everything can be told with its origin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from ha_controller.config import MissingAttribute, describe

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


@pytest.fixture
def example(site) -> str:
    """The example, with its secrets where the test has them."""
    return EXAMPLE.read_text().replace("/etc/ha-controller/secrets", str(site.folder))


def test_the_example_loads_and_every_default_that_it_shows_is_the_default(site, example):
    shown = site.load(example)
    bare = site.load(f'[opennebula]\nauth = {{ file = "{site.folder}/one_auth" }}\n')
    assert shown.guard.model_copy(update={"self_check": ()}) == bare.guard
    for section in ("mode", "state_dir", "opennebula", "scope", "detect", "channel", "recover", "leader", "api", "log"):
        assert getattr(shown, section) == getattr(bare, section), section
    [device] = shown.fence
    smallest = site.load(site.good).fence[0]
    for key in ("level", "hosts", "identity", "timeout_s"):
        assert getattr(device, key) == getattr(smallest, key), key


def test_the_example_shows_every_key_that_there_is(site, example):
    told = {path: origin for path, _, origin in describe(site.load(example))}
    assert {path for path, origin in told.items() if origin == "default"} == {
        "channel",
        "cluster",
        "controller",
        "notify",
    }


def test_only_secrets_are_wrong_in_the_example_as_it_is_shipped(site):
    told = site.told(EXAMPLE.read_text())
    assert [re.search(r"opennebula\.auth|fence\.0\.password", problem) is not None for problem in told] == [True, True]


def test_what_must_be_set_is_marked_in_the_example(example):
    for start in ("auth = ", "self_check = ", "[[fence]]", "password = "):
        [line] = [line for line in example.splitlines() if line.startswith(start)]
        assert "# SET" in line


def test_addresses_in_the_example_are_for_documentation(example):
    addresses = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", example)) - {"127.0.0.1"}
    assert addresses
    assert all(address.startswith("192.0.2.") for address in addresses)


def test_placeholders_are_filled_per_host_wherever_they_stand(site):
    [device] = site.load(site.good + 'zones = ["{ZONE}-a", "b"]\n').fence
    settings = device.settings_for({"FENCE_IP": "192.0.2.7", "ZONE": "east"})
    assert settings["address"] == "192.0.2.7"
    assert settings["zones"] == ["east-a", "b"]
    assert settings["password"].get_secret_value() == "hunter2"
    assert device.settings["address"] == "{FENCE_IP}"


@pytest.mark.parametrize("attributes", [{}, {"FENCE_IP": ""}])
def test_a_host_without_the_attribute_is_told_by_its_name(site, attributes):
    [device] = site.load(site.good).fence
    with pytest.raises(MissingAttribute, match="the host has no attribute FENCE_IP") as caught:
        device.settings_for(attributes)
    assert caught.value.name == "FENCE_IP"


def test_every_value_is_told_with_its_origin(site):
    site.write('[guard]\nsettle = "50s"\n[channel.ssh]\nport = 2222\n', "conf.d/10-site.toml")
    config = site.load(site.good, {"HA_LOG__LEVEL": "debug", "HA_GUARD__MAX_FENCES": "{ count = 3 }"})
    told = {path: (value, origin) for path, value, origin in describe(config)}
    assert told["mode"] == ('"auto"', "config.toml:1")
    assert told["guard.settle"] == ('"50s"', "conf.d/10-site.toml:2")
    assert told["guard.self_check"] == ('["192.0.2.1"]', "config.toml:5")
    assert told["channel.ssh.port"] == ("2222", "conf.d/10-site.toml:4")
    assert told["fence.0.address"] == ('"{FENCE_IP}"', "config.toml:9")
    assert told["log.level"] == ('"debug"', "HA_LOG__LEVEL")
    assert told["guard.max_fences.count"] == ("3", "HA_GUARD__MAX_FENCES")
    assert told["guard.max_fences.per"] == ('"1h"', "default")
    assert told["detect.confirm_interval"] == ('"200ms"', "default")


def test_secrets_stand_in_no_text_of_the_configuration(site):
    config = site.load(site.good + f'[channel.ssh]\ntoken = {{ file = "{site.folder}/bmc" }}\n')
    shown = f"{[*describe(config)]} {config!r} {config} {config.fence[0].settings} {config.model_dump(mode='json')}"
    assert "hunter2" not in shown
    assert "oneadmin:opennebula" not in shown
    assert ("fence.0.password", '"**********"', "config.toml:11") in describe(config)


def test_two_configurations_that_say_the_same_are_equal_wherever_they_say_it(site):
    assert site.load(site.good) == site.load(site.good.replace("[guard]", "\n# moved\n\n[guard]"))
    assert site.load(site.good) != site.load(site.good.replace("192.0.2.1", "192.0.2.2"))


def test_a_configuration_does_not_change(site):
    config = site.load(site.good)
    with pytest.raises(ValidationError, match="frozen"):
        config.mode = "observe"
    with pytest.raises(ValidationError, match="frozen"):
        config.fence[0].level = 2


@pytest.mark.parametrize("written", ["-1", "true", '"12"', "1.5"])
def test_the_vm_of_the_controller_is_a_number_or_looked_for(site, written):
    told = site.told(site.good.replace("[guard]", f"[guard]\nown_vm = {written}"))
    assert ["not the id of a VM" in each for each in told] == [True]
    assert site.load(site.good.replace("[guard]", "[guard]\nown_vm = 12")).guard.own_vm == 12
