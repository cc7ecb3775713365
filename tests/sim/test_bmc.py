"""The embedded BMC against an independent client, ipmitool, and against garbage."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ha_controller.sim.bmc import Bmc

PORT, UUID = 18701, "a1234567-89ab-cdef-a123-456789ab0001"


class Box:
    """A chassis that does what it is told."""

    def __init__(self) -> None:
        self.on, self.bmc_answers = True, True

    def power_is_on(self) -> bool:
        return self.on

    def order_power(self, on: bool) -> None:
        self.on = on


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    made = Box()
    bmc = Bmc(address="127.0.0.1", port=PORT, user="admin", password="secret", system_uuid=UUID, chassis=made)
    await bmc.start()
    yield made
    bmc.close()
    await anyio.lowlevel.checkpoint()


async def ipmitool(suite: int, *words: str, password: str = "secret") -> tuple[int, str]:
    if shutil.which("ipmitool") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("ipmitool is not installed")
    with anyio.fail_after(40):
        done = await anyio.run_process(
            ["ipmitool", "-I", "lanplus", "-C", str(suite), "-R", "1", "-N", "1", "-H", "127.0.0.1", "-p", str(PORT),
             "-U", "admin", "-P", password, *words],
            check=False,
        )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.peer
@pytest.mark.parametrize("suite", [3, 17])
async def test_ipmitool_powers_off_and_reads_it_back(box: Box, suite: int):
    assert "is on" in (await ipmitool(suite, "power", "status"))[1]
    assert (await ipmitool(suite, "power", "off"))[0] == 0
    assert box.on is False
    assert "is off" in (await ipmitool(suite, "power", "status"))[1]


@pytest.mark.peer
async def test_a_wrong_password_and_a_dead_bmc_are_refused(box: Box):
    assert (await ipmitool(3, "power", "off", password="wrong"))[0] != 0
    box.bmc_answers = False
    assert (await ipmitool(3, "power", "off"))[0] != 0
    assert box.on is True


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=80), head=st.sampled_from([b"", b"\x06\x00\xff\x07", b"\x06\x00\xff\x07\x06\x12",
       b"\x06\x00\xff\x07\x06\x10", b"\x06\x00\xff\x07\x06\xc0", b"\x06\x00\xff\x06"]))  # fmt: skip
def test_garbage_is_dropped_and_never_an_order(head: bytes, tail: bytes):
    box = Box()
    bmc = Bmc(address="127.0.0.1", port=PORT, user="admin", password="secret", system_uuid=UUID, chassis=box)
    answers: list[bytes] = []

    class Wire:
        def sendto(self, data: bytes, address: object) -> None:
            answers.append(data)

    async def send() -> None:
        bmc._transport = Wire()  # type: ignore[assignment]
        bmc.datagram_received(head + tail, ("127.0.0.1", 9))

    anyio.run(send)
    assert box.on is True
    assert bmc.logins == 0
