"""What is written on a VM about the order of starts, read from a document as OpenNebula sends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.adapters.opennebula.documents import VM
from ha_controller.adapters.opennebula.reader import DocumentReader
from ha_controller.adapters.recoverer.startup import startup_of
from ha_controller.core.resources import ReadyBy, ReadyGate, Startup

CARDS = """
<NIC><IP><![CDATA[192.0.2.66]]></IP></NIC>
<NIC><NETWORK_ID>1</NETWORK_ID><NIC_ID>0</NIC_ID></NIC>
<NIC><NETWORK_ID>2</NETWORK_ID><NIC_ID>1</NIC_ID><IP><![CDATA[192.0.2.7]]></IP><IP6><![CDATA[2001:DB8::7]]></IP6></NIC>
<NIC_ALIAS><NETWORK_ID>2</NETWORK_ID><IP><![CDATA[192.0.2.9]]></IP></NIC_ALIAS>
<NIC><NETWORK_ID>2</NETWORK_ID><NIC_ID>2</NIC_ID><IP><![CDATA[192.0.2.8]]></IP></NIC>
"""


def read(cards: str = "", **attributes: str) -> Startup:
    written = "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in attributes.items())
    reader = DocumentReader(VM)
    reader.feed(
        f"<VM><ID>7</ID><NAME>app</NAME><STATE>3</STATE><LCM_STATE>3</LCM_STATE><TEMPLATE>{cards}</TEMPLATE>"
        f"<USER_TEMPLATE>{written}</USER_TEMPLATE></VM>"
    )
    return startup_of(reader.close()[0])


def test_all_of_it_is_read():
    startup = read(
        HA_PRIORITY="-7", HA_AFTER="db-1, 12 ,group:shop/db", HA_READY_DELAY="20", SERVICE_ID="4", ROLE_NAME="app"
    )
    assert startup == Startup(
        priority=-7, after=("db-1", "12", "group:shop/db"), ready_delay_s=20.0, service=4, role="app"
    )


def test_nothing_written_is_nothing_read():
    assert read() == Startup()


@pytest.mark.parametrize("written", ["high", "1.5", "", "9" * 5000, "1e3"])
def test_a_typing_error_counts_as_not_written(written):
    startup = read(HA_PRIORITY=written, HA_READY_DELAY=written, HA_AFTER=" , ,")
    values = {"HA_PRIORITY", "HA_READY_DELAY"} if written else set()
    assert {each.partition("=")[0] for each in startup.wrong} == values
    assert all("is no whole number" in each and len(each) < 120 for each in startup.wrong)
    assert replace(startup, wrong=()) == Startup()


def test_numbers_have_limits():
    assert read(HA_PRIORITY="99999999").priority == 10000
    assert read(HA_READY_DELAY="99999999").ready_delay_s == 3600.0
    assert read(HA_READY_DELAY="-5").ready_delay_s == 0.0


def test_an_owner_who_writes_megabytes_has_a_hundred_names_read():
    """Each reading of a VM looks at them, in the loop that decides."""
    startup = read(HA_AFTER=",".join(f"vm-{n}" for n in range(50_000)), ROLE_NAME="r" * 10**6)
    assert startup.after == tuple(f"vm-{n}" for n in range(100))
    assert startup.wrong == ("HA_AFTER has more than 100 names: the others are not waited for",)
    assert read(HA_AFTER="a," + "b" * 10**6).after == ("a", "b" * 60 + "...")
    assert len(startup.role) <= 200


# --- HA_READY ---


@pytest.mark.parametrize(
    ("written", "gate"),
    [
        ("", None),
        ("running", None),
        ("RUNNING ", None),
        ("agent", ReadyGate(by=ReadyBy.AGENT)),
        ("Agent", ReadyGate(by=ReadyBy.AGENT)),
        ("tcp:5432", ReadyGate(by=ReadyBy.TCP, port=5432, address="192.0.2.7")),
        (" TCP:65535", ReadyGate(by=ReadyBy.TCP, port=65535, address="192.0.2.7")),
        ("tcp:22@192.0.2.8", ReadyGate(by=ReadyBy.TCP, port=22, address="192.0.2.8")),
        ("tcp:22@192.0.2.9", ReadyGate(by=ReadyBy.TCP, port=22, address="192.0.2.9")),
        ("tcp:22@2001:db8:0::7", ReadyGate(by=ReadyBy.TCP, port=22, address="2001:db8::7")),
        ("tcp:22@[2001:db8::7]", ReadyGate(by=ReadyBy.TCP, port=22, address="2001:db8::7")),
    ],
)
def test_how_it_is_shown_that_a_vm_is_ready(written, gate):
    startup = read(CARDS, HA_READY=written)
    assert (startup.ready, startup.wrong) == (gate, ())


@pytest.mark.parametrize(
    "written",
    ["yes", "tcp", "tcp:", "tcp:0", "tcp:65536", "tcp:999999", "tcp:-1", "tcp:ssh", "tcp:22@", "tcp:22@db-1", "udp:53",
     "tcp:22@192.0.2.7/24", "tcp:22;22", "agent,tcp:22", "tcp:٢٢"],
)  # fmt: skip
def test_what_cannot_be_read_counts_as_running_and_is_named(written):
    startup = read(CARDS, HA_READY=written)
    assert startup.ready is None
    [wrong] = startup.wrong
    assert wrong.startswith(f"HA_READY={written} is not understood")


@pytest.mark.parametrize("address", ["192.0.2.66", "192.0.2.1", "127.0.0.1", "2001:db8::8", "1.2.3", "0.0.0.0"])
def test_an_address_that_opennebula_has_not_given_to_the_vm_is_never_asked(address):
    """Its owner writes the attribute: the controller must not become a scanner of anybody's ports."""
    startup = read(CARDS, HA_READY=f"tcp:22@{address}")
    assert startup.ready is None
    assert startup.wrong == (f"HA_READY=tcp:22@{address}: OpenNebula has given the VM no such address",)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "::1", "fe80::1", "nonsense"])
