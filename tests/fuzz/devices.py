"""Doors to fence devices: BMCs, PDUs, programs. Nonsense is never OFF, and never the identity of a machine."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import anyio
from ha_controller_fence_agents import agent as bridge
from ha_controller_fence_agents import metadata
from ha_controller_ipmi.agent import IpmiAgent, IpmiConfig
from ha_controller_ipmi.errors import completion_error
from ha_controller_ipmi.rmcp import Credentials, Rmcp
from ha_controller_pdu.agent import PduAgent
from ha_controller_pdu.config import PduConfig
from ha_controller_pdu.snmp import Pdu, _Reply
from ha_controller_redfish import documents
from ha_controller_redfish.agent import RedfishAgent, RedfishConfig
from ha_controller_redfish.service import Login, Service
from pysnmp.proto import rfc1902, rfc1905

from ha_controller import process
from ha_controller.plugin import FenceError, PowerState
from ha_controller.sim import ipmi_wire
from ha_controller.sim.bmc import Bmc
from ha_controller.sim.ipmi_wire import Malformed

from .target import Feed, Target, demand, is_one_line, joined

PASSWORD = "fencer-secret-7"
CREDENTIALS = Credentials(username=b"fencer", password=PASSWORD.encode(), kg=None, privilege=3)


@functools.cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """The result of a coroutine; None when the door refused with its own error. Sleeping takes no time."""

    async def contained() -> Any:
        try:
            with anyio.fail_after(5):
                return await work()
        except FenceError as error:
            demand(PASSWORD not in str(error), "an error shows the password")
            demand(is_one_line(str(error)), "what is shown of an error holds control characters")
            return None

    async def no_sleep(delay: float) -> None:
        await asyncio.sleep(0)

    with mock.patch.object(anyio, "sleep", no_sleep):
        return _runner().run(contained())


# --- IPMI -------------------------------------------------------------------------------------------------------------


class _Wire:
    """A network with a BMC at its end; the answers go through `between`."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answers: list[bytes] = []
        self.errors: list[FenceError] = []

    def send(self, packet: bytes) -> None:
        self.sent.append(packet)

    def wake_after(self, delay_s: float | None) -> None:
        pass

    def succeed(self, data: bytes) -> None:
        self.answers.append(data)

    def fail(self, error: FenceError) -> None:
        self.errors.append(error)


class _Chassis:
    bmc_answers = True

    def power_is_on(self) -> bool:
        return True

    def order_power(self, on: bool) -> None:
        pass


def _bmc() -> Bmc:
    return Bmc(
        address="127.0.0.1",
        port=623,
        user="fencer",
        password=PASSWORD,
        system_uuid="4c4c4544-0000-4000-8000-000000000001",
        chassis=_Chassis(),
        clock=lambda: 0.0,
    )


def _packets(data: bytes) -> Iterator[bytes]:
    feed = Feed(data)
    while size := feed.take(1):
        yield feed.take(size[0])


def ipmi_packets(data: bytes) -> None:
    """Datagrams from the BMC's address, of somebody who does not know the password: no login, one error at most."""
    wire = _Wire()
    rmcp = Rmcp(CREDENTIALS, wire, "BMC")
    rmcp.log_in()
    for packet in _packets(data):
        rmcp.feed(packet)
        rmcp.wake()
        demand(len(wire.sent) < 400, "it sends without end")
    demand(wire.answers == [], "a login without the password")
    rmcp.end()
    rmcp.feed(data[:200])


def ipmi_session(data: bytes) -> None:
    """A BMC that knows the password and answers nonsense in the session: an answer's bytes, or one error."""
    wire, bmc = _Wire(), _bmc()
    rmcp = Rmcp(CREDENTIALS, wire, "BMC")
    rmcp.log_in()
    while wire.sent:
        with contextlib.suppress(Malformed):
            rmcp.feed(bmc._answer(wire.sent.pop(0), ("192.0.2.1", 623)))
    demand(wire.answers == [b""] and not wire.errors, "the embedded BMC lets nobody in")
    [(number, session)] = bmc._table.items()
    demand(number > 0 and session.keys is not None, "no session")
    rmcp.command(0x00, 0x01, b"")
    for packet in _packets(data):
        session.sequence_sent += 1
        keys, sequence = session.keys, session.sequence_sent
        rmcp.feed(ipmi_wire.seal(packet, keys, session_id=session.console_id, sequence=sequence))  # type: ignore[arg-type]
    demand(len(wire.answers) + len(wire.errors) <= 2, "more than one end of one command")
    rmcp.end()


