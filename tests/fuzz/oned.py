"""Doors to OpenNebula: XML-RPC replies, documents, and what owners of VMs and hosts write into them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from ha_controller.adapters.opennebula import OpenNebulaError, documents, storage
from ha_controller.adapters.opennebula.client import Client
from ha_controller.adapters.opennebula.models import OnedHost, OnedVm
from ha_controller.adapters.opennebula.reader import BadDocument, DocumentReader
from ha_controller.adapters.opennebula.xmlrpc import _SCRUB, ReplyReader, request_body
from ha_controller.adapters.recoverer import FencePlan, Recoverer, Scope
from ha_controller.core.model import Host, Vm
from ha_controller.core.placement.expression import LENGTH_MAX, Unreadable, parse
from ha_controller.sim.cloud import EmbeddedCloud

from .target import Feed, Target, demand, is_one_line, joined, pieces

KINDS = (
    documents.HOSTS,
    documents.VMS,
    documents.HOST,
    documents.VM,
    documents.USER,
    documents.DATASTORES,
    documents.CLUSTERS,
    documents.VM_GROUPS,
    documents.HOOKS,
    documents.MONITORING,
)
SESSION = "tester:correct-horse"
_INT64 = 2**63


class _Secret:
    @staticmethod
    def get_secret_value() -> str:
        return SESSION


@functools.cache
def _recoverer() -> Recoverer:
    return Recoverer(
        Client("http://127.0.0.1:2633/RPC2", _Secret()),
        report=lambda event: None,
        may_act=None,  # type: ignore[arg-type]  # nothing is ordered here
        clock=lambda: 1_800_000_000.0,
        scope=Scope(places=("RACK",)),
        poll_s=5.0,
        equip=lambda hosts: {},
    )


def _judge_host(model: OnedHost) -> Host:
    host = _recoverer()._host(model, FencePlan())
    demand(is_one_line(host.name), "a host's name holds control characters")
    demand(math.isfinite(float(model.monitored_at)), "a time that is none")
    demand(all(0 <= vm < _INT64 for vm in host.zombies), "a zombie that is no VM")
    return host


def _judge_vm(model: OnedVm) -> Vm:
    vm = _recoverer()._vm(model)
    demand(is_one_line(vm.name), "a VM's name holds control characters")
    demand(is_one_line(vm.obstacle), "an obstacle holds control characters")
    demand(math.isfinite(vm.found_missing_at) and math.isfinite(model.cpu), "a number that is none")
    demand(abs(vm.cpu) < _INT64 and abs(vm.memory_mb) < _INT64, "more than there can be")
    delay_s = vm.startup.ready_delay_s
    demand(delay_s is None or 0 <= delay_s <= 3600, "a delay beyond its bounds")
    storage.disks_are_lost(model, {})
    return vm


def _judge(model: object) -> None:
    demand(-_INT64 <= getattr(model, "id", 0) < _INT64, "an id beyond 64 bits")
    if isinstance(model, OnedHost):
        _judge_host(model)
    elif isinstance(model, OnedVm):
        _judge_vm(model)


def reply(data: bytes) -> None:
    """Any bytes as the body of an answer: models, or OpenNebulaError, or BadDocument."""
    feed = Feed(data)
    kind, length = KINDS[feed.number(len(KINDS))], 1 + feed.number(256)
    reader, document = ReplyReader("one.fuzz", body_limit=1 << 20), DocumentReader(kind)
    try:
        for piece in pieces(feed.rest(), length):
            if text := reader.feed(piece):
                document.feed(text)
        reader.close()
        models = document.close()
    except OpenNebulaError as error:
        demand(is_one_line(str(error)), "an error holds control characters")
        demand(len(str(error)) < 600, "an error without an end")
    except BadDocument:
        pass
    else:
        for model in models:
            _judge(model)


def document(data: bytes) -> None:
    """Any text as the payload of an answer: models or BadDocument."""
    feed = Feed(data)
    kind, length = KINDS[feed.number(len(KINDS))], 1 + feed.number(256)
    reader = DocumentReader(kind)
    text = feed.rest().decode("utf-8", "replace")
    try:
        for start in range(0, len(text), length):
            reader.feed(text[start : start + length])
        models = reader.close()
    except BadDocument:
        return
    for model in models:
        _judge(model)


def expression(data: bytes) -> None:
    """A requirement and values of a host's attribute: whether it holds, or Unreadable, which never quotes it."""
    first, *values = Feed(data).parts()
    text = first.decode("utf-8", "replace")
    try:
        read = parse(text)
    except Unreadable as error:
        demand(is_one_line(str(error)), "the error holds control characters")
        demand(len(str(error)) < 200, "the error quotes the expression")
        return
    demand(len(text) <= LENGTH_MAX, "too long an expression was read")
    known = tuple(value.decode("utf-8", "replace") for value in values)
    demand(read.holds(lambda name: known, {1, 2}) in (True, False), "neither holds nor does not")
    demand(read.among(lambda comparison: 0b101, 0b111) & ~0b111 == 0, "hosts that do not exist")


