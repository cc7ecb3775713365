"""What the IPMI agent makes of settings, codes and identifiers. No network; the real peers are tested elsewhere."""

from __future__ import annotations

import uuid
from typing import Any

import ha_controller_ipmi
import pluggy
import pytest
from ha_controller_ipmi import IpmiAgent, IpmiConfig
from ha_controller_ipmi.agent import system_uuid_from_guid
from ha_controller_ipmi.errors import completion_error, login_error
from pydantic import ValidationError

from ha_controller.plugin import ENTRY_POINT_GROUP, AccessDenied, FenceError, HookSpecs, Rejected

SETTINGS: dict[str, Any] = {"address": "192.0.2.7", "username": "fencer", "password": "fencer-secret-7"}
CHASSIS_CONTROL = (0x00, 0x02)
SET_SESSION_PRIVILEGE = (0x06, 0x3B)


def test_the_hook_registers_the_agent() -> None:
    plugins = pluggy.PluginManager(ENTRY_POINT_GROUP)
    plugins.add_hookspecs(HookSpecs)
    plugins.register(ha_controller_ipmi)
    plugins.check_pending()
    assert plugins.hook.ha_controller_fence_agents() == [[IpmiAgent]]


def test_the_least_privilege_that_can_fence_is_the_default() -> None:
    config = IpmiConfig.model_validate(SETTINGS)
    assert (config.privilege, config.port, config.kg) == ("operator", 623, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0},
        {"port": 65536},
        {"address": ""},
        {"privilege": "user"},
        {"username": "seventeen-letters"},
        {"password": "one-and-twenty-chars!"},
        {"kg": "one-and-twenty-chars!"},
        {"kg": "0x123"},
        {"kg": "0x" + "00" * 21},
        {"adress": "192.0.2.8"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IpmiConfig.model_validate(SETTINGS | wrong)


@pytest.mark.parametrize("name", ["password", "kg"])
def test_an_error_about_a_secret_does_not_quote_it(name: str) -> None:
    secret = "far-too-long-to-be-accepted"
    with pytest.raises(ValidationError) as caught:
        IpmiConfig.model_validate(SETTINGS | {name: secret})
    assert secret not in str(caught.value)


def test_the_repr_of_the_settings_hides_the_secrets() -> None:
    shown = repr(IpmiConfig.model_validate(SETTINGS | {"kg": "the-key"}))
    assert SETTINGS["password"] not in shown
    assert "the-key" not in shown


def test_a_guid_is_read_in_the_byte_order_of_smbios() -> None:
    """The example of the SMBIOS specification, 7.2.1."""
    guid = bytes.fromhex("33221100 5544 7766 8899 AABBCCDDEEFF")
    assert system_uuid_from_guid(guid) == "00112233-4455-6677-8899-aabbccddeeff"


@pytest.mark.parametrize("unset", [bytes(16), b"\xff" * 16])
def test_an_unset_guid_identifies_nothing(unset: bytes) -> None:
    assert system_uuid_from_guid(unset) is None


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_guid_of_another_length_is_an_error(length: int) -> None:
    with pytest.raises(FenceError, match="16"):
        system_uuid_from_guid(uuid.uuid4().bytes * 2 if length > 16 else bytes(length))


@pytest.mark.parametrize(
    ("request_code", "code", "kind", "retryable"),
    [
        (CHASSIS_CONTROL, 0xD4, AccessDenied, False),
        (CHASSIS_CONTROL, 0xC1, Rejected, False),
        (CHASSIS_CONTROL, 0xC9, Rejected, False),
        (CHASSIS_CONTROL, 0xCD, Rejected, False),
        (CHASSIS_CONTROL, 0xC0, Rejected, True),
        (SET_SESSION_PRIVILEGE, 0x81, AccessDenied, False),
    ],
)
def test_a_completion_code_says_that_nothing_was_done(
    request_code: tuple[int, int], code: int, kind: type[FenceError], retryable: bool
) -> None:
    error = completion_error(*request_code, code, "words")
    assert isinstance(error, kind)
    assert error.retryable is retryable


@pytest.mark.parametrize("code", [0xC3, 0xCE, 0xCF, 0xD5, 0xFF, 0x80, 0x42])
def test_a_completion_code_that_leaves_the_outcome_open_claims_nothing(code: int) -> None:
    assert type(completion_error(*CHASSIS_CONTROL, code, "words")) is FenceError


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [(0x00, AccessDenied, False), (0x0D, AccessDenied, False), (0x01, Rejected, True), (0x12, FenceError, True)],
)
def test_a_login_that_failed_says_whether_trying_again_can_help(
    status: int, kind: type[FenceError], retryable: bool
) -> None:
    error = login_error(status, "words")
    assert isinstance(error, kind)
    assert error.retryable is retryable
