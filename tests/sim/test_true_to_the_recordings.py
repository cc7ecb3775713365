"""The embedded oned against bodies that were recorded from a real oned 7.4.0: same elements, same order, same codes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from lxml import etree

from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_server import OnedServer

RECORDINGS = Path(__file__).parents[3] / "shared" / "oned-recordings"
pytestmark = pytest.mark.shared


@pytest.fixture
def recorded():
    if not RECORDINGS.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the recordings are not beside the project")

    def recorded(number: int, part: str) -> bytes:
        (path,) = RECORDINGS.glob(f"{number:03}-*.{part}.xml")
        return path.read_bytes()

    return recorded


@pytest.fixture
def cloud() -> EmbeddedCloud:
    """Six hosts as in the recordings; nothing is started."""
    made = EmbeddedCloud(hosts=6, vms_per_host=5, network=19, clock=lambda: 1795397796.0)
    for vm in made.oned.vms.values():
        vm.datastore = 100
    return made


def parts(answer: bytes | str) -> list[tuple[str, str]]:
    """Types and texts of the values of an answer."""
    root = etree.fromstring(answer.encode() if isinstance(answer, str) else answer)
    return [(value[0].tag, value[0].text or "") for value in root.findall(".//data/value")]


def shape(document: str) -> list[str]:
    """The elements of a document in their order, without what a template may hold."""
    root = etree.fromstring(document)
    for template in root.iter("TEMPLATE", "USER_TEMPLATE"):
        for child in list(template):
            template.remove(child)
    return [element.tag for element in root.iter()]


def ask(server: OnedServer, request: bytes) -> str:
    return server.answer(request.replace(b"oneadmin:oneadmin", b"oneadmin:embedded-cloud"))


@pytest.mark.parametrize("number", [24, 53, 86, 197], ids=["host", "vm", "vm-unknown", "host-error"])
def test_documents_have_the_recorded_elements_in_the_recorded_order(recorded, cloud, number):
    request = recorded(number, "request")
    if number == 86:
        cloud.oned.vms[0].lcm_state = 16
    if number == 197:
        cloud.oned.hosts[5].state = 3
    (_, ok), (_, document), _ = parts(ask(cloud.server, request))
    (_, truth), (_, recorded_document), _ = parts(recorded(number, "response"))
    assert ok == truth == "1"
    ids = re.compile(r"<VMS>.*?</VMS>")
    assert shape(ids.sub("<VMS></VMS>", document)) == shape(ids.sub("<VMS></VMS>", recorded_document))


@pytest.mark.parametrize("number", [25, 36, 37, 54, 70, 72, 75, 76, 79, 80, 71, 30])
def test_refusals_have_the_recorded_code_types_and_text(recorded, cloud, number):
    mine, truth = parts(ask(cloud.server, recorded(number, "request"))), parts(recorded(number, "response"))
    assert [kind for kind, _ in mine] == [kind for kind, _ in truth]
    assert mine[:3] == truth[:3]


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7])
def test_bad_logins_are_refused_as_recorded(recorded, cloud, number):
    assert parts(cloud.server.answer(recorded(number, "request"))) == parts(recorded(number, "response"))


@pytest.mark.parametrize("number", [8, 9, 10, 11, 12])
def test_faults_have_the_recorded_code(recorded, cloud, number):
    code = re.compile(rb"faultCode</name>\s*<value><i4>(-?\d+)")
    mine = code.search(ask(cloud.server, recorded(number, "request")).encode())
    truth = code.search(recorded(number, "response"))
    assert mine and truth
    assert mine[1] == truth[1]


@pytest.mark.parametrize("number", [49, 48, 60, 73, 74, 32, 34, 28])
def test_plain_answers_are_as_recorded(recorded, cloud, number):
    if number in (73, 74):
        request = re.sub(rb"<int>\d+</int>", b"<int>1</int>", recorded(number, "request"), count=1)
        assert [kind for kind, _ in parts(ask(cloud.server, request))] == ["boolean", "i4", "i4"]
        return
    assert parts(ask(cloud.server, recorded(number, "request"))) == parts(recorded(number, "response"))


def test_a_move_of_an_unknown_vm_and_its_repetitions_answer_as_recorded(recorded, cloud):
    """Recordings 151 to 153: accepted, wrong state while it moves, already there when it is done."""
    oned, server, now = cloud.oned, cloud.server, 1795397796.0
    call = parts(recorded(151, "response"))
    vm = oned.vms[int(call[1][1])] if int(call[1][1]) in oned.vms else oned.vms[6]
    vm.lcm_state = 16
    target = 0 if vm.host != 0 else 2
    request = recorded(151, "request")
    numbers = re.findall(rb"<int>(-?\d+)</int>", request)
    request = request.replace(b"<int>%s</int>" % numbers[0], b"<int>%d</int>" % vm.id, 1)
    head, tail = request.split(b"<int>%d</int>" % vm.id, 1)
    request = head + b"<int>%d</int>" % vm.id + re.sub(rb"<int>-?\d+</int>", b"<int>%d</int>" % target, tail, count=1)
    assert parts(ask(server, request))[0] == ("boolean", "1")
    assert (vm.lcm_state, vm.host) == (60, target)
    assert parts(ask(server, request))[1:3] == parts(recorded(152, "response"))[1:3]
    oned.advance(now + 1)
    oned.advance(now + 2)
    assert vm.lcm_state == 3
    text = parts(ask(server, request))[1][1]
    assert re.fullmatch(r"\[one.vm.migrate\] VM is already running on host \[\d+\] and datastore \[100\]", text)


def test_the_lever_takes_the_recorded_states(cloud):
    """Recordings 192 to 201: OFFLINE, INIT with the VMs still RUNNING, ERROR with the VMs UNKNOWN, DISABLED."""
    oned, now = cloud.oned, 1795397796.0
    cloud.break_host(1, "power-loss")
    vms = [vm for vm in oned.vms.values() if vm.host == 1]
    oned.set_status(1, 2, now)
    assert oned.hosts[1].state == 8
    oned.set_status(1, 0, now)
    oned.advance(now + 1)
    assert (oned.hosts[1].state, {vm.lcm_state for vm in vms}) == (0, {3})
    oned.advance(now + 3.1)
    assert (oned.hosts[1].state, {vm.lcm_state for vm in vms}) == (3, {16})
    oned.set_status(1, 1, now + 3.2)
    assert oned.hosts[1].state == 4


def test_the_lever_on_a_living_host_is_harmless(cloud):
    """Recordings 205 and 206: MONITORED again, its VMs stay RUNNING."""
    oned, now = cloud.oned, 1795397796.0
    oned.set_status(1, 2, now)
    oned.set_status(1, 0, now)
    oned.advance(now + 0.4)
    assert oned.hosts[1].state == 2
    assert {vm.lcm_state for vm in oned.vms.values() if vm.host == 1} == {3}


def test_stock_monitoring_notices_a_dead_host_after_minutes_only(cloud):
    oned, now = cloud.oned, 1795397796.0
    cloud.break_host(1, "power-loss")
    for second in range(150):
        oned.advance(now + second)
    assert oned.hosts[1].state == 2
    for second in range(150, 220):
        oned.advance(now + second)
    assert oned.hosts[1].state == 3
