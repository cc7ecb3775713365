"""docs/scenarios.md: every story with its theme, its first sentence, and the cases that it covers."""

from __future__ import annotations

import re
from pathlib import Path

from scenarios import steps
from scenarios.language import KINDS, read

assert steps.__doc__  # imported for the kinds of steps that it makes known
FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PAGE = ROOT / "docs" / "scenarios.md"
STORIES = sorted(path.parent for path in FOLDER.glob("*/*/scenario.toml"))
THEMES = {
    "detection": "Is it dead?",
    "storms": "Many at once",
    "guards": "May it be powered off now?",
    "devices": "Fence devices, and whose they are",
    "fencing": "Powering off",
    "proof": "Is it really off, and does it stay off?",
    "reboots": "Hosts that reboot by themselves",
    "opennebula": "OpenNebula as it is",
    "vms": "What becomes of each VM",
    "order": "In which order VMs start",
    "placement": "Where VMs go",
    "rejoin": "The way back",
    "people": "What people order",
    "controller": "The controller itself",
}
TABLES = ("detection-failures", "fencing-failures", "controller-failures", "vm-outcomes", "torture")
HEAD = """# Scenarios

Every story below is a folder of `tests/scenarios`: `README.md` tells it in two sentences, `scenario.toml` plays it
with the production core in a pretended cloud, and `log.expect` is all that the controller did and said, with the
seconds since the story began. Lines with `>` are what happened to it. There are {count}; `make scenarios` plays them,
and `make scenarios ARGS=--accept` writes the logs and this page anew: look at the difference.

## Reading and writing one

    hosts = 4              # of which each has two VMs, if nothing else is said
    until = 30             # seconds
    covers = ["F1", "T2"]  # of the tables of cases, see below

    [settings]             # of the core, by their names in ha_controller/core/settings.py
    mode = "approve"

    [[step]]
    at = 0                 # in the order of time
    kill = 3               # the first key says what happens
    power = "off"          # what belongs to it

What can happen, each a function in `tests/scenarios/steps.py`: {kinds}.

A key that is not known is told with file and line; a missing or surplus file and a log that is not as expected fail.
The judge in `tests/scenarios/faults.py` looks at every order, too: no VM moves while its host has power, no healthy
host is powered off, nobody waits without having been told why. `harm` in a scenario.toml names what goes wrong all the
same: a flaw that we know. Where nothing happens, time goes by in steps of a second.
"""


def title(story: Path) -> str:
    """The heading of its README."""
    first = (story / "README.md").read_text().partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""


def sentences(story: Path) -> list[str]:
    """What its README says below the heading."""
    text = " ".join((story / "README.md").read_text().partition("\n")[2].split())
    return re.findall(r".+?[.!?](?= |$)", text)


def covered() -> dict[str, list[str]]:
    """Case -> the stories that show it."""
    found: dict[str, list[str]] = {}
    for story in STORIES:
        for case in read(story / "scenario.toml").written.covers:
            found.setdefault(case, []).append(f"{story.parent.name}/{story.name}")
    return found


def page() -> str:
    """The whole page."""
    lines = [HEAD.format(count=len(STORIES), kinds=", ".join(f"`{kind}`" for kind in sorted(KINDS)))]
    for theme, heading in THEMES.items():
        lines.append(f"## {heading}\n\n`tests/scenarios/{theme}`\n\n| | | cases |\n|---|---|---|")
        for story in [each for each in STORIES if each.parent.name == theme]:
            cases = ", ".join(read(story / "scenario.toml").written.covers)
            lines.append(f"| `{story.name}` | {sentences(story)[0]} | {cases} |")
        lines.append("")
    lines.append(_cases())
    return "\n".join(lines)


def _cases() -> str:
    """The cases of the tables, each with its stories."""
    tables = ", ".join(f"[{name}]({name}.md)" for name in TABLES)
    lines = [f"## By case\n\nThe cases are those of {tables}; some of them are shown by other tests only.\n"]
    for case, stories in sorted(covered().items(), key=lambda each: (each[0][0], int(each[0][1:]))):
        lines.append(f"- **{case}** {', '.join(f'`{story}`' for story in stories)}")
    return "\n".join([*lines, ""])
