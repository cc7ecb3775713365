"""Durations and shares: what people write, and nothing that they cannot have meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ha_controller.durations import format_duration, format_share, parse_duration, parse_share


@pytest.mark.parametrize(
    ("written", "duration_s"),
    [("200ms", 0.2), ("10s", 10), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("1d", 86400), (" 5 s ", 5)],
)
def test_a_duration_is_seconds(written, duration_s):
    assert parse_duration(written) == pytest.approx(duration_s)


@pytest.mark.parametrize("written", ["", "10", "s", "10x", "1e3s", "١s", "1m30s", "9 sec", 10, 1.5, True, None, []])
def test_a_duration_without_a_clear_unit_is_refused_with_an_example(written):
    with pytest.raises(ValueError, match=r"not a duration\. Write .*10s"):
        parse_duration(written)


@pytest.mark.parametrize("written", ["0s", "0ms", "-1s", "-0.5h", "367d", "9" * 400 + "s"])
def test_a_duration_that_cannot_be_is_refused(written):
    with pytest.raises(ValueError, match="longer than"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("duration_s", "written"),
    [(0.2, "200ms"), (1.0, "1s"), (1.5, "1500ms"), (60.0, "1m"), (90.0, "90s"), (3600.0, "1h"), (0.0005, "0.5ms")],
)
def test_a_duration_is_told_in_the_largest_unit_without_fractions(duration_s, written):
    assert format_duration(duration_s) == written


@given(milliseconds=st.integers(1, 366 * 86_400_000))
def test_what_is_told_is_read_as_the_same_duration(milliseconds):
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-12)


@given(percent=st.integers(1, 100))
def test_what_is_told_is_read_as_the_same_share(percent):
    assert parse_share(f"{percent}%") == percent / 100
    assert parse_share(format_share(percent / 100)) == percent / 100


@pytest.mark.parametrize("written", ["0%", "101%", "-5%", "25", 0.25, 25, True, "a quarter", "%"])
def test_a_share_that_is_none_is_refused_with_an_example(written):
    with pytest.raises(ValueError, match="25%"):
        parse_share(written)
