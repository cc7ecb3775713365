"""What is read of hosts and VMs in OpenNebula: marks of maintenance, and where disks are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ha_controller.adapters.recoverer import Scope, _datastores_of

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
    assert _datastores_of(SimpleNamespace(disks=made, ds_id=system)) == found
