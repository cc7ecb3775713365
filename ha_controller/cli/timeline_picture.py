"""A picture of an incident in time, as SVG: phases of its host, outages of VMs, decisions and people's actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Json = Any

WIDTH, LABELS, ROW, MARGIN = 900, 180, 22, 20
VMS_MAX = 40  #: more are in the table only
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
TICKS_MAX = 10


class Bar(NamedTuple):
    """From when to when, and which colour."""

    begin: float
    end: float
    look: str


class Row(NamedTuple):
    """A line of the picture."""

    label: str
    bars: Sequence[Bar] = ()
    marks: Sequence[float] = ()


def draw(record: Json, escaped: Callable[[str], str]) -> str:
    """The picture; `escaped` makes text of others fit to stand in XML."""
    rows = list(_rows(record))
    moments = [at for row in rows for bar in row.bars for at in (bar.begin, bar.end)]
    moments += [at for row in rows for at in row.marks] + [record["opened_at"]]
    begin, span = min(moments), max(max(moments) - min(moments), 0.1)
    height = (len(rows) + 1) * ROW + MARGIN

    def x(at: float) -> float:
        return round(LABELS + (at - begin) / span * (WIDTH - LABELS - MARGIN), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Timeline of the incident; the tables below say the same">'
    ]
    for after_s in _ticks(span):
        at = x(begin + after_s)
        parts.append(f'<line class="axis" x1="{at}" y1="0" x2="{at}" y2="{height - MARGIN}"/>')
        parts.append(f'<text x="{at}" y="{height - 5}" text-anchor="middle">{after_s:g} s</text>')
    for index, row in enumerate(rows):
        y = index * ROW + 4
        # an inner svg cuts off what is too long for its column, in whatever script
        label = f'<text x="4" y="12">{escaped(row.label)}</text>'
        parts.append(f'<svg x="0" y="{y}" width="{LABELS - 8}" height="{ROW}">{label}</svg>')
        for bar in row.bars:
            left, right = x(bar.begin), x(bar.end)
            wide = round(max(right - left, 1), 1)
            parts.append(f'<rect class="{bar.look}" x="{left}" y="{y}" width="{wide}" height="14"/>')
        parts += [f'<circle class="mark" cx="{x(at)}" cy="{y + 7}" r="4"/>' for at in row.marks]
    return "\n".join([*parts, "</svg>"])


def _ticks(span: float) -> Iterator[float]:
    step = next((step for step in STEPS_S if span / step <= TICKS_MAX), span / TICKS_MAX)
    yield from (round(number * step, 3) for number in range(TICKS_MAX + 1) if number * step <= span)


def _rows(record: Json) -> Iterator[Row]:
    """The host, what was decided and done by people, and its VMs. What is not known is not drawn."""
    settled = [vm["settled_at"] for vm in record["vms"]]
    ends = max(settled) if settled and all(settled) else None
    life, opened = record["last_life_at"], record["opened_at"]
    failed, off = (opened, opened) if record["rebooted"] else (record["failed_at"], record["fenced_at"])
    phases = (("detect", life, failed), ("fence", failed, off), ("restart", off, ends))
    for look, begin, end in phases:
        yield Row(look, _bars(begin, end, look))
    yield Row("decided", marks=[line["at"] for line in record["timeline"] if line["kind"] == "decision"])
    yield Row("people", marks=[act["at"] for act in record["acts"]])
    for vm in record["vms"][:VMS_MAX]:
        ran_at = vm["settled_at"] if vm["outage_s"] is not None else None
        yield Row(f"VM {vm['id']} {vm['name']}", _bars(life, ran_at, "down"))
    if len(record["vms"]) > VMS_MAX:
        yield Row(f"and {len(record['vms']) - VMS_MAX} more VMs")


def _bars(begin: float | None, end: float | None, look: str) -> list[Bar]:
    return [Bar(begin, max(begin, end), look)] if begin is not None and end is not None else []
