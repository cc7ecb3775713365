"""What is read of hosts and VMs in OpenNebula: marks of maintenance, and where disks are."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from leads import always
from pydantic import SecretStr

from ha_controller.adapters.opennebula import Client
from ha_controller.adapters.opennebula.storage import datastores_of
from ha_controller.adapters.recoverer import Recoverer, Scope
from ha_controller.adapters.recoverer.scope import zombies_of
from ha_controller.core.effects import RestartMonitoring
from ha_controller.core.events import Event, MonitoringRestarted
from ha_controller.sim import oned_model as one
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_server import OnedServer

NOON = 1795694400.0  # 2026-11-26T12:00:00Z


def host(mark: str, cluster: str = "default", reason: str = ""):
    return SimpleNamespace(
        id=3, name="kvm-03", cluster=cluster, cluster_id=0, template={"HA_IGNORE": mark, "HA_IGNORE_REASON": reason}
    )


@pytest.mark.parametrize(
    ("mark", "counts"),
    [
        ("YES", True),
        ("yes", True),
        ("1", True),
        ("", False),
        ("NO", False),
        ("false", False),
        ("0", False),
        ("until 2026-11-26T12:00:01+00:00", True),
        ("until 2026-11-26T12:00:00+00:00", False),
        ("until 2026-11-26T14:00:00+02:00", False),
        ("until tomorrow", True),  # nobody knows when, so it does not end by itself
        ("until ", True),
        ("JA", True),  # a typing error must not get a host shot
    ],
)
def test_the_mark_counts_unless_it_says_no_or_its_time_has_passed(mark: str, counts: bool):
    assert Scope().in_maintenance(host(mark), NOON) is counts
    assert bool(Scope().why_excluded(host(mark), NOON)) is counts


def test_the_reason_is_shown():
    assert Scope().why_excluded(host("YES", reason="ann: new RAM"), NOON) == (
        "HA_IGNORE=YES on the host in OpenNebula (ann: new RAM)"
    )


def test_a_host_that_is_not_ours_is_in_nobodys_maintenance():
    scope = Scope(clusters=("production",))
    assert not scope.in_maintenance(host("YES"), NOON)
    assert scope.why_excluded(host(""), NOON) == "its cluster default is not in scope.clusters"


@pytest.mark.parametrize(
    ("disks", "system", "found"),
    [
        ((), 0, ()),
        (((100, None, False), (101, None, False)), 0, (100, 101)),
        (((100, None, False), (None, None, True)), 0, (0, 100)),  # a volatile disk is made on the system datastore
        (((100, "shared", False),), 0, (0, 100)),  # and so is the copy of an image whose driver puts it there
        (((100, None, False), (None, None, True)), None, None),  # not told: not known
    ],
)
def test_where_the_disks_of_a_vm_are(disks, system, found):
    made = tuple(
        SimpleNamespace(ds_id=store, tm_mad_system=driver, volatile=volatile) for store, driver, volatile in disks
    )
    assert datastores_of(SimpleNamespace(disks=made, ds_id=system)) == found


# --- monitoring that is started anew ----------------------------------------------------------------------------------


@pytest.fixture
async def oned():
    """An embedded OpenNebula, and a recoverer that talks to it."""
    cloud = EmbeddedCloud(hosts=2, vms_per_host=1, network=23)
    server = OnedServer(cloud.oned, session=cloud.session, clock=time.time)
    port = await server.start("127.0.0.1", 0)
    events: list[Event] = []
    async with Client(f"http://127.0.0.1:{port}/RPC2", SecretStr(cloud.session)) as client:
        recoverer = Recoverer(
            client,
            report=events.append,
            may_act=always,
            clock=time.time,
            scope=Scope(),
            poll_s=60.0,
            equip=lambda hosts: {},
        )
        yield SimpleNamespace(hosts=cloud.oned.hosts, recoverer=recoverer, events=events)
    server.close()


async def restart(oned, late_s: float = 0.0) -> str:
    await oned.recoverer.restart_monitoring(RestartMonitoring(host=1, not_after=time.time() + 3 - late_s))
    (event,) = oned.events
    assert isinstance(event, MonitoringRestarted)
    return event.failure


async def test_the_monitoring_of_a_host_in_error_is_started_anew(oned):
    oned.hosts[1].state = one.ERROR
    assert await restart(oned) == ""
    assert oned.hosts[1].state in (one.INIT, one.MONITORED)
    assert not oned.hosts[1].attributes.get("HA_STATE")


async def test_a_restart_that_a_crash_cut_off_is_finished(oned):
    oned.hosts[1].state = one.OFFLINE
    oned.hosts[1].attributes["HA_STATE"] = f"RESTARTING MONITORING {datetime.now(UTC).isoformat()}"
    await oned.recoverer.read_inventory()
    (inventory,) = oned.events
    found = next(host for host in inventory.hosts if host.id == 1)
    assert found.monitoring_restarting
    assert not found.marked
    oned.events.clear()
    assert await restart(oned) == ""
    assert oned.hosts[1].state in (one.INIT, one.MONITORED)


@pytest.mark.parametrize("state", [one.OFFLINE, one.DISABLED, one.MONITORED, one.ERROR])
async def test_a_mark_that_was_left_behind_is_taken_away_and_no_persons_state_is_touched(oned, state):
    """A lost answer left it there, hours ago; a person has set the state since."""
    oned.hosts[1].state = state
    oned.hosts[1].attributes["HA_STATE"] = "RESTARTING MONITORING 2026-11-26T01:00:00+00:00"
    await oned.recoverer.read_inventory()
    (inventory,) = oned.events
    assert not next(host for host in inventory.hosts if host.id == 1).marked
    oned.events.clear()
    assert await restart(oned) == ""
    assert oned.hosts[1].state == state
    assert not oned.hosts[1].attributes["HA_STATE"]


async def test_who_loses_the_lead_in_the_middle_does_no_more(oned):
    oned.hosts[1].state = one.ERROR
    looks = iter([True, True, False, False])

    async def may_act(term: int | None) -> bool:
        return next(looks)

    oned.recoverer._may_act = may_act
    assert await restart(oned) == "we no longer lead"
    assert oned.hosts[1].state == one.OFFLINE  # the mark tells the next leader


@pytest.mark.parametrize(
    ("state", "late_s"), [(one.MONITORED, 0.0), (one.DISABLED, 0.0), (one.OFFLINE, 0.0), (one.ERROR, 9.0)]
)
async def test_a_host_that_is_not_what_the_decision_was_made_for_is_left_alone(oned, state, late_s):
    oned.hosts[1].state = state
    assert await restart(oned, late_s)
    assert oned.hosts[1].state == state
    assert "HA_STATE" not in oned.hosts[1].attributes


@pytest.mark.parametrize(
    ("written", "vms"),
    [((), ()), (("one-42", "one-7"), (7, 42)), (("42", "7"), (7, 42)), (("my-vm", "-1", "one-x"), ())],
)
def test_zombies_are_read_as_ids_or_as_names_of_domains(written, vms):
    assert zombies_of(SimpleNamespace(zombies=written)) == vms  # type: ignore[arg-type]
