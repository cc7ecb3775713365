"""pyghmi's protocol code behind our own walls: fed with bytes that no BMC would send. No network."""

from __future__ import annotations

import random

import pytest
from ha_controller_ipmi.rmcp import Credentials, Rmcp

from ha_controller.plugin import FenceError, Unreachable

CREDENTIALS = Credentials(username=b"fencer", password=b"fencer-secret-7", kg=None, privilege=3)
AUTHENTICATION_CAPABILITIES = 0x38


class RecordingWire:
    """Implements `rmcp.Wire`; keeps what the protocol wants done."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.delay_s: float | None = None
        self.answers: list[bytes] = []
        self.errors: list[FenceError] = []

    def send(self, packet: bytes) -> None:
        self.sent.append(packet)

    def wake_after(self, delay_s: float | None) -> None:
        self.delay_s = delay_s

    def succeed(self, data: bytes) -> None:
        self.answers.append(data)

    def fail(self, error: FenceError) -> None:
        self.errors.append(error)


def started() -> tuple[Rmcp, RecordingWire]:
    wire = RecordingWire()
    rmcp = Rmcp(CREDENTIALS, wire, "BMC under test")
    rmcp.log_in()
    return rmcp, wire


def capabilities(data: bytes) -> bytes:
    """Build the answer to the first question of a login, which asks what the BMC can do."""
    message = bytes((0x81, 0x1C, 0x63, 0x20, 0x00, AUTHENTICATION_CAPABILITIES, 0x00)) + data + b"\x00"
    return b"\x06\x00\xff\x07" + bytes(9) + bytes((len(message),)) + message


def test_a_login_begins_with_one_packet_and_a_timer() -> None:
    _, wire = started()
    assert len(wire.sent) == 1
    assert wire.delay_s is not None


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_never_raise_and_never_log_in(seed: int) -> None:
    noise = random.Random(seed)  # not for secrets
    for _ in range(200):
        rmcp, wire = started()
        for _ in range(noise.randrange(1, 6)):
            packet = bytearray(noise.randbytes(noise.randrange(0, 90)))
            packet[:4] = b"\x06\x00\xff\x07"  # else it would be dropped unread
            packet[4:6] = bytes((noise.choice((0, 2, 6)), noise.choice((0, 0x11, 0x13, 0x15, 0xC0))))
            rmcp.feed(bytes(packet))
        assert wire.answers == []
        rmcp.end()


def test_an_answer_without_its_data_ends_the_login_with_a_fence_error() -> None:
    rmcp, wire = started()
    rmcp.feed(capabilities(b""))
    assert [type(error) for error in wire.errors] == [FenceError]
    assert "makes no sense" in str(wire.errors[0])


def test_a_downgrade_to_ipmi_1_5_is_refused() -> None:
    rmcp, wire = started()
    rmcp.feed(capabilities(bytes((1, 0x04, 0, 0, 0, 0, 0, 0))))
    assert "IPMI 2.0" in str(wire.errors[0])
    assert len(wire.sent) == 1


def test_ipmi_2_0_is_opened_with_the_strong_cipher_suite() -> None:
    rmcp, wire = started()
    rmcp.feed(capabilities(bytes((1, 0x80, 0, 0x02, 0, 0, 0, 0))))
    assert wire.errors == []
    assert rmcp.cipher_suite == 17
    assert wire.sent[1][4:6] == b"\x06\x10"  # RMCP+ open session request


def test_silence_is_given_up_and_then_kept() -> None:
    rmcp, wire = started()
    wakes = 0
    while wire.delay_s is not None:
        rmcp.wake()
        wakes += 1
        assert wakes < 100
    assert [type(error) for error in wire.errors] == [Unreachable]
    sent = len(wire.sent)
    rmcp.wake()
    rmcp.feed(capabilities(bytes((1, 0x80, 0, 0x02, 0, 0, 0, 0))))
    rmcp.end()
    assert len(wire.sent) == sent


def test_nothing_is_sent_after_the_end() -> None:
    rmcp, wire = started()
    rmcp.end()
    sent = len(wire.sent)
    rmcp.feed(capabilities(bytes((1, 0x80, 0, 0x02, 0, 0, 0, 0))))
    rmcp.wake()
    rmcp.command(0, 1, b"")
    assert len(wire.sent) == sent
    assert wire.delay_s is None


def test_two_sessions_never_share_an_id() -> None:
    assert started()[0].localsid != started()[0].localsid


def test_credentials_hide_their_secrets() -> None:
    shown = repr(Credentials(username=b"fencer", password=b"hush-hush", kg=b"the-key", privilege=3))
    assert "fencer" in shown
    assert "hush-hush" not in shown
    assert "the-key" not in shown