class _EvilSession:
    """A session whose answers are the input."""

    cipher_suite = 17

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def command(self, netfn: int, command: int, data: bytes = b"") -> bytes:
        if code := self._feed.number(256):
            raise completion_error(netfn, command, code, f"completion code {code}")
        return self._feed.take(self._feed.number(20))


class _EvilIpmi(IpmiAgent):
    feed = Feed(b"")

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        yield _EvilSession(self.feed)


def ipmi_answers(data: bytes) -> None:
    """Answers to commands: what the agent makes of them. A chassis status that is cut short is never OFF."""
    agent = _EvilIpmi(IpmiConfig(address="192.0.2.1", username="fencer", password=PASSWORD))
    agent.feed = Feed(data)
    power = run(agent.power_state)
    demand(power is None or isinstance(power, PowerState), "no power state")
    if power is PowerState.OFF:
        demand(data[:1] == b"\0" and data[1] % 20 >= 3 and len(data) >= 5, "OFF from an answer that is cut short")
    report = run(agent.check)
    demand(report is None or is_one_line(report.summary), "a summary with control characters")
    identity = run(agent.identity)
    demand(identity is None or len(identity.system_uuid) == 36, "an identity that is none")


def _taken_from_a_login() -> tuple[bytes, ...]:
    """What the embedded BMC says in a login, once plainly and once with an answer in the session."""
    wire, bmc, said = _Wire(), _bmc(), b""
    rmcp = Rmcp(CREDENTIALS, wire, "BMC")
    rmcp.log_in()
    while wire.sent:
        answer = bmc._answer(wire.sent.pop(0), ("192.0.2.1", 623))
        said += bytes([len(answer)]) + answer
        rmcp.feed(answer)
    return (said, said[:40], said[40:])


CHASSIS_STATUS = bytes.fromhex("8104 7b 20 10 01 00 010000")
SESSION_SEEDS = tuple(bytes([len(each)]) + each for each in (
    CHASSIS_STATUS + bytes([-sum(CHASSIS_STATUS[3:]) & 0xFF]), bytes.fromhex("81047b201001d5f9"), bytes(7), b"",
))  # fmt: skip


# --- Redfish ----------------------------------------------------------------------------------------------------------

SYSTEM = {
    "@odata.id": "/redfish/v1/Systems/1",
    "Id": "1",
    "UUID": "4c4c4544-0000-4000-8000-000000000001",
    "SerialNumber": "S123",
    "PowerState": "Off",
    "Actions": {
        "#ComputerSystem.Reset": {
            "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
            "ResetType@Redfish.AllowableValues": ["On", "ForceOff"],
            "@Redfish.ActionInfo": "/redfish/v1/Systems/1/ResetActionInfo",
        }
    },
}
ROOT = {
    "Systems": {"@odata.id": "/redfish/v1/Systems"},
    "AccountService": {"@odata.id": "/redfish/v1/AccountService"},
    "Accounts": {"@odata.id": "/redfish/v1/Accounts"},
    "Members": [{"@odata.id": "/redfish/v1/Systems/1"}],
    "Members@odata.count": 1,
}
ACCOUNT = {
    "UserName": "fencer",
    "PasswordExpiration": "2026-12-01T00:00:00Z",
    "Links": {"Role": {"@odata.id": "/redfish/v1/Roles/Operator"}},
    "AssignedPrivileges": ["ConfigureComponents"],
    "Id": "Operator",
}
TASK = {"TaskState": "Exception", "Messages": [{"Message": "it is busy"}], "@odata.id": "/redfish/v1/Tasks/1"}
REFUSAL = {"error": {"message": "no", "@Message.ExtendedInfo": [{"Message": "ResourceInUse"}]}}


def redfish_documents(data: bytes) -> None:
    """Any JSON object, read as each kind of document."""
    document = Service._document(data)
    if document is None:
        return
    power = documents.power_of(document)
    demand(power is not PowerState.OFF or document.get("PowerState") == "Off", "OFF from something else than Off")
    identity = documents.identity_of(document)
    demand(identity is None or bool(identity.system_uuid or identity.serial), "an identity of nothing")
    for read in (
        lambda: documents.member_paths(document),
        lambda: documents.reset_action(document),
        lambda: documents.link(document, "Systems"),
        lambda: documents.own_path(document.get("@odata.id"), "it"),
    ):
        try:
            found = read()
        except FenceError:
            continue
        for path in found if isinstance(found, list) else [getattr(found, "target", found)]:
            demand(path.startswith("/") and not path.startswith("//"), "a path to elsewhere")
    documents.is_called(document, "S123")
    documents.allowed_reset_types(document)
    documents.task_failure(document)
    documents.is_running(document)
    documents.may_reset(document)
    documents.password_trouble(document, documents.datetime.now(documents.UTC))
    demand(isinstance(documents.said(document), str), "no words")


