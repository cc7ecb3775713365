"""`ha-controller fencing check` finds, before any outage, what would make a fence fail: on real BMCs and PDUs.

The controller is a process of its own. Its hosts and OpenNebula are embedded ones; their fence devices are ipmi_sim,
snmpd and, for accounts of Redfish, a double over real TLS.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.peers import redfish_double, snmp_pdu
from tests.peers.certificates import self_signed
from tests.peers.ipmi_sim import MONITOR, OPERATOR, IpmiSimFarm
from tests.peers.redfish_double import RedfishDouble
from tests.peers.snmp_pdu import PduFarm
from tests.whole.test_serve import Served, served

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def toml(**settings: Any) -> str:
    return "[[fence]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def secret(folder: Path, text: str) -> str:
    """Write a secret file; returns its path."""
    path = folder / f"secret-{text}"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def with_secrets(text: str, **paths: str) -> str:
    return text + "".join(f'{key} = {{ file = "{path}" }}\n' for key, path in paths.items())


async def checked(controller: Served, host: str) -> dict[str, Any]:
    """Check the devices of a host; returns device -> row."""
    await controller.ready()
    with anyio.fail_after(30):
        while (await controller.cli("fencing", "list", host))[0] == 3:
            await anyio.sleep(0.2)
    code, _ = await controller.cli("fencing", "check", host)
    _, shown = await controller.cli("fencing", "list", host, "-o", "json")
    [row] = json.loads(shown)
    return {"code": code, **{device["device"]: device for device in row["fencing"]}}


async def test_two_swapped_outlets_are_found(tmp_path: Path, pdu_farm: PduFarm) -> None:
    pdu = pdu_farm.start()
    pdu.break_with("names", "kvm-01\nkvm-02\n")
    account = {"username": snmp_pdu.USER, "auth_protocol": "sha256"}
    files = {"auth_password": secret(tmp_path, snmp_pdu.AUTH), "priv_password": secret(tmp_path, snmp_pdu.PRIV)}
    tables = "\n".join(
        with_secrets(
            toml(name=f"pdu-{host}", agent="pdu", level=2, hosts=[host], address=pdu.address, port=pdu.port,
                 model="apc-rpdu", outlets=outlet, names="{NAME}", **account),
            **files,
        )
        for host, outlet in (("kvm-01", "2"), ("kvm-02", "1"), ("kvm-03", "3"))
    )  # fmt: skip
    async with served(tmp_path / "served", **{"[[fence]]": f"{tables}\n[[fence]]"}) as (controller, _):
        first = await checked(controller, "kvm-01")
        assert first["code"] == 1
        assert "called 'kvm-02' there, not 'kvm-01': swapped?" in first["pdu-kvm-01"]["summary"]
        assert not first["pdu-kvm-01"]["ready"]
        assert "swapped?" in (await controller.cli("events"))[1]
        assert pdu.orders() == []


async def test_accounts_that_may_only_read_and_expired_passwords_are_found(
    tmp_path: Path, bmc_farm: IpmiSimFarm
) -> None:
    [bmc] = bmc_farm.start(1)
    certificate = self_signed(tmp_path)
    reader, expired = RedfishDouble(), RedfishDouble()
    reader.privileges = ["Login"]
    expired.account = {"PasswordExpiration": "2020-01-01T00:00:00Z"}
    password = secret(tmp_path, redfish_double.PASSWORD)
    async with redfish_double.running(reader, certificate), redfish_double.running(expired, certificate):
        redfish = {"agent": "redfish", "level": 2, "address": "127.0.0.1", "username": redfish_double.USERNAME}
        tables = [
            with_secrets(
                toml(name="ipmi-reader", agent="ipmi", level=2, hosts=["kvm-01"], address=bmc.address, port=bmc.port,
                     username=MONITOR.name),
                password=secret(tmp_path, MONITOR.password),
            ),
            with_secrets(
                toml(name="ipmi-good", agent="ipmi", level=3, hosts=["kvm-01"], address=bmc.address, port=bmc.port,
                     username=OPERATOR.name),
                password=secret(tmp_path, OPERATOR.password),
            ),
            with_secrets(toml(name="reader", hosts=["kvm-02"], port=reader.port, ca_file=str(certificate.cert),
                              **redfish), password=password),
            with_secrets(toml(name="expired", hosts=["kvm-03"], port=expired.port, ca_file=str(certificate.cert),
                              **redfish), password=password),
        ]  # fmt: skip
        joined = "\n".join(tables)
        async with served(tmp_path / "served", **{"[[fence]]": f"{joined}\n[[fence]]"}) as (controller, _):
            first, second, third = [await checked(controller, host) for host in ("kvm-01", "kvm-02", "kvm-03")]
    assert [row["code"] for row in (first, second, third)] == [1, 1, 1]
    assert "privilege" in first["ipmi-reader"]["summary"]
    assert first["ipmi-good"]["ready"]
    assert "may not switch the power" in second["reader"]["summary"]
    assert "password expired on 2020-01-01" in third["expired"]["summary"]
    assert reader.orders == expired.orders == bmc.orders() == []
