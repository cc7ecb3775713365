"""What a fence agent says of itself (`-o metadata`), and whether settings fit it.

The agents only warn of an unknown parameter and go on without it; here it is an error of the configuration. Source:
ClusterLabs' FenceAgentAPI.md and metadata.rng.
"""

from __future__ import annotations

import difflib
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from ha_controller import process
from ha_controller.process import environment, find

METADATA_WITHIN_S: Final = 10.0
#: What the bridge says itself, or what would change what it says.
RESERVED: Final = frozenset({"action", "nodename", "help", "version", "quiet", "verbose", "debug", "debug_file"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter."""

    name: str
    kind: str  #: string, integer, boolean, second, select
    required: bool
    default: str
    options: tuple[str, ...]  #: of a select
    text: str
    replaces: str  #: an older name of the same
    deprecated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """What a program takes and does."""

    summary: str
    parameters: tuple[Parameter, ...]
    actions: frozenset[str]


class NoMetadata(Exception):
    """The program is not there, or says nothing usable; the text says which."""


def installed() -> tuple[str, ...]:
    """Return the names of all installed agents."""
    folders = [Path(folder) for folder in process.PATH.split(":")]
    found = {path.name for folder in folders for path in folder.glob("fence_*") if os.access(path, os.X_OK)}
    return tuple(sorted(found))


def metadata_of(program: str) -> Metadata:
    """Ask an installed agent. Blocks for about 0.2 s the first time (10 s if it hangs); not for the path of a fence.

    Raises:
        NoMetadata: it is not installed, or its answer cannot be read.
    """
    path = find(program)
    if path is None:
        raise NoMetadata(f"{program} is not installed. Debian: apt install fence-agents")
    described = _description(path)
    if isinstance(described, str):
        raise NoMetadata(f"{program} does not describe itself ({described})")
    return described


@cache
def _description(path: str) -> Metadata | str:
    """Return what a program says of itself, or why it does not; a hung one is waited for once."""
    try:
        asked = subprocess.run(
            [path, "-o", "metadata"],
            capture_output=True, stdin=subprocess.DEVNULL, timeout=METADATA_WITHIN_S, env=environment(), check=False,
        )  # fmt: skip
        return _parsed(asked.stdout)
    except (OSError, subprocess.TimeoutExpired, ElementTree.ParseError) as error:
        return type(error).__name__


def forget() -> None:
    """Ask every program anew, for tests."""
    _description.cache_clear()


def _parsed(document: bytes) -> Metadata:
    """Raises ElementTree.ParseError, also for a document type: nothing is ever expanded."""
    if b"<!DOCTYPE" in document:
        raise ElementTree.ParseError("a document type")
    root = ElementTree.fromstring(document)
    return Metadata(
        summary=root.get("shortdesc", ""),
        parameters=tuple(_parameter(element) for element in root.iter("parameter")),
        actions=frozenset(element.get("name", "") for element in root.iter("action")),
    )


def _parameter(element: ElementTree.Element) -> Parameter:
    content = element.find("content")
    return Parameter(
        name=element.get("name", ""),
        kind="string" if content is None else content.get("type", "string"),
        required=element.get("required") == "1",
        default="" if content is None else content.get("default", ""),
        options=() if content is None else tuple(option.get("value", "") for option in content.iter("option")),
        text=" ".join((element.findtext("shortdesc") or "").split()),
        replaces=element.get("obsoletes", ""),
        deprecated=element.get("deprecated") == "1",
    )


def complaints(metadata: Metadata, given: Mapping[str, str | None]) -> list[str]:
    """Return everything that is wrong with parameters, by name; a secret's value is None."""
    known = {parameter.name: parameter for parameter in metadata.parameters if parameter.name not in RESERVED}
    found = [f"{name} is set by the controller: leave it out" for name in given if name in RESERVED]
    for name, value in given.items():
        if name in RESERVED:
            continue
        if name not in known:
            found.append(f"there is no parameter {name}{_meant(name, known)}")
        elif value is not None and (wrong := _wrong(known[name], value)):
            found.append(wrong)
    for parameter in known.values():
        names = {parameter.name, parameter.replaces}
        if parameter.required and not parameter.default and not parameter.deprecated and not names & given.keys():
            found.append(f"{parameter.name} is missing ({parameter.text})")
    return found


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _wrong(parameter: Parameter, value: str) -> str:
    if "{" in value:
        return ""  # an attribute of the host stands there
    if parameter.kind in ("integer", "second") and not value.removeprefix("-").isdigit():
        return f"{parameter.name} takes a number"
    if parameter.kind == "boolean" and value.lower() not in ("1", "yes", "on", "true", "0", "no", "off", "false"):
        return f"{parameter.name} takes true or false"
    if parameter.kind == "select" and parameter.options and value not in parameter.options:
        return f"{parameter.name} takes one of {', '.join(parameter.options)}"
    return ""
