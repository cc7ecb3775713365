"""Which migrations of a VM matter that OpenNebula has taken back, and what reading them costs."""

from __future__ import annotations

import pytest
from oned_world import OnedCloud, finish

from ha_controller.adapters.recoverer.histories import MISSING_S, WATCHED_S
from ha_controller.core.effects import ReadHost
from ha_controller.core.events import HostRead
from ha_controller.sim.oned_model import History


class Reads:
    """A cloud whose events are kept, and the calls for single VMs counted."""

    def __init__(self) -> None:
        self.cloud, self.reads, self.asked = OnedCloud(), [], []
        self.cloud.now = 10_000.0
        for host in self.cloud.oned.hosts.values():
            host.monitored_at = self.cloud.now
        self.cloud.recoverer._report = self.reads.append
        whole = self.cloud.client.vm

        async def vm(number: int):
            self.asked.append(number)
            return await whole(number)

        self.cloud.client.vm = vm

    def history(self, *stays: tuple[int, float], vm: int = 0, ran: bool = False) -> None:
        """(host, seconds ago it came there), oldest first. `ran`: oned saw it on each of them."""
        begun = [(host, self.cloud.now - ago) for host, ago in stays]
        ends = [*(at for _, at in begun[1:]), 0.0]
        self.cloud.oned.vms[vm].history = [
            History(seq=seq, host=host, started_at=at, ended_at=end, ran=ran)
            for seq, ((host, at), end) in enumerate(zip(begun, ends, strict=True))
        ]

    def tried_on(self) -> tuple[int, ...]:
        finish(self.cloud.recoverer.read_host(ReadHost(host=0)))
        read = self.reads[-1]
        assert isinstance(read, HostRead)
        return next(vm for vm in read.vms if vm.id == 0).tried_on


@pytest.fixture
def reads() -> Reads:
    return Reads()


def test_a_migration_that_led_back_lately_is_told(reads):
    reads.history((0, 9000), (2, 70), (0, 60))
    assert reads.tried_on() == (2,)


def test_every_host_that_was_tried_lately_is_told_and_none_of_long_ago(reads):
    reads.history((0, 9000), (1, 8000), (0, 7000), (2, 300), (0, 200), (3, 100), (0, 90))
    assert reads.tried_on() == (2, 3)


@pytest.mark.parametrize(
    "stays",
    [
        ((0, 9000),),
        ((1, 9000), (0, 60)),  # it came from there, and all went well
        ((1, 9000), (2, 100), (0, 60)),
        ((0, 9000), (2, 8000), (0, WATCHED_S + 1)),  # OpenNebula would have missed it since
    ],
)
def test_what_came_another_way_or_long_ago_is_no_doubt(reads, stays):
    reads.history(*stays)
    assert reads.tried_on() == ()


def test_on_a_host_of_which_opennebula_hears_nothing_what_is_late_is_measured_at_its_last_word(reads):
    reads.history((0, 9000), (2, 2000), (0, 1900))
    assert reads.tried_on() == ()
    reads.cloud.oned.hosts[0].monitored_at = reads.cloud.now - 1800
    assert reads.tried_on() == (2,)
    reads.cloud.oned.hosts[0].monitored_at = 0  # never
    assert reads.tried_on() == (2,)


def test_of_a_vm_that_was_found_missing_a_day_counts_for_nobody_knows_since_when_it_was(reads):
    reads.cloud.now += 200_000.0
    reads.history((0, 190_000), (2, MISSING_S), (0, MISSING_S - 10))
    reads.cloud.oned.hosts[0].monitored_at = reads.cloud.now
    assert reads.tried_on() == ()
    reads.cloud.oned.vms[0].history[-1].found_missing_at = reads.cloud.now
    assert reads.tried_on() == (2,)
    reads.history((0, 190_000), (2, MISSING_S + 20), (0, MISSING_S + 10))
    reads.cloud.oned.vms[0].history[-1].found_missing_at = reads.cloud.now
    assert reads.tried_on() == ()


def test_a_vm_that_was_moved_away_and_back_today_is_no_doubt_when_its_host_reboots(reads):
    reads.cloud.now += 200_000.0
    reads.history((0, 190_000), (2, 8000), (0, WATCHED_S + 10), ran=True)  # as for the maintenance of its host
    reads.cloud.oned.vms[0].history[-1].found_missing_at = reads.cloud.now
    assert reads.tried_on() == ()
    reads.history((0, 190_000), (2, 8000), (0, 7000), (2, 700), (0, WATCHED_S - 10), ran=True)
    reads.cloud.oned.vms[0].history[-1].found_missing_at = reads.cloud.now
    assert reads.tried_on() == (2,), "a person may have ended it by hand, and wrongly"


def test_a_cloud_in_which_nothing_migrated_costs_no_call_more(reads):
    reads.tried_on()
    reads.history((0, 9000), (1, 8000), (0, 7000))
    reads.tried_on()
    assert reads.asked == []


def test_a_history_is_read_once_until_there_is_more_of_it(reads):
    reads.history((0, 9000), (2, 70), (0, 60))
    assert (reads.tried_on(), reads.tried_on(), reads.asked) == ((2,), (2,), [0])
    reads.history((0, 9000), (2, 70), (0, 60), (3, 50), (0, 40))
    assert (reads.tried_on(), reads.asked) == ((2, 3), [0, 0])
