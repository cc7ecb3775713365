"""The picture of `growth`: cost against the size of the cloud, both axes logarithmic, as SVG.

Ours, not matplotlib's: that brings 40 MB into an environment that continuous integration makes anew, for six points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, ROOM, TALL = 700, 300, 60, 40, 250, 190
GREY, BLUE = "#808080", "#2f6fb5"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the pictures side by side."""

    title: str
    points: Mapping[int, float]  #: hosts -> cost
    low: float
    high: float  #: of the vertical axis: powers of ten


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Write them beside each other."""
    letters = 'font-family="sans-serif" font-size="12"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {letters}>',
        *(line for number, panel in enumerate(panels) for line in _drawn(panel, LEFT + number * (WIDTH // 2))),
        "</svg>",
    ]
    path.write_text("\n".join(lines) + "\n")


def _drawn(panel: Panel, left: float) -> Iterator[str]:
    sizes = sorted(panel.points)

    def across(hosts: float) -> float:
        return left + ROOM * log10(hosts / sizes[0]) / log10(sizes[-1] / sizes[0])

    def down(cost: float) -> float:
        return TOP + TALL - TALL * log10(cost / panel.low) / log10(panel.high / panel.low)

    yield _text(left, TOP - 18, panel.title, anchor="start", bold=True)
    tick = panel.low
    while tick <= panel.high * 1.01:
        yield _line(left, down(tick), left + ROOM, down(tick), GREY, "1 3")
        yield _text(left - 6, down(tick) + 4, f"{tick:g}", anchor="end")
        tick *= 10
    for hosts in sizes:
        yield _text(across(hosts), TOP + TALL + 18, f"{hosts:,}")
    yield _text(left + ROOM / 2, TOP + TALL + 38, "hosts")
    first = panel.points[sizes[0]]
    end = min(sizes[-1], sizes[0] * panel.high / first)  # where ten times the hosts cost ten times as much
    yield _line(across(sizes[0]), down(first), across(end), down(first * end / sizes[0]), GREY, "6 4")
    yield _text(across(end) - 8, down(first * end / sizes[0]) + 14, "linear", anchor="end")
    corners = " ".join(f"{across(hosts):.1f},{down(panel.points[hosts]):.1f}" for hosts in sizes)
    yield f'<polyline points="{corners}" fill="none" stroke="{BLUE}" stroke-width="2"/>'
    for hosts in sizes:
        cost = panel.points[hosts]
        yield f'<circle cx="{across(hosts):.1f}" cy="{down(cost):.1f}" r="3.5" fill="{BLUE}"/>'
        yield _text(across(hosts), down(cost) - 9, f"{cost:.1f}" if cost < 100 else f"{cost:.0f}", colour=BLUE)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-dasharray="{dashes}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", bold: bool = False, colour: str = GREY) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{text}</text>'
