"""The draft of a post-mortem, from what is on record of an incident: Markdown, or one HTML page without scripts.

Pure: JSON in, text out. Names of hosts and VMs are their owners', so everything is escaped where it is written. Times
are UTC, for the text is passed on.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ha_controller.cli import timeline_picture
from ha_controller.cli.audit import said
from ha_controller.cli.show import lasted, safe

Json = Any

TRAIL_MAX = 1000  #: so many lines of the trail are asked for
TO_FILL_IN = "(to fill in)"


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and what stands below it: sentences, points, a table."""

    title: str
    sentences: Sequence[str] = ()
    points: Sequence[str] = ()
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def sections(record: Json) -> list[Section]:
    """What the draft says, in its order; `record` as of `incidents export --as json`."""
    return [
        Section("Summary", [_summary(record), TO_FILL_IN]),
        Section("How long it took", headers=("Phase", "Seconds"), rows=list(_phases(record))),
        Section(
            "Virtual machines",
            [] if record["vms"] else ["No VM is on record."],
            headers=("VM", "Name", "Was", "Outcome", "Outage", "Why"),
            rows=[_vm(vm) for vm in record["vms"]],
        ),
        Section("Evidence", points=[str(line) for line in record["evidence"]]),
        Section("What was decided and why", points=list(_decided(record))),
        Section("Powering off", points=list(_fencing(record))),
        Section(
            "Actions by people",
            [] if record["acts"] else ["None is on record for this host in this time."],
            headers=("At", "Who", "From", "What", "Why", "Result"),
            rows=[_act(act) for act in record["acts"]],
        ),
        Section(
            "Timeline",
            headers=("At", "After", "Kind", "What"),
            rows=[
                (moment(line["at"]), _after(record, line["at"]), str(line["kind"]), str(line["text"]))
                for line in record["timeline"]
            ],
        ),
        Section("Open questions", points=[*_questions(record), TO_FILL_IN]),
        *(Section(title, [TO_FILL_IN]) for title in ("Root cause", "What went well", "What went badly")),
        Section("What is to be done", headers=("What", "Who", "Until"), rows=[(TO_FILL_IN, "", "")]),
    ]


def title(record: Json) -> str:
    """The heading of the draft."""
    return f"Incident {record['id']}: {record['host_name']}, {moment(record['opened_at'])}"


def moment(at: float) -> str:
    """RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- what is on record ------------------------------------------------------------------------------------------------


def _summary(record: Json) -> str:
    running = sum(vm["stage"] == "running" for vm in record["vms"])
    end = "It is still open." if record["open"] else f"It was closed: {record['closing'] or 'no reason on record'}."
    return (
        f"{record['host_name']} was judged: {record['verdict']}. It is now {str(record['state']).upper()}. "
        f"{running} of its {len(record['vms'])} VMs run again. {end}"
    )


def _phases(record: Json) -> Iterator[tuple[str, str]]:
    for name, seconds in record["phases_s"].items():
        yield f"time to {name}" if name != "total" else name, "not known" if seconds is None else f"{seconds:.1f}"


def _vm(vm: Json) -> tuple[str, ...]:
    outage = "not known" if vm["outage_s"] is None else lasted(vm["outage_s"])
    return str(vm["id"]), str(vm["name"]), str(vm["was_label"]), str(vm["stage"]), outage, str(vm["reason"])


def _decided(record: Json) -> Iterator[str]:
    for line in record["timeline"]:
        if line["kind"] == "decision":
            data = line["data"]
            because = f", because: {data['because']}" if data.get("because") else ""
            yield f"{moment(line['at'])} {data.get('what') or line['text']}{because}"
            yield from (f"{label}: {row}" for label, name in _REASONS for row in data.get(name, ()))


_REASONS = (("Guard", "guards"), ("Not used", "rejected"))


def _fencing(record: Json) -> Iterator[str]:
    for attempt in record["attempts"]:
        what = f"attempt {attempt['number']}, {', '.join(attempt['devices'])}"
        yield f"{moment(attempt['ordered_at'])} {what}: {attempt['outcome']}. {attempt['detail']}"
    if record["proof"]:
        yield f"{moment(record['proof']['at'])} it counts as off: {record['proof']['text']}"
    if record["rebooted"]:
        yield "It rebooted by itself, so nothing was powered off."


def _act(act: Json) -> tuple[str, ...]:
    return moment(act["at"]), act["who"], act["origin"], act["what"], act["why"], said(act)


def _after(record: Json, at: float) -> str:
    since = record["opened_at"] if record["last_life_at"] is None else record["last_life_at"]
    return f"{at - since:+.1f} s"


def _questions(record: Json) -> Iterator[str]:
    """What the record itself leaves open."""
    if record["open"]:
        yield "The incident is still open: this draft is not the last word. How does it end?"
    if record["last_life_at"] is None:
        yield "The last life of the host is not on record. Since when was it down?"
    for attempt in record["attempts"]:
        if attempt["outcome"] != "off read":
            yield f"Attempt {attempt['number']} ({', '.join(attempt['devices'])}) ended as: {attempt['outcome']}. Why?"
    for vm in record["vms"]:
        if vm["stage"] != "running":
            yield f"VM {vm['id']} {vm['name']} was not seen running again ({vm['stage']}). Is that as it should be?"
    for blocked in filter(None, (record["stopped"], record["hold"], record["foreign"])):
        yield f"It stood still: {blocked}. How long, and could it have been avoided?"
    yield from (
        f"An order of start was not followed: {fault}. Is it to be corrected?" for fault in record["order_faults"]
    )
    if len(record["timeline"]) >= TRAIL_MAX:
        yield f"Only the first {TRAIL_MAX} lines of the trail are here. What came later?"
    if len(record["acts"]) >= TRAIL_MAX:
        yield f"Only {TRAIL_MAX} actions by people are here. Which are missing?"


# --- Markdown ---------------------------------------------------------------------------------------------------------

_MEANS_SOMETHING = re.compile(r"[\\`*_{}\[\]<>#|!&~$@]|(?<=\w):(?=//)|(?<=www)\.|^[-+=](?=[\s=+-])|(?<=\d)[.)](?=\s)")


def markdown(record: Json) -> str:
    """The draft as Markdown, with tables as of GitHub."""
    lines = [f"# {_plain(title(record))}", ""]
    for section in sections(record):
        lines += [f"## {section.title}", ""]
        for sentence in section.sentences:
            lines += [_plain(sentence), ""]
        if section.points:
            lines += [*(f"- {_plain(point)}" for point in section.points), ""]
        if section.rows:
            lines += [_row(section.headers), _row(["---"] * len(section.headers), raw=True)]
            lines += [*(_row(row) for row in section.rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cell if raw else _plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing but text."""
    return _MEANS_SOMETHING.sub(lambda found: f"\\{found[0]}", printable(text).strip())


