"""How Redfish documents are read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ha_controller_redfish import documents
from ha_controller_redfish.agent import RedfishConfig
from pydantic import ValidationError

from ha_controller.plugin import FenceError, Identity

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "written", [None, 7, "", "Systems", "//evil.example/x", "https://evil.example/x", ["/redfish/v1/Systems"]]
)
def test_only_paths_on_the_bmc_itself_are_followed(written: Any):
    with pytest.raises(FenceError):
        documents.own_path(written, "Systems")


@pytest.mark.parametrize(
    ("system", "identity"),
    [
        (
            {"UUID": "4C4C4544-0042-3510-8052-B4C04F564231", "SerialNumber": " SN1 "},
            Identity(system_uuid="4c4c4544-0042-3510-8052-b4c04f564231", serial="SN1"),
        ),
        ({"UUID": "00000000-0000-0000-0000-000000000000", "SerialNumber": ""}, None),
        ({"UUID": "ffffffff-ffff-ffff-ffff-ffffffffffff"}, None),
        ({"UUID": None, "SerialNumber": 12}, None),
        ({"UUID": "no uuid", "SerialNumber": "SN1"}, Identity(serial="SN1")),
    ],
)
def test_an_unset_uuid_identifies_nothing(system: dict[str, Any], identity: Identity | None):
    assert documents.identity_of(system) == identity


@pytest.mark.parametrize("name", ["1", "sn1", "4c4c4544-0042-3510-8052-b4c04f564231"])
def test_a_system_is_called_by_id_serial_or_uuid(name: str):
    system = {"Id": "1", "SerialNumber": "SN1", "UUID": "4C4C4544-0042-3510-8052-B4C04F564231"}
    assert documents.is_called(system, name)
    assert not documents.is_called(system, "2")
    assert not documents.is_called({}, "")


@pytest.mark.parametrize(
    ("account", "usable", "words"),
    [
        ({}, True, ""),
        ({"PasswordExpiration": "2026-05-31T23:59:00Z"}, False, "the password expired on 2026-05-31"),
        ({"PasswordExpiration": "2026-06-11T00:00:00"}, True, "the password expires on 2026-06-11"),
        ({"PasswordExpiration": "2027-06-11T00:00:00+02:00"}, True, ""),
        ({"PasswordExpiration": "never"}, True, ""),
        ({"PasswordChangeRequired": True}, False, "the BMC demands a new password for the account"),
    ],
)
def test_the_age_of_the_password(account: dict[str, Any], usable: bool, words: str):
    assert documents.password_trouble(account, NOW) == (usable, words)


@pytest.mark.parametrize("members", [None, "abc", {"a": 1}, [{"@odata.id": 7}]])
def test_a_collection_must_have_members(members: Any):
    with pytest.raises(FenceError):
        documents.member_paths({"Members": members})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"error": {"@Message.ExtendedInfo": [{"Message": "a"}, {"Message": "b"}]}}, "a b"),
        ({"error": {"message": "x"}}, "x"),
        ({"@Message.ExtendedInfo": [{"Message": "y"}]}, "y"),
        ([], ""),
        ({"error": "no"}, ""),
    ],
)
def test_what_a_bmc_says_is_found(document: Any, words: str):
    assert documents.said(document) == words


@pytest.mark.parametrize(
    "wrong",
    [{"fingerprint": "AB:CD"}, {"ca_file": "/no/such/file"}, {"address": "user@bmc"}, {"address": "bmc/path"},
     {"address": "[::1]"}, {"username": "a:b"},
     {"username": ""}, {"password": ""}, {"tls": "off"}],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, str]):
    settings = {"address": "192.0.2.7", "username": "fencer", "password": "secret-7"} | wrong
    with pytest.raises(ValidationError) as raised:
        RedfishConfig.model_validate(settings)
    assert "secret-7" not in str(raised.value)


def test_a_fingerprint_may_have_colons():
    written = ":".join(["AB"] * 32)
    config = RedfishConfig.model_validate(
        {"address": "192.0.2.7", "username": "fencer", "password": "secret-7", "fingerprint": written}
    )
    assert config.fingerprint == "ab" * 32


@pytest.mark.parametrize("more", [{"Members@odata.nextLink": "/redfish/v1/Systems?page=2"}, {"Members@odata.count": 2}])
def test_a_part_of_a_collection_is_not_taken_for_the_whole(more: dict[str, Any]):
    with pytest.raises(FenceError, match="only a part"):
        documents.member_paths({"Members": [{"@odata.id": "/redfish/v1/Systems/1"}], **more})