def owner_attributes(data: bytes) -> None:
    """Attributes that people write on hosts and VMs: a host and a VM of the core, whatever they are."""
    first, *lines = Feed(data).parts(b"\n")
    pairs = [line.decode("utf-8", "replace").partition("=") for line in lines]
    template = "".join(f"<A{index}/>" if not name.isidentifier() else f"<{name}>{escape(_plain(value))}</{name}>"
                       for index, (name, _, value) in enumerate(pairs))  # fmt: skip
    name = escape(_plain(first.decode("utf-8", "replace")))
    hosts = DocumentReader(documents.HOST)
    vms = DocumentReader(documents.VM)
    head = f"<ID>7</ID><NAME>{name}</NAME><STATE>2</STATE>"
    try:
        hosts.feed(f"<HOST>{head}<TEMPLATE>{template}</TEMPLATE></HOST>")
        vms.feed(
            f"<VM>{head}<LCM_STATE>3</LCM_STATE><TEMPLATE><CPU>1</CPU></TEMPLATE>"
            f"<USER_TEMPLATE>{template}</USER_TEMPLATE></VM>"
        )
        [host], [vm] = hosts.close(), vms.close()
    except BadDocument:
        demand(False, "what people write makes a whole pool unreadable")
    _judge_host(host)
    _judge_vm(vm)


def _plain(text: str) -> str:
    """As the XML-RPC reader has left it: nothing that XML cannot carry."""
    return _SCRUB.sub("\N{REPLACEMENT CHARACTER}", text)


# --- seeds ------------------------------------------------------------------------------------------------------------


@functools.cache
def payloads() -> tuple[tuple[int, bytes], ...]:
    """(kind, answer) of everything that the embedded oned can tell."""
    return tuple(_told())


def _told() -> Iterator[tuple[int, bytes]]:
    cloud = EmbeddedCloud(hosts=2, vms_per_host=1, clock=lambda: 1_800_000_000.0, bmcs=False, network=21)
    for kind, method, *parameters in (
        (0, "one.hostpool.info"),
        (1, "one.vmpool.infoextended", -2, -1, -1, -1),
        (2, "one.host.info", 0, False),
        (3, "one.vm.info", 0, False),
        (4, "one.user.info", -1, False),
        (5, "one.datastorepool.info"),
        (6, "one.clusterpool.info"),
        (8, "one.hookpool.info", -2, -1, -1),
        (9, "one.hostpool.monitoring", 0),
        (3, "one.vm.info", 99, False),
        (3, "one.no.such", 99),
    ):
        body = request_body(method, (cloud.session, *parameters))
        yield kind, cloud.server.answer(body).encode()


def _replies() -> tuple[bytes, ...]:
    return tuple(bytes([kind, 255]) + body for kind, body in payloads())


