"""The version stands in several files; this says whether they agree, and writes another one into all of them.

Usage: python packaging/version.py            prints it; exit code 1 and what is wrong when they do not agree
       python packaging/version.py 0.2.0      writes it everywhere, and dates the CHANGELOG's section "Unreleased"
It needs nothing but the standard library.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
_NUMBER = r"(?P<version>[\w.+-]*\w)"
#: files -> what stands around the version there; the first is where it is read
PLACES = (
    ("pyproject.toml", rf'^version = "{_NUMBER}"$'),
    ("plugins/*/pyproject.toml", rf'^version = "{_NUMBER}"$'),
    ("ha_controller/__init__.py", rf'^__version__ = "{_NUMBER}"$'),
    ("Dockerfile", rf"^ARG VERSION={_NUMBER}$"),
    ("Dockerfile", rf"--tag ha-controller:{_NUMBER} "),
    ("packaging/container/compose*.yaml", rf"image: ha-controller:{_NUMBER}$"),
    ("docs/container.md", rf"--tag ha-controller:{_NUMBER} "),
    ("docs/ansible.md", rf"/ha-controller_{_NUMBER}_amd64\.deb$"),
    ("docs/openapi.json", rf'\A[^}}]*"version": "{_NUMBER}"'),
)
_UNRELEASED = "## Unreleased\n"


def found(root: Path = ROOT) -> Iterator[tuple[Path, re.Pattern[str], list[str]]]:
    """Each file of each place, with the versions that stand there. Raises ValueError: a place is gone."""
    for files, pattern in PLACES:
        paths = sorted(root.glob(files))
        if not paths:
            raise ValueError(f"there is no {files}")
        for path in paths:
            compiled = re.compile(pattern, re.MULTILINE)
            versions = [match["version"] for match in compiled.finditer(path.read_text())]
            if not versions:
                raise ValueError(f"{path.relative_to(root)}: no version where {pattern} was expected")
            yield path, compiled, versions


def current(root: Path = ROOT) -> str:
    """The version. Raises ValueError: not all places have the same."""
    places = [(path.relative_to(root), versions) for path, _, versions in found(root)]
    first = places[0][1][0]
    if wrong := [f"{path}: {each}" for path, versions in places for each in versions if each != first]:
        raise ValueError(f"pyproject.toml says {first}, but " + ", ".join(wrong))
    return first


def write(version: str, root: Path = ROOT, today: datetime.date | None = None) -> None:
    """Put it everywhere, and date what is unreleased. Raises ValueError: it is none, or there is nothing to release."""
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is no version like 0.2.0 or 0.2.0rc1")
    changes = root / "CHANGELOG.md"
    before, heading, after = changes.read_text().partition(_UNRELEASED)
    if not heading or after.lstrip().startswith("## ") or not after.strip():
        raise ValueError(f"CHANGELOG.md has nothing below {_UNRELEASED.strip()!r}")
    for path, pattern, _ in list(found(root)):
        path.write_text(pattern.sub(lambda match: _with(match, version), path.read_text()))
    day = today or datetime.datetime.now(datetime.UTC).date()
    changes.write_text(f"{before}## {version} ({day.isoformat()})\n{after}")


def is_dated(version: str, root: Path = ROOT) -> bool:
    """Whether the CHANGELOG's first section is this version's, with its day."""
    first = re.search(r"(?m)^## (.*)$", (root / "CHANGELOG.md").read_text())
    return first is not None and re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", first[1]) is not None


def _with(match: re.Match[str], version: str) -> str:
    whole, start = match.group(), match.start()
    return whole[: match.start("version") - start] + version + whole[match.end("version") - start :]


def main() -> None:
    """Say it, or write it."""
    try:
        if sys.argv[1:2] == ["--dated"]:
            if not is_dated(current()):
                raise ValueError(f"the first section of CHANGELOG.md is not '## {current()} (YEAR-MONTH-DAY)'")
            return
        if sys.argv[1:]:
            write(sys.argv[1])
        sys.stdout.write(f"{current()}\n")
    except ValueError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
