"""The embedded BMC against ipmitool, against a console that breaks the rules, and against garbage.

`Console` is written from the specification once more and shares no code with the BMC. It follows each packet with a
ping: the BMC answers in order, so what has not come before the pong was dropped.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import shutil
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.abc import ConnectedUDPSocket
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ha_controller.sim.bmc import Bmc, ChassisRefusal

PORTS = range(18600, 19000)
UUID = "4c4c4544-0042-4a10-8051-b4c04f4d3132"
UUID_IN_SMBIOS = bytes.fromhex("44454c4c 4200 104a 8051 b4c04f4d3132")
CHASSIS, APPLICATION = 0, 6
SUITES = {3: (1, 1, "sha1", 12), 17: (3, 4, "sha256", 16)}
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Box:
    """A chassis that does what it is told, unless it is told otherwise."""

    on: bool = True
    alive: bool = True
    stuck: bool = False
    refuses: bool = False
    orders: list[bool] = field(default_factory=list)
    looks: int = 0  #: how many packets the BMC has met

    @property
    def bmc_answers(self) -> bool:
        self.looks += 1
        return self.alive

    def power_is_on(self) -> bool:
        return self.on

    def order_power(self, on: bool) -> None:
        if self.refuses:
            raise ChassisRefusal
        self.orders.append(on)
        self.on = self.on if self.stuck else on


@dataclass
class Rig:
    bmc: Bmc
    box: Box
    port: int
    now: float = 0.0


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A BMC on a free port; the test fails when a packet made it raise anything."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    box = Box()
    for port in PORTS:
        made = Rig(None, box, port)  # type: ignore[arg-type]
        made.bmc = Bmc(
            address="127.0.0.1", port=port, user="admin", password="secret", system_uuid=UUID, chassis=box,
            clock=lambda made=made: made.now,
        )  # fmt: skip
        try:
            await made.bmc.start()
        except OSError:
            continue
        break
    yield made
    made.bmc.close()
    await asyncio.sleep(0)
    assert errors == []


@pytest.fixture
async def console(rig: Rig) -> AsyncIterator[Callable[..., Awaitable[Console]]]:
    """Build consoles; `password=b"wrong"` and so on change what they say."""
    async with AsyncExitStack() as stack:

        async def build(**says: Any) -> Console:
            socket = await anyio.create_connected_udp_socket("127.0.0.1", rig.port)
            return Console(await stack.enter_async_context(socket), **says)

        yield build


@pytest.fixture
async def stranger(console) -> Console:
    return await console()


def plus(kind: int, body: bytes) -> bytes:
    return b"\x06\x00\xff\x07\x06" + struct.pack("<BIIH", kind, 0, 0, len(body)) + body


def request(function: int, command: int, data: bytes = b"", *, address: int = 0x20, units: int = 0) -> bytes:
    return summed(bytes([address, function << 2 | units])) + summed(bytes([0x81, 0x04 | units, command]) + data)


def summed(data: bytes) -> bytes:
    return data + bytes([-sum(data) & 0xFF])


def ping(tag: int) -> bytes:
    return bytes.fromhex("0600ff06 000011be 80") + bytes([tag, 0, 0])


@dataclass
class Console:
    """A remote console that can be made to break every rule."""

    socket: ConnectedUDPSocket
    suite: int = 17
    user: bytes = b"admin"
    password: bytes = b"secret"
    role: int = 0x14
    id: int = 0xA0A1A2A3
    session_id: int = 0
    sequence: int = 0
    random: bytes = bytes(range(16))
    login_code: bytes = b""
    k1: bytes = b""
    k2: bytes = b""

    async def ask(self, packet: bytes) -> list[bytes]:
        """Send a packet; returns all that comes back for it."""
        tag = (packet[9] + 1) % 256 if len(packet) > 9 else 0
        await self.socket.send(packet)
        await self.socket.send(ping(tag))
        replies: list[bytes] = []
        with anyio.fail_after(10):
            while not replies or replies[-1][:4] != b"\x06\x00\xff\x06" or replies[-1][9] != tag:
                replies.append(await self.socket.receive())
        return replies[:-1]

    async def open(self) -> int:
        rakp, integrity, self.digest, self.check = SUITES.get(self.suite, (0, 0, "sha1", 0))
        records = b"".join(bytes([n, 0, 0, 8, number, 0, 0, 0]) for n, number in enumerate((rakp, integrity, 1)))
        [reply] = await self.ask(plus(0x10, bytes([7, 0, 0, 0]) + self.id.to_bytes(4, "little") + records))
        if reply[17] == 0:
            self.session_id = int.from_bytes(reply[24:28], "little")
            assert reply[28:] == records
        return reply[17]

    async def claim(self) -> int:
        head = struct.pack("<BxxxI", 8, self.session_id)
        user = bytes([len(self.user)]) + self.user
        [reply] = await self.ask(plus(0x12, head + self.random + bytes([self.role, 0, 0]) + user))
        if reply[17]:
            return reply[17]
        bmc_random, guid, code = reply[24:40], reply[40:56], reply[56:]
        ids = struct.pack("<II", self.id, self.session_id)
        mine = bytes([self.role]) + user
        proof = self.sign(self.password, ids + self.random + bmc_random + guid + mine)
        assert self.password != b"secret" or proof == code
        self.login_code = self.sign(self.password, bmc_random + ids[:4] + mine)
        key = self.sign(self.password, self.random + bmc_random + mine)
        self.k1, self.k2 = (self.sign(key, bytes([n]) * 20) for n in (1, 2))
        self.expected = self.sign(key, self.random + ids[4:] + guid)[: self.check]
        return 0

    async def prove(self, status: int = 0) -> list[int]:
        """RAKP message 3; returns the status in the answer, if there is one."""
        replies = await self.ask(plus(0x14, struct.pack("<BBxxI", 9, status, self.session_id) + self.login_code))
        assert all(reply[17] or reply[24:] == self.expected for reply in replies)
        return [reply[17] for reply in replies]

    async def log_in(self, privilege: int = 4) -> Console:
        assert (await self.open(), await self.claim(), await self.prove()) == (0, 0, [0])
        assert await self.command(APPLICATION, 0x3B, bytes([privilege])) == (0, bytes([privilege]))
        return self

    def sign(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self.digest)

    def sealed(self, message: bytes, *, sequence: int | None = None, encrypt: bool = True) -> bytes:
        padding = 15 - len(message) % 16
        plain = message + bytes(range(1, padding + 1)) + bytes([padding])
        return self.signed(self.encrypted(plain) if encrypt else message, sequence, 0xC0 if encrypt else 0x40)

    def signed(self, body: bytes, sequence: int | None = None, kind: int = 0xC0, trailer: bytes = b"") -> bytes:
        if sequence is None:
            self.sequence = sequence = self.sequence + 1
        padding = -(len(body) + 14) % 4
        signed = struct.pack("<BBIIH", 6, kind, self.session_id, sequence, len(body)) + body
        signed += trailer or b"\xff" * padding + bytes([padding, 7])
        return b"\x06\x00\xff\x07" + signed + self.sign(self.k1, signed)[: self.check]

    def encrypted(self, plain: bytes) -> bytes:
        return bytes(16) + self.cipher(bytes(16)).encryptor().update(plain)

    def cipher(self, vector: bytes) -> Cipher[modes.CBC]:
        return Cipher(algorithms.AES(self.k2[:16]), modes.CBC(vector))

    async def command(self, function: int, command: int, data: bytes = b"") -> tuple[int, bytes]:
        """Send a command in the session; returns completion code and data of its one answer."""
        [reply] = await self.ask(self.sealed(request(function, command, data)))
        assert self.sign(self.k1, reply[4 : -self.check])[: self.check] == reply[-self.check :]
        assert reply[6:10] == self.id.to_bytes(4, "little")
        length = int.from_bytes(reply[14:16], "little")
        plain = self.cipher(reply[16:32]).decryptor().update(reply[32 : 16 + length])
        message = plain[: -1 - plain[-1]]
        assert message[:2] == bytes([0x81, (function + 1) << 2])
        return message[6], message[7:-1]


async def ipmitool(rig: Rig, suite: int | None, *words: str, user: str = "admin", password: str = "secret"):
    """Run ipmitool; returns exit code and output."""
    if shutil.which("ipmitool") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("ipmitool is not installed")
    where = ["-I", "lanplus", "-H", "127.0.0.1", "-p", str(rig.port), "-R", "1", "-N", "1", "-U", user, "-E"]
    choice = [] if suite is None else ["-C", str(suite)]
    with anyio.fail_after(60):
        done = await anyio.run_process(
            ["ipmitool", *where, *choice, *words], check=False, env={**os.environ, "IPMI_PASSWORD": password}
        )
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.peer
@pytest.mark.parametrize("suite", [3, 17, None])
async def test_ipmitool_switches_off_and_on_and_reads_it_back(rig: Rig, suite: int | None):
    assert await ipmitool(rig, suite, "power", "status") == (0, "Chassis Power is on\n")
    assert (await ipmitool(rig, suite, "power", "off"))[0] == 0
    assert rig.box.on is False
    assert await ipmitool(rig, suite, "power", "status") == (0, "Chassis Power is off\n")
    assert (await ipmitool(rig, suite, "power", "on"))[0] == 0
    assert rig.box.on is True
    assert (rig.bmc.logins, rig.bmc.sessions) == (4, 0)


@pytest.mark.peer
async def test_ipmitool_cycles_reads_the_device_and_the_uuid(rig: Rig):
    assert (await ipmitool(rig, 17, "power", "cycle"))[0] == 0
    assert rig.box.orders == [False, True]
    assert "IPMI Version              : 2.0" in (await ipmitool(rig, 17, "mc", "info"))[1]
    assert UUID in (await ipmitool(rig, 3, "mc", "guid", "smbios"))[1]


@pytest.mark.peer
@pytest.mark.parametrize("suite", [3, 17])
@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"user": "nobody"}])
async def test_ipmitool_is_not_let_in_with_a_wrong_password_or_user(rig: Rig, suite: int, wrong: dict[str, str]):
    code, output = await ipmitool(rig, suite, "power", "off", **wrong)
    assert code != 0 and "Unable to establish" in output
    assert (rig.box.orders, rig.bmc.logins) == ([], 0)


@pytest.mark.peer
async def test_ipmitool_is_told_when_the_chassis_refuses_and_not_when_it_is_stuck(rig: Rig):
    rig.box.refuses = True
    assert "not supported in present state" in (await ipmitool(rig, 3, "power", "off"))[1]
    rig.box.refuses, rig.box.stuck = False, True
    assert (await ipmitool(rig, 3, "power", "off"))[0] == 0
    assert await ipmitool(rig, 3, "power", "status") == (0, "Chassis Power is on\n")


@pytest.mark.peer
async def test_ipmitool_gets_nothing_from_a_mute_bmc(rig: Rig):
    rig.box.alive = False
    assert (await ipmitool(rig, 3, "power", "off"))[0] != 0
    assert rig.box.orders == [] and rig.box.looks > 0


async def test_a_mute_bmc_answers_nothing_that_came_while_it_was_mute(rig: Rig, stranger: Console):
    rig.box.alive = False
    await stranger.socket.send(ping(1))
    with anyio.fail_after(10):
        while not rig.box.looks:
            await anyio.sleep(0.001)
    rig.box.alive = True
    await stranger.socket.send(ping(2))
    with anyio.fail_after(10):
        assert (await stranger.socket.receive()).hex() == "0600ff06000011be40020010000011be000000008100000000000000"


@pytest.mark.parametrize("suite", [3, 17])
async def test_a_login_fails_with_the_code_of_its_reason(rig: Rig, console, suite: int):
    assert await (await console(suite=8)).open() == 0x11
    for user, role, status in [(b"nobody", 0x14, 0x0D), (b"", 0x14, 0x0D), (b"admin", 0x15, 0x09)]:
        someone = await console(suite=suite, user=user, role=role)
        assert (await someone.open(), await someone.claim()) == (0, status)
    someone = await console(suite=suite, password=b"wrong")
    assert (await someone.open(), await someone.claim(), await someone.prove()) == (0, 0, [0x0F])
    assert await someone.prove() == []
    someone = await console(suite=suite)
    assert (await someone.open(), await someone.claim(), await someone.prove(status=0x0F)) == (0, 0, [0x0F])
    assert (rig.bmc.logins, rig.bmc.sessions) == (0, 0)


async def test_only_what_comes_before_a_login_is_answered_without_one(rig: Rig, stranger: Console):
    v15 = b"\x06\x00\xff\x07" + bytes(9)
    for function, command, data, completion, answer in [
        (APPLICATION, 0x37, b"", 0, UUID_IN_SMBIOS),
        (APPLICATION, 0x38, b"\x8e\x04", 0, bytes([1, 0x80, 4, 2, 0, 0, 0, 0])),
        (APPLICATION, 0x38, b"\x03\x04", 0xCC, b""),
        (APPLICATION, 0x54, b"\x0e\x00\x80", 0, bytes.fromhex("01 c003014181 c011034481")),
        (APPLICATION, 0x54, b"\x0e\x00\x81", 0, b"\x01"),
        (APPLICATION, 0x54, b"\x0e\x00", 0xC7, b""),
        (CHASSIS, 0x01, b"", 0xD4, b""),
        (CHASSIS, 0x02, b"\x00", 0xD4, b""),
        (APPLICATION, 0x3B, b"\x04", 0xD4, b""),
        (APPLICATION, 0x02, b"", 0xC1, b""),
    ]:
        message = request(function, command, data)
        expected = summed(bytes([0x81, (function + 1) << 2])) + summed(bytes([0x20, 4, command, completion]) + answer)
        assert await stranger.ask(plus(0, message)) == [plus(0, expected)]
        assert await stranger.ask(v15 + bytes([len(message)]) + message) == [v15 + bytes([len(expected)]) + expected]
    [reply] = await stranger.ask(plus(0, request(APPLICATION, 0x02, units=2)))
    assert reply[16:] == summed(bytes([0x81, 0x1E])) + summed(bytes([0x20, 0x06, 0x02, 0xC1]))
    assert rig.box.orders == []


async def test_a_message_that_is_not_well_formed_is_dropped(rig: Rig, stranger: Console):
    good = request(APPLICATION, 0x37)
    v15 = bytes.fromhex("0600ff07 00 00000000 00000000 07") + good
    assert await stranger.ask(v15) != [] and await stranger.ask(plus(0, good)) != []
    for packet in (v15, plus(0, good)):
        for length in range(len(packet)):
            assert await stranger.ask(packet[:length]) == []
        for place in range(5, 13):
            wrong = bytes([1]) if packet[4] == 0 or place > 5 else bytes([0x3F])
            assert await stranger.ask(packet[:place] + wrong + packet[place + 1 :]) == []
    assert await stranger.ask(plus(0, good) + b"x") == await stranger.ask(v15 + b"xx") == []
    for message in (b"", good[:-1], good[:-1] + b"x", b"x" + good[1:], good + b"x"):
        assert await stranger.ask(plus(0, message)) == []
    assert await stranger.ask(plus(0, request(APPLICATION + 1, 0x37))) == []
    assert await stranger.ask(plus(0, request(APPLICATION, 0x37, address=0x81))) == []


async def test_even_an_authentic_packet_must_be_well_formed(rig: Rig, console):
    admin = await (await console()).log_in()
    off = request(CHASSIS, 0x02, b"\x00")
    good = admin.encrypted(off + bytes(range(1, 8)) + b"\x07")
    for wrong in (
        *(admin.signed(good[:length]) for length in (0, 15, 16, 31)),
        *(admin.signed(good, trailer=trailer) for trailer in (b"\x07", b"\x02\x07", b"\xff\xff\x02\x06")),
        *(
            admin.signed(admin.encrypted(off + tail))
            for tail in (b"\x01\x02\x03\x04\x05\x06\x06\x07", bytes(7) + b"\x10")
        ),
        admin.sealed(off[:-1] + b"x"),
        admin.sealed(request(CHASSIS + 1, 0x02, b"\x00")),
    ):
        assert await admin.ask(wrong) == []
    assert rig.box.orders == []
    assert len(await admin.ask(admin.signed(good))) == 1


@pytest.mark.parametrize("suite", [3, 17])
async def test_commands_in_a_session(rig: Rig, console, suite: int):
    admin = await (await console(suite=suite)).log_in()
    for order, completion, power in [
        (0, 0, 0),
        (0, 0, 0),
        (2, 0xD5, 0),
        (3, 0xD5, 0),
        (1, 0, 1),
        (3, 0, 1),
        (5, 0xCC, 1),
    ]:
        assert await admin.command(CHASSIS, 0x02, bytes([order])) == (completion, b"")
        assert await admin.command(CHASSIS, 0x01) == (0, bytes([power, 0, 0]))
    assert await admin.command(CHASSIS, 0x02) == (0xC7, b"")
    assert await admin.command(CHASSIS, 0x0F) == (0xC1, b"")
    assert rig.box.orders == [False, False, True, False, True]


async def test_a_session_orders_nothing_above_its_privilege(rig: Rig, console):
    fresh = await console(id=1)
    assert (await fresh.open(), await fresh.claim(), await fresh.prove()) == (0, 0, [0])
    assert await fresh.command(CHASSIS, 0x02, b"\x00") == (0xD4, b"")
    assert await fresh.command(APPLICATION, 0x3B, b"\x00") == (0, b"\x02")
    user = await (await console(role=0x12)).log_in(privilege=2)
    assert await user.command(CHASSIS, 0x02, b"\x00") == (0xD4, b"")
    assert await user.command(APPLICATION, 0x3B, b"\x03") == (0x81, b"")
    assert await user.command(APPLICATION, 0x3B, b"\x05") == (0x80, b"")
    assert await user.command(APPLICATION, 0x3B, b"\x00") == (0, b"\x02")
    operator = await (await console(id=2, role=0x13)).log_in(privilege=3)
    assert await operator.command(APPLICATION, 0x3C, user.session_id.to_bytes(4, "little")) == (0xD4, b"")
    assert rig.box.orders == []
    assert await operator.command(CHASSIS, 0x02, b"\x00") == (0, b"")


async def test_a_closed_session_is_gone(rig: Rig, console):
    admin = await (await console()).log_in()
    assert await admin.command(APPLICATION, 0x3C, b"\x01\x02\x03\x04") == (0x87, b"")
    assert rig.bmc.sessions == 1
    assert await admin.command(APPLICATION, 0x3C, admin.session_id.to_bytes(4, "little")) == (0, b"")
    assert rig.bmc.sessions == 0
    assert await admin.ask(admin.sealed(request(CHASSIS, 0x01))) == []


async def test_a_packet_counts_once_in_any_order_but_only_near_the_highest_number(rig: Rig, console):
    admin = await (await console()).log_in()
    status = request(CHASSIS, 0x01)
    passed = {number: await admin.ask(admin.sealed(status, sequence=number)) != [] for number in (0, 1, 17, 16, 32, 31)}
    assert passed == {0: False, 1: False, 17: False, 16: True, 32: False, 31: True}
    passed = {number: await admin.ask(admin.sealed(status, sequence=number)) != [] for number in (14, 15, 16, 20)}
    assert passed == {14: False, 15: True, 16: False, 20: True}
    off = admin.sealed(request(CHASSIS, 0x02, b"\x00"), sequence=32)
    assert [len(await admin.ask(off)) for _ in range(3)] == [1, 0, 0]
    assert rig.box.orders == [False]


async def test_lost_answers_cost_nothing_and_a_forged_login_ends_no_session(rig: Rig, console):
    admin = await console()
    assert await admin.open() == await admin.open() == 0
    assert await admin.claim() == await admin.claim() == 0
    assert await admin.prove() == await admin.prove() == [0]
    assert (rig.bmc.logins, rig.bmc.sessions) == (1, 1)
    user = bytes([5]) + admin.user
    again = struct.pack("<BxxxI", 8, admin.session_id) + admin.random + bytes([admin.role, 0, 0]) + user
    assert await admin.ask(plus(0x12, again)) == []
    admin.login_code = bytes(32)
    assert await admin.prove() == []
    assert await admin.command(CHASSIS, 0x01) == (0, bytes([1, 0, 0]))


async def test_the_table_is_bounded_and_idle_sessions_leave_it(rig: Rig, console):
    admin = await (await console()).log_in()
    for number in range(3):
        someone = await console(id=number)
        assert (await someone.open(), await someone.open()) == (0, 0)  # the answer was lost: one line, not two
    late = await console(id=9)
    assert await late.open() == 0x01
    rig.now = 5.0
    assert await late.open() == 0
    rig.now = 59.9
    assert (await admin.command(CHASSIS, 0x01))[0] == 0
    rig.now = 119.8
    assert rig.bmc.sessions == 1
    rig.now = 119.95
    assert await admin.ask(admin.sealed(request(CHASSIS, 0x01))) == []
    assert rig.bmc.sessions == 0


@pytest.mark.parametrize("suite", [3, 17])
async def test_an_order_is_taken_whole_unchanged_and_encrypted_or_not_at_all(rig: Rig, console, suite: int):
    admin = await (await console(suite=suite)).log_in()
    order = admin.sealed(request(CHASSIS, 0x02, b"\x00"))
    for bit in range(8 * len(order)):
        forged = bytearray(order)
        forged[bit // 8] ^= 1 << bit % 8
        assert await admin.ask(bytes(forged)) == []
    for length in range(len(order)):
        assert await admin.ask(order[:length]) == []
    assert await admin.ask(admin.sealed(request(CHASSIS, 0x02, b"\x00"), encrypt=False)) == []
    assert rig.box.orders == []
    assert len(await admin.ask(order)) == 1


GARBAGE = st.one_of(
    st.binary(max_size=90),
    st.builds(plus, st.sampled_from([0, 0x10, 0x12, 0x14, 0x40, 0xC0]), st.binary(max_size=90)),
    st.builds(lambda head, tail: head + tail, st.sampled_from([ping(0)[:8], plus(0, b"")[:6]]), st.binary(max_size=90)),
)


@FUZZ
@given(garbage=GARBAGE)
async def test_garbage_never_gets_a_success(rig: Rig, stranger: Console, garbage: bytes):
    replies = await stranger.ask(garbage)
    assert all(reply[3] == 0x06 or reply[17] != 0 for reply in replies)
    assert (rig.box.orders, rig.bmc.logins, rig.bmc.sessions) == ([], 0, 0)


@FUZZ
@given(function=st.integers(0, 31), command=st.integers(0, 255), data=st.binary(max_size=20))
async def test_a_stranger_gets_a_success_for_three_commands_only(rig: Rig, stranger, function, command, data):
    [reply] = await stranger.ask(plus(0, request(2 * function, command, data)))
    assert reply[22] != 0 or (2 * function, command) in [(6, 0x37), (6, 0x38), (6, 0x54)]
    assert rig.box.orders == []


def test_a_password_that_ipmi_has_no_room_for_is_refused_and_not_told():
    with pytest.raises(ValueError, match="up to 20 bytes") as caught:
        Bmc(address="::1", port=1, user="admin", password="x" * 21, system_uuid=UUID, chassis=Box())
    assert "xxx" not in str(caught.value)
