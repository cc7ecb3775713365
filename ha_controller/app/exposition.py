"""The text that Prometheus reads, version 0.0.4: names, labels with their escapes, numbers.

Written here because a scrape runs on the event loop: for 1,000 hosts there are 15,000 lines, and a library that makes
an object for each held the loop for half a second, which the prober has to take for a stall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ha_controller.app.tallies import Spread, Tally


class Page:
    """One answer to a scrape."""

    def __init__(self) -> None:
        """Empty."""
        self._families: list[list[str]] = []  #: the lines of each metric: they must follow each other

    def gauge(self, name: str, text: str, *labels: str) -> Samples:
        """A metric that goes up and down."""
        return self._begin(name, text, "gauge").of(labels)

    def counter(self, name: str, text: str, tally: Tally) -> None:
        """A metric that only grows; its name ends in `_total`."""
        samples = self._begin(name, text, "counter").of(tally.labels)
        for values, count in sorted(tally.rows.items()):
            samples.add(count, *values)

    def histogram(self, name: str, text: str, spread: Spread) -> None:
        """How often values were not more than each bound, how many there were, and their sum."""
        family = self._begin(name, text, "histogram")
        buckets = family.of((*spread.labels, "le"), "_bucket")
        sums, counts = family.of(spread.labels, "_sum"), family.of(spread.labels, "_count")
        bounds = [number(float(bound)) for bound in (*spread.bounds, math.inf)]
        for values, row in sorted(spread.rows.items()):
            for bound, count in zip(bounds, accumulate(row), strict=True):
                buckets.add(count, *values, bound)
            sums.add(spread.sums[values], *values)
            counts.add(sum(row), *values)

    def _begin(self, name: str, text: str, kind: str) -> _Family:
        full = f"ha_controller_{name}"
        lines = [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
        self._families.append(lines)
        return _Family(full, lines)

    def text(self) -> str:
        """All of it."""
        return "\n".join([line for lines in self._families for line in lines]) + "\n"


@dataclass(frozen=True)
class _Family:
    """One metric."""

    name: str
    lines: list[str]

    def of(self, labels: Sequence[str], suffix: str = "") -> Samples:
        """Its samples with these labels."""
        pairs = ",".join(f'{label}="%s"' for label in labels)
        return Samples(f"{self.name}{suffix}{{{pairs}}} %s" if labels else f"{self.name}{suffix} %s", self.lines)


@dataclass(frozen=True)
class Samples:
    """The samples of one metric."""

    form: str
    lines: list[str]

    def add(self, value: float, *labels: str) -> None:
        """One more, with the values of its labels."""
        self.lines.append(self.form % (*map(escaped, labels), number(value)))


def escaped(value: str) -> str:
    """A label's value as the format wants it; what is no text in UTF-8 as its escape."""
    if not value.isascii():
        value = value.encode(errors="backslashreplace").decode()
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value


def number(value: float) -> str:
    """A number as the format wants it."""
    if isinstance(value, int):
        return str(int(value))
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
