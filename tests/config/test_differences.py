"""Where two configurations differ, what stays of which, and the schema that editors are given."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema_rs
import pytest

from ha_controller.config import differences, in_force
from ha_controller.config.schema import config_schema

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


def test_each_value_that_differs_is_told_also_one_that_is_not_there(site):
    before = site.load(site.good)
    after = site.load(
        site.good.replace('mode = "auto"', 'mode = "observe"') + 'zones = ["a"]\n[drill]\nevery = "90d"\n'
    )
    told = {each.name: (each.before, each.after) for each in differences(before, after)}
    assert told == {
        "mode": ("auto", "observe"), "drill.every": ("4320h", "2160h"), "fence.0.zones": (None, ["a"]),
    }  # fmt: skip
    assert differences(before, site.load(f"# moved\n{site.good}")) == []


def test_a_secret_that_differs_is_found_and_shown_by_nobody(site):
    before = site.load(site.good)
    site.secret("bmc", "another\n")
    (found,) = differences(before, site.load())
    assert (found.name, found.before, found.after) == ("fence.0.password", "**********", "**********")


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2", "@/hunter2"])
def test_login_data_in_an_address_is_masked(site, password):
    config = site.load(
        f"{site.good}[channel.ssh]\nport = 22\n".replace("{FENCE_IP}", f"http://root:{password}@192.0.2.9/x")
    )
    values = {each.name: each.value for each in in_force(config)}
    assert values["fence.0.address"] == "http://***@192.0.2.9/x"


def test_what_is_kept_keeps_its_place_in_the_file(site):
    before = site.load(site.good + '[log]\nlevel = "debug"\n')
    after = site.load(f'# a line more\n{site.good}[log]\nlevel = "error"\n')
    taken = after.with_kept({"log": before.log}, before)
    origins = {each.name: (each.value, each.origin) for each in in_force(taken)}
    assert origins["log.level"] == ("debug", "config.toml:13")
    assert origins["mode"] == ("auto", "config.toml:2")


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        (lambda example: None, True),
        (lambda example: example.update(mode="atuo"), False),
        (lambda example: example["opennebula"].update(timeout=5), False),
        (lambda example: example["opennebula"].update(timeout="5 parsecs"), False),
        (lambda example: example["opennebula"].update(auth="oneadmin:secret"), False),
        (lambda example: example["opennebula"].update(auth={"command": ["pass", "one"]}), True),
        (lambda example: example["opennebula"].update(tiemout="5s"), False),
    ],
)
def test_the_schema_for_editors_knows_the_example_and_what_is_wrong_with_it(change, valid):
    example = tomllib.loads(EXAMPLE.read_text())
    change(example)
    assert jsonschema_rs.Draft202012Validator(config_schema()).is_valid(example) is valid
