"""What is decided in one round and is too much for one transaction of etcd: a leader may die after any of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from on_record import incident
from taken_over import goes_on
from world import Cloud, seen

from ha_controller.adapters.arbiter import etcd_record
from ha_controller.adapters.arbiter.by_host import hosts_of
from ha_controller.adapters.arbiter.etcd import EtcdArbiter, EtcdConfig
from ha_controller.adapters.arbiter.etcd_record import OPERATIONS_MAX, _parts
from ha_controller.adapters.arbiter.gateway import Gateway
from ha_controller.app.ledger import of_shared, shared_changes
from ha_controller.core.events import RecordTakenOver
from ha_controller.core.incident import CloudRecord, Incident
from ha_controller.core.model import HostTrust
from ha_controller.lead import ArbiterContext, Shared, SharedRecord
from ha_controller.sim.etcd_store import EtcdStore


class Dead(Exception):
    """Nothing is tried any more."""


class Leader:
    """A controller on an etcd in memory, which dies when it has sent so many transactions."""

    def __init__(self, store: EtcdStore, name: str) -> None:
        ours = self
        self.store, self.left = store, 1000

        class Way(Gateway):
            async def _exchanged(self, url: str, body: Any, headers: Mapping[str, str]) -> tuple[int, bytes]:
                path = urlsplit(url).path
                if path == "/v3/kv/txn":
                    ours.left -= 1
                if ours.left < 0:
                    raise Dead
                status, answer = store.answer(path, body)
                return status, json.dumps(answer).encode()

        class ByWay(EtcdArbiter):
            gateway_class: ClassVar[type[Gateway]] = Way

        config = EtcdConfig(endpoints=("http://192.0.2.1:2379",))
        context = ArbiterContext(name=name, instance=name, state_dir=Path("/nowhere"), last_term=lambda: 0)
        self.arbiter = ByWay(config, context)

    @property
    def record(self) -> SharedRecord:
        assert self.arbiter.record is not None
        return self.arbiter.record

    async def takes_over(self) -> tuple[int, Shared]:
        for lease in list(self.store.leases):
            self.store.revoke(lease)
        term = await self.arbiter.acquire()
        assert term is not None
        return term, await self.record.read(term)

    async def dies_after(self, transactions: int, term: int, changes: Mapping[str, str | None]) -> None:
        self.left = transactions
        with pytest.raises(Dead):
            await self.record.write(term, changes)


@pytest.fixture
async def leaders() -> AsyncIterator[tuple[Leader, Leader]]:
    store = EtcdStore(clock=lambda: 0.0)
    made = Leader(store, "one"), Leader(store, "two")
    yield made
    for each in made:
        each.left = 1000
        await each.arbiter.close()


def of_round(cloud: Cloud, known: Mapping[str, str]) -> dict[str, str | None]:
    """What a leader has decided since `known` was on record."""
    changes = shared_changes(list(cloud.incidents.values()), cloud.cloud, list(cloud.trusts.values()), known)
    return {key: text for key, text in changes.items() if text != known.get(key)}


@pytest.mark.parametrize("transactions", [1, 2])
async def test_no_vm_of_many_hosts_that_rebooted_at_once_is_forgotten_when_their_leader_dies_in_between(
    leaders, transactions: int, monkeypatch
):
    monkeypatch.setattr(etcd_record, "OPERATIONS_MAX", 10)  # as 40 hosts are for the true one
    one, two = leaders
    cloud = seen()
    term, _ = await one.takes_over()
    await one.record.write(term, of_round(cloud, {}))
    known = dict((await one.record.read(term)).texts)
    for host in range(8):
        cloud.reboot(host)
    cloud.run(1)
    assert len(cloud.incidents) == 8
    await one.dies_after(transactions, term, of_round(cloud, known))

    cloud.other_controller()
    cloud.run(10)
    term, found = await two.takes_over()
    read = of_shared(found.texts)
    assert found.whole, "nothing was ordered that is not on it"
    assert len(read.incidents) < 8, "it died in between"
    on_record = {"incidents": read.incidents, "cloud": read.cloud, "trusts": read.trusts}
    goes_on(cloud, RecordTakenOver(term=term, led_meanwhile="one led", **on_record))
    cloud.run(60)
    assert not [each for each in cloud.incidents.values() if each.open]
    forgotten = {vm for host, vm in cloud.domains}  # lost with their host's boot, and never started again
    assert not forgotten


def beginnings(changes: Mapping[str, str | None], known: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """What stands on the record after each transaction but the last."""
    texts = dict(known)
    parts = list(_parts(changes, hosts_of(known)))
    assert {key: text for part in parts for key, text in part.items()} == changes
    for part in parts[:-1]:
        assert len(part) <= OPERATIONS_MAX
        texts |= part
        texts = {key: text for key, text in texts.items() if text is not None}
        yield texts


def record_of(incidents: list[Incident], boots: dict[int, str], known: Mapping[str, str]) -> dict[str, str | None]:
    trusts = [HostTrust(host=host, boot_id=boot) for host, boot in boots.items()]
    changes = shared_changes(incidents, CloudRecord(next_incident=100), trusts, known)
    return {key: text for key, text in changes.items() if text != known.get(key)}


def test_which_boot_of_a_host_is_accounted_for_is_never_read_without_the_incident_of_its_vms():
    """Of half of them an older incident ends in the same moment."""
    hosts = range(40)
    older = [incident(number, host=number) for number in range(1, 40, 2)]
    known = {key: text for key, text in record_of(older, dict.fromkeys(hosts, "first"), {}).items() if text}
    opened = [replace(incident(50 + host, host=host), rebooted="second") for host in hosts]
    over = [replace(each, closed_at=2.0) for each in older]
    read = [
        of_shared(texts)
        for texts in beginnings(record_of([*over, *opened], dict.fromkeys(hosts, "second"), known), known)
    ]
    assert read
    for state in read:
        boots, there = {trust.host: trust.boot_id for trust in state.trusts}, {each.id for each in state.incidents}
        for host in hosts:
            assert (boots[host] == "second") == (50 + host in there)
            assert host % 2 == 0 or (boots[host] == "first") == (host in there), "one incident of a host at a time"
        assert not state.unread
        assert state.cloud.next_incident == 100


@pytest.mark.parametrize("vms", [1600, 4000])
def test_the_boot_of_a_host_that_fits_into_no_transaction_is_accounted_for_together_with_its_incident(vms: int):
    known = {key: text for key, text in record_of([], {1: "first"}, {}).items() if text}
    changes = record_of([replace(incident(7, vms, host=1), rebooted="second")], {1: "second"}, known)
    read = [of_shared(texts) for texts in beginnings(changes, known)]
    assert read
    assert [(state.incidents, state.trusts[0].boot_id, set(state.unread)) for state in read] == [
        ((), "first", {7})
    ] * len(read)


def test_newcomers_of_a_host_that_fits_into_no_transaction_are_read_together_with_their_number():
    before = incident(7, 1045, host=1)
    known = {key: text for key, text in record_of([before], {}, {}).items() if text}
    moved = tuple(replace(vm, order=1) for vm in before.vms)
    newcomers = tuple(replace(vm, id=vm.id + 10_000) for vm in before.vms[:30])
    read = [
        of_shared(texts).incidents[0]
        for texts in beginnings(record_of([replace(before, vms=(*moved, *newcomers))], {}, known), known)
    ]
    assert read
    assert {len(each.vms) for each in read} == {1045}


def test_the_vms_of_a_host_that_fits_into_no_transaction_go_behind_their_incident():
    """So it can be read to the last; what is left behind it is known as such."""
    before = incident(7, 1595, host=1)
    known = {key: text for key, text in record_of([before], {1: "first"}, {}).items() if text}
    over, next_one = replace(before, closed_at=2.0), replace(incident(8, 3, host=1), rebooted="second")
    read = [of_shared(texts) for texts in beginnings(record_of([over, next_one], {1: "second"}, known), known)]
    assert read
    for state in read:
        boot = state.trusts[0].boot_id
        assert ([each.id for each in state.incidents], boot) in (([7], "first"), ([8], "second"))
