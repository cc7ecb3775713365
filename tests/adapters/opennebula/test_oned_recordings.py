"""Conformance: the client against everything that was recorded of a real oned, for every method that it uses."""

from __future__ import annotations

import contextlib
import re
import xml.etree.ElementTree as ElementTree

import pytest

from ha_controller.adapters.opennebula import (
    BadRequest,
    EmptyPool,
    HostStatus,
    Locked,
    NoSuchObject,
    NotAllowedNow,
    OnedHost,
    OnedVm,
    OpenNebulaError,
    ServerFailed,
    Unauthenticated,
    Unauthorized,
)

pytestmark = pytest.mark.shared

RESPONSES = 178  #: recorded responses of methods that the client uses
REQUESTS = 164  #: of these, those whose request the client can send, too; the rest follows
NOT_SENDABLE = {
    "008": "no parameters at all",
    "009": "wrong type",
    "011": "not XML",
    "012": "cut short",
    "023": "asks for old monitoring data",
    "028": "vector attribute",
    "029": "unclosed quote",
    "030": "value without quotes",
    "036": "status 9",
    "047": "short form",
    "049": "no ids",
    "050": "junk ids",
    "083": "five arguments",
    "170": "unclosed vector",
}
NOT_SENDABLE_AT_ALL = {"008", "009", "011", "012"}
ERRORS = {
    256: Unauthenticated,
    512: Unauthorized,
    1024: NoSuchObject,
    2048: NotAllowedNow,
    4096: BadRequest,
    8192: ServerFailed,
}
ROOTS = {
    "one.hostpool.info": "HOST_POOL",
    "one.hostpool.monitoring": "MONITORING_DATA",
    "one.vmpool.infoextended": "VM_POOL",
    "one.vmpool.infoset": "VM_POOL",
    "one.datastorepool.info": "DATASTORE_POOL",
    "one.clusterpool.info": "CLUSTER_POOL",
    "one.hookpool.info": "HOOK_POOL",
    "one.vmgrouppool.info": "VM_GROUP_POOL",
}
SIMPLE = {
    "one.system.version": "version",
    "one.user.info": "user",
    "one.datastorepool.info": "datastores",
    "one.clusterpool.info": "clusters",
    "one.hookpool.info": "hooks",
    "one.vmgrouppool.info": "vm_groups",
    "one.hostpool.info": "hosts",
    "one.hostpool.monitoring": "hosts",
}
USED = {
    *SIMPLE,
    *ROOTS,
    "one.host.info",
    "one.vm.info",
    "one.host.status",
    "one.host.update",
    "one.user.update",
    "one.vm.migrate",
    "one.vm.action",
    "one.vm.recover",
}


def call(client, method, parameters):
    """Make the call of the client that belongs to a recorded request; for an unsendable one, the nearest."""
    values = [text == "1" if kind == "boolean" else int(text) if kind == "int" else text for kind, text in parameters]
    match method, values:
        case (("one.host.info" | "one.vm.info"), [int(number), _]):
            return client.host(number) if method == "one.host.info" else client.vm(number)
        case "one.host.info", _:
            return client.host(0)
        case "one.vmpool.infoextended", [_, start, end, _]:
            return client.all_vms() if end == -2 else client.vms_between(start, end)
        case "one.vmpool.infoset", [ids, _]:
            return client.vms([int(number) for number in re.findall(r"\d+", ids)] or [1])
        case "one.host.status", [host, status]:
            return client.set_host_status(host, HostStatus(status) if status in set(HostStatus) else HostStatus.ENABLE)
        case "one.host.update", [host, text, _]:
            return client.update_host(host, dict(re.findall(r'^([A-Z_]+)="(.*)"$', text, re.M)) or {"A": "1"})
        case "one.vm.update", [vm, text, _]:
            return client.note_vm(vm, dict(re.findall(r'^([A-Z_]+)="(.*)"$', text, re.M)))
        case "one.vm.migrate", [vm, host, live, enforce, datastore, *kind]:
            return client.migrate(vm, host, live=live, enforce=enforce, datastore=datastore, type=(kind or [0])[0])
        case "one.vm.action", [action, vm]:
            return client.vm_action(vm, action)
        case "one.vm.recover", [vm, operation]:
            return client.recover(vm, operation)
    return getattr(client, SIMPLE[method])()


def expected(recording):
    """Read a recorded response with the standard library: ("ok", text), (code, text) or ("fault", text)."""
    root = ElementTree.fromstring(recording.response)
    if root.find("fault") is not None:
        return "fault", root.findtext(".//member[name='faultString']/value/string")
    success, payload, code = (value[0].text or "" for value in root.findall(".//data/value")[:3])
    return ("ok", payload) if success == "1" else (int(code), payload)


