"""Settings of the Ceph agent: what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ha_controller_ceph import CephConfig
from pydantic import ValidationError


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    for name in ("keyring", "conf"):
        (tmp_path / name).write_text("")
    return {
        "addresses": "10.0.0.5", "datastores": [100], "keyring": tmp_path / "keyring", "conf": tmp_path / "conf",
    }  # fmt: skip


def test_addresses_are_literal_and_written_in_one_way(written: dict[str, Any]):
    config = CephConfig.model_validate(written | {"addresses": " fd00:0::5, 10.0.0.5 10.0.0.5 "})
    assert config.addresses == "10.0.0.5 fd00::5"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"addresses": "10.0.0.300"}, "10.0.0.300 is no IPv4 or IPv6 address"),
        ({"addresses": "10.0.0.5:0/1"}, "is no IPv4 or IPv6 address"),
        ({"addresses": "0.0.0.0"}, "no address of one host"),
        ({"addresses": "127.0.0.1"}, "no address of one host"),
        ({"addresses": " , "}, "at least one address"),
        ({"datastores": []}, "at least 1 item"),
        ({"user": "ha-controller"}, "should match pattern"),
        ({"keyring": "/no/such/file"}, "no such file"),
        ({"expires": "30m"}, "must be 1h at least"),
    ],
)
def test_what_cannot_work_is_refused(written: dict[str, Any], change: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        CephConfig.model_validate(written | change)