class _EvilRedfish(RedfishAgent):
    """Its service gives the input's answers, one after the other, and then none."""

    answers: Iterator[tuple[int, bytes]] = iter(())

    @contextlib.asynccontextmanager
    async def _service(self) -> AsyncIterator[Service]:
        login = Login(address="192.0.2.1", port=443, username="fencer", password=PASSWORD)
        service = Service(login, None, True)  # type: ignore[arg-type]  # nothing is sent

        async def request(method: str, path: str, body: object = None, headers: object = None) -> Any:
            demand(path.startswith("/"), "a request to elsewhere")
            status, raw = next(self.answers, (404, b""))
            response = SimpleNamespace(status=status, headers={"ETag": 'W/"1"', "Location": "/redfish/v1/Tasks/1"})
            return service._judged(method, path, response, raw)  # type: ignore[arg-type]

        service._request = request  # type: ignore[method-assign]
        yield service

    async def _certificate_note(self) -> str:
        return ""


STATUSES = (200, 202, 204, 401, 404, 409, 412, 500, 503, 302)


def redfish_answers(data: bytes) -> None:
    """Answers of a whole conversation: what the agent makes of them."""
    parts = Feed(data).parts()
    script = [(STATUSES[part[0] % len(STATUSES)] if part else 200, part[1:]) for part in parts[:30]]
    says_off = any(b"Off" in raw or b"\\u" in raw for _, raw in script)
    for ask in ("power_state", "identity", "check", "power_off"):
        agent = _EvilRedfish(RedfishConfig(address="192.0.2.1", username="fencer", password=PASSWORD))
        agent.answers = iter(script)
        answer = run(getattr(agent, ask))
        demand(answer is not PowerState.OFF or says_off, "OFF that nobody said")
        summary = getattr(answer, "summary", "")
        demand(PASSWORD not in summary, "a summary shows the password")


def _as_script(*answers: object) -> bytes:
    return joined(*(b"\x00" + json.dumps(each).encode() for each in answers))


# --- SNMP -------------------------------------------------------------------------------------------------------------

_TYPES: tuple[Callable[[bytes], Any], ...] = (
    lambda raw: rfc1902.Integer32(int.from_bytes(raw[:4].ljust(4, b"\0"), "big", signed=True)),
    lambda raw: rfc1902.OctetString(raw),
    lambda raw: rfc1902.Gauge32(int.from_bytes(raw[:4], "big")),
    lambda raw: rfc1902.Counter64(int.from_bytes(raw[:8], "big")),
    lambda raw: rfc1902.Opaque(raw),
    lambda raw: rfc1902.IpAddress(raw[:4].ljust(4, b"\0")),
    lambda raw: rfc1902.TimeTicks(int.from_bytes(raw[:4], "big")),
    lambda raw: rfc1902.Bits(raw),
    lambda raw: rfc1902.ObjectIdentifier((1, 3, *raw[:100])),
    lambda raw: rfc1902.Null(""),
    lambda raw: rfc1905.NoSuchObject(),
    lambda raw: rfc1905.NoSuchInstance(),
    lambda raw: rfc1905.EndOfMibView(),
)


def snmp_values(data: bytes) -> None:
    """A value of any type of SNMP where a number or a name is asked for."""
    feed = Feed(data)
    value = _TYPES[feed.number(len(_TYPES))](feed.rest())
    is_number = type(value).__name__ in ("Integer32", "Gauge32", "Counter64", "TimeTicks")
    config = PduConfig(address="192.0.2.1", model="apc-rpdu", outlets=("1",), version="2c", community="public")

    async def asked(self: Pdu, command: object, question: object) -> _Reply:
        return _Reply(value=value)

    with mock.patch.object(Pdu, "_asked", asked):
        pdu = Pdu(address="192.0.2.1", config=config)
        number = run(lambda: pdu.read_number("1.3.6"))
        demand(number is None or is_number, "a number that is none")
        text = run(lambda: pdu.read_text("1.3.6"))
        demand(text is None or (len(text) < 300 and is_one_line(text)), "a name that cannot be shown")
        power = run(PduAgent(config).power_state)
        demand(power is not PowerState.OFF or is_number, "OFF that is no number")


