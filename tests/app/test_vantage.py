"""What a controller tells others of a host."""

from __future__ import annotations

from ha_controller.app.vantage import _ages
from ha_controller.core.detector import ChannelView
from ha_controller.core.state import HostView

NOW = 1000.0


def ages(**alive_at: float | None) -> dict[str, float]:
    view = HostView(views={name: ChannelView(alive_at=at) for name, at in alive_at.items()})
    return _ages(view, {"icmp", "tcp"}, NOW)


def test_the_newest_life_of_its_kernel_is_told_and_the_newest_other():
    assert ages(icmp=NOW - 2, tcp=NOW - 1, ssh=NOW - 9, oned=NOW - 4) == {"tcp": 1.0, "oned": 4.0}


def test_an_age_is_rounded_up_for_too_old_is_the_safe_side():
    assert ages(ssh=NOW - 0.0101) == {"ssh": 0.011}


def test_what_was_long_ago_or_never_is_not_told():
    assert ages(icmp=NOW - 31, ssh=None) == {}