def _documents() -> tuple[bytes, ...]:
    found = []
    for kind, body in payloads():
        reader = ReplyReader("one.fuzz", body_limit=1 << 20)
        text = reader.feed(body)
        if text:
            found.append(bytes([kind, 255]) + text.encode())
    group = (
        "<VM_GROUP_POOL><VM_GROUP><ID>1</ID><NAME>g</NAME><ROLES><ROLE><NAME>a</NAME><VMS>1,2</VMS>"
        "<POLICY>ANTI_AFFINED</POLICY><HOST_AFFINED>0</HOST_AFFINED></ROLE></ROLES>"
        "<TEMPLATE><AFFINED>a, b</AFFINED><ANTI_AFFINED>c,d</ANTI_AFFINED></TEMPLATE></VM_GROUP></VM_GROUP_POOL>"
    )
    hardware = (
        "<HOST><ID>1</ID><NAME>h</NAME><STATE>2</STATE><HOST_SHARE><PCI_DEVICES><PCI><ADDRESS>0000:03:00:0</ADDRESS>"
        "<SHORT_ADDRESS>03:00.0</SHORT_ADDRESS><VENDOR>8086</VENDOR><DEVICE>10ca</DEVICE><CLASS>0200</CLASS>"
        "<VMID>-1</VMID><PROFILES>222 (a),223</PROFILES></PCI></PCI_DEVICES><NUMA_NODES><NODE><NODE_ID>0</NODE_ID>"
        "<CORE><ID>0</ID><CPUS>0:-1,1:-1</CPUS><DEDICATED>NO</DEDICATED><FREE>2</FREE></CORE><HUGEPAGE><SIZE>2048"
        "</SIZE><PAGES>9</PAGES><USAGE>0</USAGE></HUGEPAGE><MEMORY><TOTAL>9</TOTAL><USAGE>1</USAGE><DISTANCE>0 1"
        "</DISTANCE></MEMORY></NODE></NUMA_NODES></HOST_SHARE><TEMPLATE><PIN_POLICY>PINNED</PIN_POLICY></TEMPLATE></HOST>"
    )
    topology = (
        "<VM><ID>1</ID><NAME>v</NAME><STATE>3</STATE><LCM_STATE>3</LCM_STATE><TEMPLATE><CPU>0.5</CPU><MEMORY>64</MEMORY>"
        "<PCI><VENDOR>8086</VENDOR></PCI><TOPOLOGY><PIN_POLICY>CORE</PIN_POLICY><HUGEPAGE_SIZE>2</HUGEPAGE_SIZE>"
        "<THREADS>1</THREADS><NODE_AFFINITY>0</NODE_AFFINITY></TOPOLOGY><NUMA_NODE><TOTAL_CPUS>2</TOTAL_CPUS>"
        "<MEMORY>64</MEMORY></NUMA_NODE><DISK><DISK_ID>0</DISK_ID><DATASTORE_ID>1</DATASTORE_ID></DISK>"
        "<VMGROUP><VMGROUP_ID>1</VMGROUP_ID><ROLE>a</ROLE></VMGROUP></TEMPLATE></VM>"
    )
    return (*found, b"\x07\xff" + group.encode(), b"\x02\xff" + hardware.encode(), b"\x03\xff" + topology.encode())


EXPRESSIONS = (
    joined('ID="1" | ID="2" & !(NAME = "kvm-*")', "1"),
    joined('(CLUSTER_ID = 100) & "PUBLIC_CLOUD" != "YES"', "100"),
    joined('FREE_CPU > 600.5 & HOSTNAME != "a[!b-d]?\\\\*"', "700"),
    joined("CURRENT_VMS != 7;", ""),
    joined('FEATURES @> "avx*"', "sse", "avx2"),
)
ATTRIBUTES = (
    b"kvm-01\nHA_IGNORE=until 2026-11-28T04:00:00+00:00\nHA_IGNORE_REASON=new disks\nHA_STATE=FENCED 7\nRACK=r1",
    b"web\nHA_POLICY=restart\nHA_PRIORITY=10\nHA_AFTER=db, cache\nHA_READY_DELAY=30\nSERVICE_ID=4\nROLE_NAME=front",
    b"kvm-02\nHA_STATE=RESTARTING MONITORING 2026-11-28T04:00:00+00:00\nZOMBIES=one-7, one-8\nHA_UUID=x\nHA_SERIAL=y",
    b"web\nSCHED_REQUIREMENTS=ID=1\nHA_ADDRESS=192.0.2.1",
)

TARGETS = (
    Target(name="oned-reply", run=reply, seeds=_replies(), bytes_max=16_384),
    Target(name="oned-document", run=document, seeds=_documents(), bytes_max=16_384),
    Target(name="requirements", run=expression, seeds=EXPRESSIONS),
    Target(name="attributes", run=owner_attributes, seeds=ATTRIBUTES),
)