# --- programs ---------------------------------------------------------------------------------------------------------

METADATA = b"""<?xml version="1.0" ?><resource-agent name="fence_x" shortdesc="Fence agent for X"><parameters>
<parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><content type="string" default=""/>
<shortdesc lang="en">IP address</shortdesc></parameter><parameter name="method" required="0" deprecated="1">
<content type="select" default="onoff"><option value="onoff"/><option value="cycle"/></content></parameter>
</parameters><actions><action name="on" automatic="0"/><action name="off"/><action name="status"/></actions>
</resource-agent>"""


class _Bridge(bridge.BridgeAgent):
    ended = process.Ended(status=1, output="", errors="")

    def __init__(self) -> None:
        self.config = SimpleNamespace(program="fence_x", secrets={"password": _Hidden()}, parameters={})  # type: ignore[assignment]

    async def _run(self, action: str) -> process.Ended:
        return self.ended


class _Hidden:
    @staticmethod
    def get_secret_value() -> str:
        return PASSWORD


def fence_agent(data: bytes) -> None:
    """Exit status and output of a program: OFF needs both."""
    feed = Feed(data)
    status = feed.number(256) - 3
    output, _, errors = feed.rest().decode("utf-8", "replace").partition("\0")
    agent = _Bridge()
    agent.ended = process.Ended(status=status, output=output, errors=errors)
    power = run(agent.power_state)
    demand(power is not PowerState.OFF or (status == 2 and "Status: OFF" in output), "OFF without the words")
    demand(power is not PowerState.ON or status == 0, "ON without the status")
    try:
        _runner().run(agent.power_off())
    except FenceError as error:
        demand(status != 0 and is_one_line(str(error)) and PASSWORD not in str(error), "an error that cannot be shown")
    else:
        demand(status == 0, "done, although it failed")


def fence_agent_metadata(data: bytes) -> None:
    """What a program says of itself."""
    try:
        found = metadata._parsed(data)
    except ElementTree.ParseError:
        return
    given = {"ip": "192.0.2.1", "method": "x", "zone": None}
    demand(len("".join(metadata.complaints(found, given))) < 200_000, "complaints without end")


BOMB = b'<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><r shortdesc="&b;"/>'

TARGETS = (
    Target(name="ipmi-packets", run=ipmi_packets, seeds=_taken_from_a_login(), bytes_max=1200),
    Target(name="ipmi-session", run=ipmi_session, seeds=SESSION_SEEDS, bytes_max=200),
    Target(name="ipmi-answers", run=ipmi_answers, seeds=(b"\0\x03\0\0\0\0\x03\x01\0\0\0\x04\1\1\1\x02\0\x04\0\0\0\x03",
        b"\0\x01\0", b"\xd4", b"\xc1\xc1", b"\0\x10" + bytes(range(16))), bytes_max=200),
    Target(name="redfish-documents", run=redfish_documents, seeds=tuple(
        json.dumps(each).encode() for each in (SYSTEM, ROOT, ACCOUNT, TASK, REFUSAL))),
    Target(name="redfish-answers", run=redfish_answers, seeds=(
        _as_script(ROOT, ROOT, SYSTEM), _as_script(ROOT, ROOT, SYSTEM, ROOT, ROOT, ROOT, ACCOUNT, ACCOUNT),
        _as_script(ROOT, ROOT, SYSTEM) + b"\0\x01" + json.dumps(TASK).encode(),
        b"\x05" + json.dumps(REFUSAL).encode())),
    Target(name="snmp-values", run=snmp_values, seeds=tuple(bytes([kind]) + b"\0\0\0\2" for kind in range(len(_TYPES))),
        bytes_max=300),
    Target(name="fence-agent", run=fence_agent, seeds=(b"\x05Status: OFF\n\0", b"\x03Status: ON\n\0",
        b"\x05Failed: OFF\0Unable to connect/login to fencing device",
        b"\x04\0Connection timed out " + PASSWORD.encode())),
    Target(name="fence-agent-metadata", run=fence_agent_metadata, seeds=(METADATA, BOMB)),
)  # fmt: skip
