"""A whole failover by a second level: the BMC acknowledges and does nothing, two outlets of a real SNMP agent do it.

The controller is a process of its own; hosts and OpenNebula are embedded ones, and the outlets feed one of the hosts.
"""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from tests.peers import snmp_pdu
from tests.peers.snmp_pdu import PduFarm
from tests.peers.test_found_by_fencing_check import secret, toml, with_secrets
from tests.whole.test_serve import served

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
HUNG = 2  #: kvm-03


async def test_two_outlets_end_what_a_lying_bmc_did_not(tmp_path: Path, pdu_farm: PduFarm) -> None:
    pdu = pdu_farm.start("raritan")
    pdu.break_with("lag", "1")
    table = with_secrets(
        toml(name="pdu", agent="pdu", level=2, hosts=["kvm-03"], address=pdu.address, port=pdu.port, model="raritan",
             outlets="3, 4", identity="noted", username=snmp_pdu.USER, auth_protocol="sha256"),
        auth_password=secret(tmp_path, snmp_pdu.AUTH), priv_password=secret(tmp_path, snmp_pdu.PRIV),
    )  # fmt: skip
    edits = {"[api]": f"{table}\n[api]", 'agent = "ipmi"': 'agent = "ipmi"\ntimeout = "5s"'}
    async with served(tmp_path / "served", **edits) as (controller, cloud), anyio.create_task_group() as group:

        async def feed() -> None:
            while True:
                if not pdu.is_on(3) and not pdu.is_on(4) and cloud.hardware.machines[HUNG].powered:
                    cloud.hardware.power(HUNG, False)
                await anyio.sleep(0.05)

        group.start_soon(feed)
        await controller.ready()
        with anyio.fail_after(30):
            while "4 of 4 hosts can be powered off; 5 of 5" not in (await controller.cli("fencing", "status"))[1]:
                await anyio.sleep(0.3)
        with anyio.fail_after(30):
            while json.loads((await controller.cli("status", "-o", "json"))[1])["settling_s"]:
                await anyio.sleep(0.2)
        cloud.hardware.machines[HUNG].bmc_stuck = True
        cloud.break_host(HUNG, "hang")
        with anyio.fail_after(120):
            state = ""
            while state != "recovered":
                rows = json.loads((await controller.cli("hosts", "-o", "json"))[1])
                [state] = [row["state"] for row in rows if row["id"] == HUNG]
                await anyio.sleep(0.5)
        problems = cloud.check(vms_must_wait=False)
        history = (await controller.cli("fencing", "history", "kvm-03"))[1]
        group.cancel_scope.cancel()
    assert problems == []
    assert sorted(pdu.orders()) == ["3 0", "4 0"]
    assert "pdu read off twice" in history or "is off: pdu" in history