def printable(text: str) -> str:
    """Without control characters and what UTF-8 or XML cannot write."""
    return re.sub("[\ud800-\udfff\ufffe\uffff]", "?", safe(text))


# --- HTML -------------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1c20; --paper: #fff; --line: #c9ced6; --detect: #b7791f; --fence: #c53030;
  --restart: #2b6cb0; --down: #9b2c2c; --mark: #553c9a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16181c; --line: #444a54; --detect: #ecc94b;
  --fence: #fc8181; --restart: #63b3ed; --down: #feb2b2; --mark: #b794f4; } }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --line: #999; --detect: #b7791f;
  --fence: #c53030; --restart: #2b6cb0; --down: #9b2c2c; --mark: #553c9a; } tr, svg { break-inside: avoid; }
  h2 { break-after: avoid; } .wide { overflow: visible; } .wide svg { min-width: 0; } td { overflow-wrap: anywhere; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide svg { min-width: 40rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top;
  overflow-wrap: normal; }
th, td.short { white-space: nowrap; } td.long { overflow-wrap: break-word; min-width: 12rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.axis { stroke: var(--line); } .detect { fill: var(--detect); } .fence { fill: var(--fence); }
.restart { fill: var(--restart); } .down { fill: var(--down); } .mark { fill: var(--mark); }
"""


def page(record: Json) -> str:
    """The draft as one page of HTML that is well-formed XML too; it loads nothing and runs nothing."""
    heading = _escaped(title(record))
    parts = [
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml">\n<head>\n<meta charset="utf-8"/>',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>",
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{heading}</h1>",
        _wide("Timeline", timeline_picture.draw(record, _escaped)),
    ]
    for section in sections(record):
        parts.append(f"<h2>{_escaped(section.title)}</h2>")
        parts += [f"<p>{_escaped(sentence)}</p>" for sentence in section.sentences]
        if section.points:
            parts += ["<ul>", *(f"<li>{_escaped(point)}</li>" for point in section.points), "</ul>"]
        if section.rows:
            parts.append(_wide(section.title, _table(section)))
    return "\n".join([*parts, "</body>\n</html>\n"])


#: columns whose text is ours and short: never broken, or a narrow window breaks it letter by letter
_SHORT = frozenset({"At", "After", "Kind", "Phase", "Seconds", "VM", "Was", "Outcome", "Outage"})
_LONG = frozenset({"Why", "What"})


def _wide(name: str, inside: str) -> str:
    """What is wider than the window is moved in a frame of its own, by keys as well."""
    return f'<div class="wide" role="region" aria-label="{_escaped(name)}" tabindex="0">\n{inside}\n</div>'


def _table(section: Section) -> str:
    head = "".join(f'<th scope="col">{_escaped(each)}</th>' for each in section.headers)
    looks = ["short" if each in _SHORT else "long" if each in _LONG else "name" for each in section.headers]
    rows = [
        "".join(f'<td class="{look}">{_escaped(cell)}</td>' for look, cell in zip(looks, row, strict=True))
        for row in section.rows
    ]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _escaped(text: str) -> str:
    return html.escape(printable(text), quote=True)
