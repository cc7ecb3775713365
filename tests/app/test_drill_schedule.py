"""Drills that are due, and those that begin by themselves: with the core, and answers in place of devices."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from world import Cloud

from ha_controller.app.drills import TRY_AGAIN_S, DrillSchedule, is_open, schedule
from ha_controller.config import Drills
from ha_controller.core.effects import LOOK_AGAIN, Answer
from ha_controller.core.events import DrillReported, Verb

DAY_S = 86400.0
SATURDAY = datetime(2026, 11, 28, 2, 30)  # noqa: DTZ001 - local time, wherever that is
AUTOMATIC = Drills(every="180d", automatic=True)


@pytest.fixture
def cloud() -> Cloud:
    """Hosts 2 and 3 may be drilled by themselves; 4 is not ours, 5 has no HA_DRILL, 6 is enabled in OpenNebula."""
    made = Cloud(vms_per_host=0)
    known = made.host
    states = {
        2: {"excluded": "HA_IGNORE=YES", "maintenance": True, "drill_by_itself": True, "one_state": 4},
        3: {"excluded": "HA_IGNORE=YES", "maintenance": True, "drill_by_itself": True, "one_state": 4},
        4: {"excluded": "listed in scope.exclude"},
        5: {"excluded": "HA_IGNORE=YES", "maintenance": True, "one_state": 4},
        6: {"excluded": "HA_IGNORE=YES", "maintenance": True, "drill_by_itself": True},
    }
    made.host = lambda host: replace(known(host), **states.get(host, {}))  # type: ignore[method-assign]
    made.inventory()
    made.run(6)
    return made


class Night:
    """The schedule with a clock and a person's door of its own."""

    def __init__(self, cloud: Cloud, settings: Drills = AUTOMATIC) -> None:
        self.cloud, self.ordered, self.code = cloud, list[int](), 4
        self.local_time = SATURDAY
        self.schedule = DrillSchedule(
            settings=lambda: settings,
            state=cloud.controller.state,
            clock=lambda: cloud.now,
            order=self.order,
            local_time=lambda: self.local_time,
        )

    async def order(self, host: int) -> Answer:
        self.ordered.append(host)
        return Answer(request=1, code=self.code, text="")


def drilled(cloud: Cloud, host: int) -> None:
    cloud.feed(DrillReported(host=host, request=0, results=(("bmc", "", True, "fine"),)))


def test_a_device_without_a_drill_is_due_at_once_and_each_obstacle_is_named(cloud):
    drilled(cloud, 0)
    rows = {row["id"]: row for row in schedule(cloud.controller.state, Drills(every="90d"), cloud.now + 100 * DAY_S)}
    assert rows[0]["drilled_s_ago"] == pytest.approx(100 * DAY_S, abs=1)
    assert rows[0]["due_in_s"] == pytest.approx(-10 * DAY_S, abs=1)
    assert rows[1]["drilled_s_ago"] is None
    assert all(row["overdue"] for row in rows.values())
    assert rows[2]["obstacle"] == ""
    assert "not in maintenance" in rows[4]["obstacle"]
    assert {number: rows[number]["by_itself"][:12] for number in (2, 5, 6)} == {
        2: "yes", 5: "no HA_DRILL=", 6: "not disabled",
    }  # fmt: skip


def test_the_most_overdue_comes_first(cloud):
    drilled(cloud, 0)
    rows = schedule(cloud.controller.state, Drills(every="90d"), cloud.now + 100 * DAY_S)
    assert rows[0]["id"] == 0
    assert [row["id"] for row in schedule(cloud.controller.state, Drills(), cloud.now)][-1] == 0


async def test_hosts_in_maintenance_are_drilled_one_after_the_other_and_once_in_a_night(cloud):
    night = Night(cloud)
    for _ in range(4):
        await night.schedule.look()
    assert night.ordered == [2, 3]
    cloud.now += TRY_AGAIN_S
    await night.schedule.look()
    assert night.ordered == [2, 3, 2]


async def test_what_was_drilled_lately_is_left_alone(cloud):
    night = Night(cloud)
    drilled(cloud, 2)
    await night.schedule.look()
    assert night.ordered == [3]


async def test_without_the_operators_wish_nothing_begins_by_itself(cloud):
    night = Night(cloud, Drills())
    await night.schedule.look()
    assert night.ordered == []


async def test_nothing_begins_outside_of_the_window(cloud):
    night = Night(cloud)
    night.local_time = SATURDAY.replace(hour=5)
    await night.schedule.look()
    assert night.ordered == []


@pytest.mark.parametrize("trouble", ["a silent host", "a pause"])
async def test_nothing_begins_while_anything_is_amiss(cloud, trouble):
    night = Night(cloud)
    if trouble == "a pause":
        cloud.operator(Verb.PAUSE)
    else:
        cloud.kill(1)
        cloud.run(3)
    await night.schedule.look()
    assert night.ordered == []


async def test_the_order_is_repeated_while_the_vms_are_being_read(cloud, monkeypatch):
    monkeypatch.setattr("ha_controller.app.drills.ORDER_AGAIN_S", 0.0)
    night = Night(cloud)
    night.code = LOOK_AGAIN
    await night.schedule.look()
    assert night.ordered == [2] * 5


@pytest.mark.parametrize(
    ("window", "moment", "opened"),
    [
        ("01:00-05:00", SATURDAY, True),
        ("01:00-05:00", SATURDAY.replace(hour=0, minute=59), False),
        ("01:00-05:00", SATURDAY.replace(hour=5, minute=0), False),
        ("01:00-05:00", SATURDAY.replace(day=27), False),  # a Friday
        ("22:00-04:00", SATURDAY.replace(hour=23), True),
        ("22:00-04:00", SATURDAY.replace(hour=3), False),  # begun on Friday
        ("22:00-04:00", SATURDAY.replace(day=30, hour=3), True),  # begun on Sunday
        ("22:00-04:00", SATURDAY.replace(hour=12), False),
    ],
)
def test_a_window_belongs_to_the_day_on_which_it_begins(window, moment, opened):
    assert is_open(Drills(window=window), moment) is opened


@pytest.mark.parametrize("written", ["1:00-5:00", "01:00", "24:00-05:00", "05:00-05:00", "night"])
def test_a_window_that_is_none_is_refused(written):
    with pytest.raises(ValueError, match="no part of a day"):
        Drills(window=written)
