"""Settings of the PDU agent, and the table of models."""

from __future__ import annotations

from typing import Any

import pytest
from ha_controller_pdu import PduConfig
from ha_controller_pdu.models import known_models
from pydantic import ValidationError

GOOD: dict[str, Any] = {
    "address": "192.0.2.40", "model": "apc-rpdu", "outlets": "7", "username": "fencer",
    "auth_password": "auth-secret-7", "priv_password": "priv-secret-7",
}  # fmt: skip


def config(**changes: Any) -> PduConfig:
    return PduConfig.model_validate(GOOD | changes)


@pytest.mark.parametrize("written", ["7, 192.0.2.41/8", "7 192.0.2.41/8", ["7", "192.0.2.41/8"], [7, "192.0.2.41/8"]])
def test_outlets_are_a_list_or_a_text(written: Any):
    found = [(outlet.address, outlet.index) for outlet in config(outlets=written).parsed_outlets()]
    assert found == [("192.0.2.40", "7"), ("192.0.2.41", "8")]


@pytest.mark.parametrize(
    ("model", "written", "index"),
    [("apc-rpdu", "7", "7"), ("raritan", "7", "1.7"), ("raritan", "2.7", "2.7"), ("servertech-sentry4", "7", "1.1.7"),
     ("eaton-epdu", "7", "0.7"), ("eaton-managed", "0", "0")],
)  # fmt: skip
def test_a_plain_number_gets_the_usual_prefix(model: str, written: str, index: str):
    [outlet] = config(model=model, outlets=written).parsed_outlets()
    assert outlet.index == index


def test_names_belong_to_the_outlets_in_their_order():
    outlets = config(outlets="7 8", names="kvm 6 A, kvm 6 B").parsed_outlets()
    assert [outlet.name for outlet in outlets] == ["kvm 6 A", "kvm 6 B"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "toaster"}, "no such model. There are apc-rpdu,"),
        ({"outlets": "seven"}, "no outlet"),
        ({"outlets": ""}, "at least 1"),
        ({"outlets": "7 7"}, "twice"),
        ({"names": "a, b"}, "as many names as outlets"),
        ({"address": None}, "an address is needed"),
        ({"auth_password": "short"}, "at least 8"),
        ({"auth_password": None}, "needs username and auth_password"),
        ({"version": "2c"}, "needs a community"),
        ({"override": {"reads_of": 2}}, "Extra inputs"),
        ({"override": {"status": "iso.3.6"}}, "pattern"),
    ],
)
def test_wrong_settings_are_told(changes: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words) as raised:
        config(**changes)
    assert "secret-7" not in str(raised.value)


@pytest.mark.parametrize("name", known_models())
def test_on_and_off_differ_in_every_model(name: str):
    model = known_models()[name]
    assert model.reads_on != model.reads_off
    assert (model.off, model.off_value) != (model.on, model.on_value)


def test_an_override_replaces_only_what_it_names():
    model = config(override={"off_value": 9}).outlet_model
    assert (model.off_value, model.on_value) == (9, 1)
