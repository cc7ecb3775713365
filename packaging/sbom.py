"""Lists what is installed beside ha-controller: a bill of materials (CycloneDX 1.6), or docs/licences.md.

Run it with the Python whose packages are to be listed; it needs nothing but the standard library.
Usage: python packaging/sbom.py [--page] [--only requirements.lock]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OURS = re.compile(r"ha-controller(-|$)")
LICENCES_LONG = 60  #: some packages have the whole text where its name belongs
#: what the packages' own classifiers and free words mean (spdx.org/licenses)
SPDX = {
    "Apache 2.0": "Apache-2.0", "Apache License 2.0": "Apache-2.0", "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache-2.0": "Apache-2.0", "BSD-2-Clause": "BSD-2-Clause",
    "BSD-3-Clause": "BSD-3-Clause", "MIT": "MIT", "MIT License": "MIT", "PSF-2.0": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0", "Eclipse Public License v2.0": "EPL-2.0",
}  # fmt: skip


def canonical(name: str) -> str:
    """As indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(found: Distribution) -> str:
    """An SPDX expression where the package tells one, else its own words."""
    told = found.metadata
    if expression := told.get("License-Expression"):
        return str(expression)
    classifiers = [text.split(" :: ")[-1] for text in told.get_all("Classifier") or [] if text.startswith("License ::")]
    words = (told.get("License") or "").strip()
    if words and len(words) <= LICENCES_LONG and "\n" not in words:
        return SPDX.get(words, words)
    named = [SPDX.get(text, text) for text in classifiers if text != "OSI Approved"]
    return " OR ".join(named) if named else _by_its_text(found)


def _by_its_text(found: Distribution) -> str:
    """Some packages have their licence in a file only."""
    for file in found.metadata.get_all("License-File") or []:
        text = " ".join((found.read_text(f"licenses/{file}") or found.read_text(file) or "").split())
        if "Redistribution and use in source and binary forms" in text:
            return "BSD-3-Clause" if "Neither the name" in text else "BSD-2-Clause"
    return "not told"


def needed_by(found: Distribution, installed: set[str]) -> Iterator[str]:
    """The installed packages that it asks for without an extra."""
    for requirement in found.requires or []:
        name = canonical(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
        if "extra ==" not in requirement and name in installed:
            yield name


def bill(all_of_it: dict[str, Distribution]) -> dict[str, Any]:
    """The document. The same packages give the same document."""
    reference = {name: f"pkg:pypi/{name}@{found.version}" for name, found in all_of_it.items()}

    def component(name: str, kind: str = "library") -> dict[str, Any]:
        licence = licence_of(all_of_it[name])
        is_expression = re.fullmatch(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*", licence) is not None
        return {
            "type": kind,
            "bom-ref": reference[name],
            "name": name,
            "version": all_of_it[name].version,
            "purl": reference[name],
            "licenses": [{"expression": licence} if is_expression else {"license": {"name": licence}}],
        }

    names = sorted(all_of_it)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(reference[name] for name in names))}",
        "version": 1,
        "metadata": {"component": component("ha-controller", "application")},
        "components": [component(name) for name in names if name != "ha-controller"],
        "dependencies": [
            {"ref": reference[name], "dependsOn": sorted({reference[each] for each in needed_by(found, set(names))})}
            for name, found in sorted(all_of_it.items())
        ],
    }


def asked_for_by_us(root: Path = ROOT) -> dict[str, set[str]]:
    """Package -> our distributions that ask for it, by this checkout's pyproject.toml files."""
    asked: dict[str, set[str]] = {}
    for path in (root / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml"))):
        project = tomllib.loads(path.read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        for requirement in (*project["dependencies"], *(each for extra in extras for each in extra)):
            name = canonical(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
            if not OURS.match(name):
                asked.setdefault(name, set()).add(project["name"])
    return asked


def of_the_lock(lock: Path) -> dict[str, Distribution]:
    """What it names, as it is installed here, and our own."""
    locked = {canonical(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), re.MULTILINE)}
    installed = {canonical(found.metadata["Name"]): found for found in distributions()}
    if missing := locked - set(installed):
        sys.exit(f"not installed here: {', '.join(sorted(missing))}")
    return {name: found for name, found in installed.items() if name in locked or OURS.match(name)}


def page(all_of_it: dict[str, Distribution]) -> str:
    """A table for people."""
    needing = {name: set(asked) for name, asked in asked_for_by_us().items()}
    for name, found in all_of_it.items():
        for each in () if OURS.match(name) else needed_by(found, set(all_of_it)):
            needing.setdefault(each, set()).add(name)
    whom = {name: ", ".join(f"`{each}`" for each in sorted(asking)) for name, asking in needing.items()}
    rows = [
        f"| `{name}` | {found.version} | {licence_of(found)} | {whom.get(name, '')} |"
        for name, found in sorted(all_of_it.items())
        if not OURS.match(name)
    ]
    return "\n".join(
        [
            "# Licences of what is installed with it",
            "",
            "ha-controller itself is under the Apache License 2.0. This page is written by `packaging/sbom.py --page`",
            "from what the packages of requirements.lock say of themselves. Why each of those that we want is there:",
            "[decision 0015](decisions/0015-every-dependency-has-a-reason.md).",
            "",
            "| package | version | licence | asked for by |",
            "|---|---|---|---|",
            *rows,
            "",
            "Not a package, but one file in the core package, served with the page: Preact 11.2.0,",
            "@preact/signals 2.11.4 and @preact/signals-core 1.14.5 (MIT), and htm 3.1.1 (Apache-2.0).",
            "Their licences' texts are served beside it, as `/page/vendor-licences.txt`.",
            "",
        ]
    )


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="the page for people")
    parser.add_argument("--only", type=Path, help="of this lock, and our own")
    chosen = parser.parse_args()
    if chosen.only is not None:
        all_of_it = of_the_lock(chosen.only)
    else:
        all_of_it = {canonical(found.metadata["Name"]): found for found in distributions()}
    sys.stdout.write(page(all_of_it) if chosen.page else json.dumps(bill(all_of_it), indent=1) + "\n")


if __name__ == "__main__":
    main()