def check_success(recording, payload, result):
    """Compare what the client made of a payload with what the standard library sees in it."""
    if result is None:  # an order: oned sends the id back, which says nothing more
        assert payload.isdigit()
        return
    if isinstance(result, str):
        assert result == payload
        return
    document = ElementTree.fromstring(payload)
    if document.tag == "MONITORING_DATA":
        last = {int(record.findtext("ID")): int(record.findtext("TIMESTAMP")) for record in document}
        assert last
        assert {host.id: host.monitored_at for host in result} == last
        return
    elements = list(document) if document.tag in ROOTS.values() else [document]
    elements.sort(key=lambda element: int(element.findtext("ID")))
    models = result if isinstance(result, list) else [result]
    assert [model.id for model in models] == [int(element.findtext("ID")) for element in elements]
    for model, element in zip(models, elements, strict=True):
        assert model.name == element.findtext("NAME")
        if isinstance(model, OnedHost):
            check_host(model, element)
        if isinstance(model, OnedVm):
            check_vm(model, element)


def check_host(host, element):
    assert host.state == int(element.findtext("STATE"))
    assert host.vm_ids == tuple(int(vm.text) for vm in element.findall("VMS/ID"))
    assert host.max_cpu == int(element.findtext("HOST_SHARE/MAX_CPU"))
    assert host.cpu_usage == int(element.findtext("HOST_SHARE/CPU_USAGE"))
    assert host.max_mem_kb == int(element.findtext("HOST_SHARE/MAX_MEM"))
    assert host.mem_usage_kb == int(element.findtext("HOST_SHARE/MEM_USAGE"))
    assert host.template.get("ERROR") == element.findtext("TEMPLATE/ERROR")
    assert host.zombies == tuple((element.findtext("TEMPLATE/ZOMBIES") or "").split())


def check_vm(vm, element):
    assert (vm.state, vm.lcm_state) == (int(element.findtext("STATE")), int(element.findtext("LCM_STATE")))
    hosts = [int(host.text) for host in element.findall("HISTORY_RECORDS/HISTORY/HID")]
    assert [*(stay.host_id for stay in vm.stays), *([] if vm.host_id is None else [vm.host_id])] == hosts
    assert vm.resched == (element.findtext("RESCHED") == "1")
    assert vm.memory_mb == int(element.findtext("TEMPLATE/MEMORY"))
    assert vm.cpu == float(element.findtext("TEMPLATE/CPU"))
    disks = element.findall("TEMPLATE/DISK")
    assert [disk.tm_mad for disk in vm.disks] == [disk.findtext("TM_MAD") or "" for disk in disks]


def check_failure(recording, kind, text, error):
    assert isinstance(error, BadRequest if kind == "fault" else ERRORS[kind]), recording.name
    assert isinstance(error, Locked) == ("VM is locked" in text)
    assert error.message.replace(" ", "").endswith(re.sub(r"\s", "", text)[:400])
    if isinstance(kind, int):
        assert error.code == kind


async def test_every_recorded_response_is_read_as_it_was_meant(recordings, serve, client_of):
    used = {number: recording for number, recording in recordings.items() if recording.method in USED}
    for number, recording in used.items():
        peer = await serve(
            {
                "one.hostpool.monitoring": recordings["022"].response,
                "one.hostpool.info": recordings["021"].response,
                recording.method: recording.response,
            }
        )
        kind, text = expected(recording)
        parameters = recording.call()[1][1:] if recording.call() else []
        async with client_of(peer) as client:
            try:
                result = await call(client, recording.method, [] if number in NOT_SENDABLE_AT_ALL else parameters)
            except EmptyPool:
                assert "<HOST>" not in text, recording.name
            except OpenNebulaError as error:
                check_failure(recording, kind, text, error)
            else:
                assert kind == "ok", recording.name
                check_success(recording, text, result)
    assert len(used) == RESPONSES


async def test_every_request_is_the_recorded_one(recordings, serve, client_of):
    compared = 0
    for number, recording in recordings.items():
        if recording.method not in USED or number in NOT_SENDABLE:
            continue
        peer = await serve(
            {
                "one.hostpool.monitoring": recordings["022"].response,
                "one.hostpool.info": recordings["021"].response,
                recording.method: recording.response,
            }
        )
        method, (session, *parameters) = recording.call()
        async with client_of(peer, session=session[1]) as client:
            with contextlib.suppress(OpenNebulaError):  # the test above looks at the answers
                await call(client, method, parameters)
        assert recording.call() in peer.requests, recording.name
        assert recording.call() == next(sent for sent in peer.requests if sent[0] == method), recording.name
        compared += 1
    assert compared == REQUESTS
    assert all(recordings[number].method in USED for number in NOT_SENDABLE)


async def test_a_vm_that_oned_found_missing_is_told_from_one_that_was_switched_off(recordings, serve, client_of):
    found = {}
    for number in ("119", "161"):  # after its host came back; after poweroff-hard by a person
        peer = await serve({"one.vm.info": recordings[number].response})
        async with client_of(peer) as client:
            found[number] = (await client.vm(0)).found_missing_at
    assert found == {"119": 1795398334, "161": 0}
