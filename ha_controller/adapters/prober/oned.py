"""The `oned` channel: what OpenNebula itself says about a host.

It asks nobody: the inventory reads oned anyway and lends its last view. One reading per new view. Only the *progress*
of the monitoring time counts, never its distance from our clock, so the clocks of front-end and controller may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ha_controller.plugin import (
    Domain,
    Duration,
    OnedView,
    Probe,
    ProbeConfig,
    ProbeContext,
    Reading,
    Signal,
    Target,
    duration_field,
)

_ERROR, _OFFLINE = 3, 8  # HOST/STATE, include/Host.h


class OnedConfig(ProbeConfig):
    """Settings of `[channel.oned]`."""

    silent_after_s: Duration = duration_field(
        "5m", key="silent_after"
    )  #: no new monitoring data for this long is silence


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    view: OnedView
    progress_at: float  # read_at of the last view that brought new data, or that gave a reason to start anew


class OnedProbe(Probe[OnedConfig]):
    """Turns views of OpenNebula into readings."""

    kind = "oned"
    config_model = OnedConfig
    domain = Domain.ONED

    def __init__(self, config: OnedConfig, context: ProbeContext) -> None:
        super().__init__(config, context)
        self._known: dict[int, _Known] = {}  # one entry per host of the inventory
        self._readings: list[Reading] = []

    async def open(self) -> str:
        """Nothing to open."""
        return f"monitoring data as the inventory reads it, silent after {self.config.silent_after_s:g} s"

    async def close(self) -> None:
        """Forget all views."""
        self._known.clear()
        self._readings.clear()

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Look at the views that are new. A host that was never read, or not since, brings no reading."""
        for target in targets:
            view = self.context.oned_view(target.host)
            known = self._known.get(target.host)
            if view is not None and (known is None or view.read_at > known.view.read_at):
                self._readings.append(self._judge(target.host, view, known))

    def collect(self, now: float) -> list[Reading]:
        """Hand over the readings of the views that `launch` found."""
        readings, self._readings = self._readings, []
        return readings

    def _judge(self, host: int, view: OnedView, known: _Known | None) -> Reading:
        progressed = known is not None and view.monitored_at > known.view.monitored_at
        # A front-end whose clock was set back, or another leader with older data: no progress, but no silence either.
        anew = known is None or view.monitored_at < known.view.monitored_at or view.state == _OFFLINE
        progress_at = view.read_at if known is None or progressed or anew else known.progress_at
        self._known[host] = _Known(view=view, progress_at=progress_at)
        stale_s = view.read_at - progress_at

        def reading(signal: Signal, detail: str, sent_at: float = view.read_at) -> Reading:
            return Reading(host=host, signal=signal, sent_at=sent_at, detail=detail)

        if view.state == _ERROR:
            return reading(Signal.SILENT, "oned says ERROR")
        if view.state == _OFFLINE:
            return reading(Signal.UNKNOWN, "OFFLINE: oned does not monitor it")
        if known is not None and progressed:
            return reading(Signal.ALIVE, "new monitoring data", _before_the_news(view, known))
        if stale_s >= self.config.silent_after_s:
            return reading(Signal.SILENT, f"no monitoring data for {stale_s:.0f} s")
        return reading(Signal.UNKNOWN, "no earlier view to compare" if known is None else "no new monitoring data yet")


def _before_the_news(view: OnedView, known: _Known) -> float:
    """A moment that the life lies after: the read that did not show it yet.

    Too early is the safe side: life from before a power-off must not look as if it came after it.
    """
    previous = known.view.read_at
    return previous if view.previous_read_at is None else min(previous, view.previous_read_at)
