"""On which host this controller runs: by its addresses, its name, its VM; what cannot be told is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ha_controller.adapters.opennebula import NoAnswer
from ha_controller.adapters.opennebula.documents import VM
from ha_controller.adapters.opennebula.reader import DocumentReader
from ha_controller.app import doctor, own_place
from ha_controller.app.own_place import FIND_AGAIN_S, Machine, OwnPlace
from ha_controller.core.events import SelfPlaced
from ha_controller.core.model import Host, Vm
from ha_controller.core.settings import Settings
from ha_controller.core.state import State
from ha_controller.plugin import Target

UUID = "6c3fcb60-90dd-4c8c-b2a1-0d3a5c1f7e55"
ROUTES = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.13
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
"""
ADDRESSES6 = "20010db8000000000000000000000013 02 40 00 80     eth0\n00000000000000000000000000000001 01 80 10 80  lo\n"


class Place:
    """One controller that looks where it runs."""

    def __init__(self, folder: Path) -> None:
        self.now, self.wanted, self.own_vm = 0.0, "look", "look"
        self.pool = [SimpleNamespace(id=11, os_uuid=""), SimpleNamespace(id=12, os_uuid=UUID)]
        self.vms = {12: Vm(id=12, name="ha", state=3, lcm_state=3, host=3)}
        self.pools_read, self.fails = 0, False
        self.addresses = {1: "192.0.2.11", 2: "192.0.2.12", 3: ""}
        self.reported: list[SelfPlaced] = []
        (folder / "routes").write_text(ROUTES)
        (folder / "addresses6").write_text(ADDRESSES6)
        self.uuid = folder / "uuid"
        self.name = "one-1"
        self.watch = OwnPlace(
            config=lambda: SimpleNamespace(guard=SimpleNamespace(own_host=self.wanted, own_vm=self.own_vm)),
            hosts=lambda: {number: Host(id=number, name=f"kvm-0{number}") for number in self.addresses},
            targets=lambda: [Target(host=n, name=f"kvm-0{n}", address=a) for n, a in self.addresses.items()],
            all_vms=self._all,
            read_vms=self._read,
            report=self.reported.append,
            clock=lambda: self.now,
            machine=Machine(
                uuid=self.uuid,
                routes=folder / "routes",
                addresses6=folder / "addresses6",
                hostname=lambda: self.name,
            ),
        )

    async def _all(self) -> list[SimpleNamespace]:
        self.pools_read += 1
        self._may_fail()
        return self.pool

    async def _read(self, numbers: list[int]) -> list[Vm]:
        self._may_fail()
        return [self.vms[number] for number in numbers if number in self.vms]

    def _may_fail(self) -> None:
        if self.fails:
            raise NoAnswer("one.vm.info", "no answer")

    async def looks(self) -> SelfPlaced:
        await self.watch.look()
        assert self.watch.last is not None
        return self.watch.last


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("address", ["192.0.2.13", "2001:db8::13"])
async def test_a_host_with_an_address_of_this_machine_is_its_own(place, address):
    place.addresses[2] = address
    found = await place.looks()
    assert found == SelfPlaced(
        hosts=(2,), detail=f"this controller runs on kvm-02 ({address} is an address of this machine)"
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.255", ""])
async def test_a_loopback_or_broadcast_address_is_nobodys_own(place, address):
    place.addresses[2] = address
    assert (await place.looks()).hosts is None


@pytest.mark.parametrize(
    ("name", "hosts"), [("kvm-03", (3,)), ("KVM-03.example.org", (3,)), ("kvm-033", None), ("localhost", None)]
)
async def test_a_host_with_the_name_of_this_machine_is_its_own(place, name, hosts):
    place.name = name
    assert (await place.looks()).hosts == hosts


async def test_two_names_with_different_domains_are_two_machines(place):
    place.name = "kvm-03.one.example.org"
    place.watch.targets = lambda: [Target(host=3, name="kvm-03.two.example.org", address="")]
    assert (await place.looks()).hosts is None


async def test_a_vm_is_found_by_the_uuid_and_followed_where_it_goes(place):
    place.uuid.write_text(f"{UUID.upper()}\n")
    assert await place.looks() == SelfPlaced(hosts=(3,), detail="this controller runs in VM 12 on kvm-03")
    place.vms[12] = replace(place.vms[12], host=1, previous_host=3)
    assert await place.looks() == SelfPlaced(hosts=(1, 3), detail="this controller runs in VM 12 on kvm-01 or kvm-03")
    place.vms[12] = replace(place.vms[12], previous_host=None)
    assert (await place.looks()).hosts == (1,)
    assert place.pools_read == 1
    await place.looks()
    assert len(place.reported) == 3  # what is as before is no news


async def test_a_machine_that_is_no_vm_of_this_cloud_runs_on_none(place):
    place.uuid.write_text("00000000-0000-4000-8000-000000000000\n")
    assert (await place.looks()).hosts == ()
    place.now += 2 * FIND_AGAIN_S
    await place.looks()
    assert place.pools_read == 1


async def test_who_may_not_read_the_uuid_does_not_know(place):
    found = await place.looks()
    assert found.hosts is None
    assert "guard.own_vm" in found.detail


async def test_the_vm_that_the_operator_names_is_taken(place):
    place.own_vm = 12
    assert (await place.looks()).hosts == (3,)
    place.own_vm = 99
    assert (await place.looks()).hosts is None
    assert place.pools_read == 0


async def test_the_operator_may_state_that_it_runs_on_none(place):
    place.addresses[2], place.wanted = "192.0.2.13", "none"
    assert (await place.looks()).hosts == ()


async def test_what_was_known_stays_while_opennebula_does_not_answer(place):
    place.uuid.write_text(UUID)
    place.fails = True
    assert (await place.looks()).hosts is None
    place.fails, place.now = False, FIND_AGAIN_S + 1
    assert (await place.looks()).hosts == (3,)
    place.fails = True
    assert (await place.looks()).hosts == (3,)


@pytest.mark.parametrize(("inside", "uuid"), [(f"<OS><UUID>{UUID.upper()}</UUID></OS>", UUID), ("", "")])
def test_the_uuid_is_read_where_opennebula_gives_it(inside, uuid):
    reader = DocumentReader(VM)
    states = "<STATE>3</STATE><LCM_STATE>3</LCM_STATE>"
    reader.feed(f"<VM><ID>12</ID><NAME>ha</NAME>{states}<TEMPLATE>{inside}</TEMPLATE></VM>")
    assert reader.close()[0].os_uuid == uuid


@pytest.mark.parametrize(
    ("hosts", "given_away", "ok", "words"),
    [
        (None, True, None, "own host: told"),
        ((), True, True, "own host: told"),
        ((3,), True, None, "gets the lead"),
        ((3,), False, None, "a person has to power it off. Better run it elsewhere"),
    ],
)
def test_doctor_says_where_this_controller_runs(hosts, given_away, ok, words):
    state = State(settings=Settings(lead_is_given_away=given_away), own_hosts=hosts, own_place="told")
    found = doctor.own_place(SimpleNamespace(controller=SimpleNamespace(state=state)))
    assert found["ok"] is ok
    assert words in found["text"]


async def test_a_pool_that_could_not_be_read_says_nothing_until_it_was_read(place):
    place.uuid.write_text(UUID)
    place.fails = True
    for place.now in (0.0, 15.0, 30.0):
        assert (await place.looks()).hosts is None
    place.fails, place.now = False, own_place.FIND_AGAIN_S
    assert (await place.looks()).hosts == (3,)


async def test_where_opennebula_tells_no_uuids_it_is_not_known_whether_one_is_ours(place):
    place.uuid.write_text(UUID)
    place.pool = [SimpleNamespace(id=12, os_uuid="")]
    found = await place.looks()
    assert found.hosts is None
    assert "guard.own_vm" in found.detail
