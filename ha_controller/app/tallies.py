"""Counts and distributions in memory, cheap enough for the event loop; Prometheus reads them at a scrape.

Plain numbers by labels. They begin at 0 with the process and survive nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

ROWS_MAX = 2000  #: of one metric: labels come from configurations and devices, and must not fill the memory


class Tally:
    """How often something happened, by labels."""

    def __init__(self, *labels: str, known: Iterable[Sequence[str]] = ()) -> None:
        """`known`: label values that are shown as 0 before they first happen, so that the first increase is seen."""
        self.labels = labels
        self.rows: dict[tuple[str, ...], int] = {tuple(values): 0 for values in known or ([()] if not labels else [])}

    def add(self, *values: str, by: int = 1) -> None:
        """It happened, with these label values."""
        if values in self.rows or len(self.rows) < ROWS_MAX:
            self.rows[values] = self.rows.get(values, 0) + by


class Spread:
    """How long something took, by labels: how many values lie in each bucket."""

    def __init__(self, bounds: Sequence[float], *labels: str) -> None:
        """`bounds`: the upper ends of the buckets, ascending; what is more lies in the last one, without an end."""
        self.bounds, self.labels = tuple(bounds), labels
        self.rows: dict[tuple[str, ...], list[int]] = {}
        self.sums: dict[tuple[str, ...], float] = {}
        if not labels:
            self._row(())

    def note(self, value: float, *values: str) -> None:
        """It took so long. What is below 0 counts as 0: a clock was set."""
        if (row := self._row(values)) is not None:
            row[bisect_left(self.bounds, value)] += 1
            self.sums[values] += max(0.0, value)

    def _row(self, values: tuple[str, ...]) -> list[int] | None:
        if values not in self.rows and len(self.rows) < ROWS_MAX:
            self.rows[values], self.sums[values] = [0] * (len(self.bounds) + 1), 0.0
        return self.rows.get(values)