def test_addresses_that_are_no_way_to_a_vm_are_passed_over(address):
    first = f"<NIC><NETWORK_ID>1</NETWORK_ID><IP>{address}</IP></NIC>"
    assert read(first + CARDS, HA_READY="tcp:22").ready == ReadyGate(by=ReadyBy.TCP, port=22, address="192.0.2.7")
    assert read(first, HA_READY="tcp:22").ready == ReadyGate(by=ReadyBy.TCP, port=22, address="")


MADE = "2001:db8::1ff:fe02:304"  #: of 02:00:01:02:03:04, as oned makes it


@pytest.mark.parametrize("name", ["IP6_GLOBAL", "IP6_ULA"])
def test_an_address_that_opennebula_made_of_the_mac_address_is_asked(name):
    card = f"<NIC><NETWORK_ID>1</NETWORK_ID><MAC>02:00:01:02:03:04</MAC><{name}>2001:db8::ff:fe02:304</{name}></NIC>"
    assert read(card, HA_READY="tcp:22").ready == ReadyGate(by=ReadyBy.TCP, port=22, address="")
    card = card.replace("2001:db8::ff:fe02:304", MADE)
    assert read(card, HA_READY="tcp:22").ready == ReadyGate(by=ReadyBy.TCP, port=22, address=MADE)
    assert read(card.replace("02:00", "02:07"), HA_READY="tcp:22").ready == ReadyGate(by=ReadyBy.TCP, port=22)


@pytest.mark.parametrize("address", ["2001:db8::1", "::ffff:127.0.0.1", "::ffff:192.0.2.1", "fd00::1"])
@pytest.mark.parametrize("name", ["IP6_GLOBAL", "IP6_ULA"])
def test_an_address_that_the_owner_wrote_beside_the_lease_is_never_asked(name, address):
    """oned keeps it where the network has no prefix of that kind."""
    card = (
        f"<NIC><NETWORK_ID>1</NETWORK_ID><MAC>02:00:01:02:03:04</MAC><IP>192.0.2.7</IP><{name}>{address}</{name}></NIC>"
    )
    assert read(card, HA_READY=f"tcp:22@{address}").ready is None
    assert read(card, HA_READY="tcp:22").ready == ReadyGate(by=ReadyBy.TCP, port=22, address="192.0.2.7")
