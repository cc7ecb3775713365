"""What Prometheus reads: samples are gathered on the event loop, and written down by prometheus-client beside it.

For 1,000 hosts there are 15,000 of them. An object for each, as that library's own gauges are, held the loop for half a
second at every scrape, which the prober has to take for a stall: here a sample is a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import anyio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from ha_controller import threads
from ha_controller.app.tallies import Spread, Tally

SHARE_MAX = 0.05  #: of the time of the event loop, for gathering, however often anybody asks
TEXT_MAX_S = 20.0


class Page:
    """One answer to a scrape."""

    def __init__(self) -> None:
        """Empty."""
        self._families: list[Metric] = []

    def gauge(self, name: str, text: str, *labels: str) -> Samples:
        """A metric that goes up and down."""
        return _samples(self._begin(name, text, "gauge"), labels)

    def counter(self, name: str, text: str, tally: Tally) -> None:
        """A metric that only grows; its name ends in `_total`."""
        samples = _samples(self._begin(name.removesuffix("_total"), text, "counter"), tally.labels, "_total")
        for values, count in sorted(tally.rows.items()):
            samples.add(count, *values)

    def histogram(self, name: str, text: str, spread: Spread) -> None:
        """How often values were not more than each bound, how many there were, and their sum."""
        family = self._begin(name, text, "histogram")
        buckets = _samples(family, (*spread.labels, "le"), "_bucket")
        sums, counts = _samples(family, spread.labels, "_sum"), _samples(family, spread.labels, "_count")
        bounds = [str(float(bound)) for bound in spread.bounds] + ["+Inf"]
        for values, row in sorted(spread.rows.items()):
            for bound, count in zip(bounds, accumulate(row), strict=True):
                buckets.add(count, *values, bound)
            sums.add(spread.sums[values], *values)
            counts.add(sum(row), *values)

    def _begin(self, name: str, text: str, kind: str) -> Metric:
        self._families.append(Metric(f"ha_controller_{name}", text, kind))
        return self._families[-1]

    def collect(self) -> list[Metric]:
        """As prometheus-client asks its collectors."""
        return self._families

    def text(self) -> str:
        """All of it, in the text format 0.0.4. Takes a while: call it in a thread, when nothing is added any more."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry).decode()


class Scrapes:
    """Answers scrapes: many at once get the same text, and gathering never takes more than its share of the loop."""

    def __init__(self, gather: Callable[[], Page], now: Callable[[], float] = anyio.current_time) -> None:
        """`gather` is called on the event loop; `now` gives monotonic seconds."""
        self._gather, self._now = gather, now
        self._one = anyio.Lock()
        self._text, self._good_until = "", float("-inf")

    async def text(self) -> str:
        """What is so now, or was so just now.

        Raises:
            TimeoutError: it took too long to write it.
        """
        with anyio.fail_after(TEXT_MAX_S):
            async with self._one:
                if self._now() >= self._good_until:
                    began_at = self._now()
                    page = self._gather()
                    rest_s = (self._now() - began_at) / SHARE_MAX
                    self._text = await threads.run_sync(page.text, abandon_on_cancel=True)
                    self._good_until = began_at + rest_s
                return self._text


@dataclass(frozen=True)
class Samples:
    """The samples of one metric, with these labels."""

    metric: Metric
    name: str
    labels: Sequence[str]

    def add(self, value: float, *labels: str) -> None:
        """One more, with the values of its labels."""
        self.metric.add_sample(self.name, dict(zip(self.labels, map(_utf8, labels), strict=True)), value)


def _samples(metric: Metric, labels: Sequence[str], suffix: str = "") -> Samples:
    return Samples(metric, f"{metric.name}{suffix}", labels)


def _utf8(value: str) -> str:
    """What is no text in UTF-8 as its escape."""
    return value if value.isascii() else value.encode(errors="backslashreplace").decode()
