"""The language of scenario.toml: what may stand in it, and where the mistake is if something else does.

A step is a table of `[[step]]`: `at`, then the key that says what happens, then what belongs to it. What can happen is
in `steps`, a function for each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from ha_controller.config.positions import Location, parse
from ha_controller.core.model import Domain, VmPolicy
from ha_controller.core.settings import POLICIES, Mode, Policy, Settings

Model = TypeVar("Model", bound=BaseModel)
Does = Callable[..., str]  #: changes the cloud, and tells it in a sentence

KINDS: dict[str, tuple[Does, type[BaseModel]]] = {}


class Strict(BaseModel):
    """No key that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _several(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _known_settings(values: dict[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(Settings) if field.init} - {"channels", "clusters"}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"there is no setting {', '.join(unknown)}")
    return {name: _as_the_core_has_it(name, value) for name, value in values.items()}


def _as_the_core_has_it(name: str, value: Any) -> Any:
    match name:
        case "mode":
            return Mode(value)
        case "vm_policy":
            return VmPolicy(value)
        case "vm_policies":
            return {cluster: VmPolicy(policy) for cluster, policy in value.items()}
        case "policies":
            return {**POLICIES, **{verdict: Policy(policy) for verdict, policy in value.items()}}
        case "weights":
            return {Domain(domain): weight for domain, weight in value.items()}
        case _:
            return value


Hosts = Annotated[list[int], BeforeValidator(_several)]  #: one or several
Changes = Annotated[dict[str, Any], BeforeValidator(_known_settings)]  #: settings of the core, by their names there


class WrittenDevice(Strict):
    """A fence device that is not an ordinary BMC. The words are those of `core.model.Device`."""

    name: str
    identity_noted: bool = True
    weak_off: bool = False
    proves_off: bool = True
    drill_needed: bool = False
    lasting: bool = False
    datastores: list[int] | None = None
    tells_identity: bool = False
    outlet: bool = False
    fingerprint: str = ""


Levels = list[list[str | WrittenDevice]]


class Written(Strict):
    """A whole scenario.toml, but for its steps."""

    covers: list[Annotated[str, Field(pattern=r"^[FT]\d+$")]] = []  #: of docs/*-failures.md, vm-outcomes.md, torture.md
    until: float
    hosts: int = 8
    vms_per_host: int = 2
    opennebula: Literal["", "embedded"] = ""  #: embedded: its VMs have states, and everything takes its time
    elsewhere: list[Literal["neighbours", "storage", "oned", "boot-id", "kdump", "libvirt"]] = []  #: more channels
    places: dict[str, dict[str, str]] = {}  #: host -> what it shares with others
    clusters: dict[str, list[int]] = {}  #: name -> hosts; all others are in "default"
    levels: Levels = [["bmc"]]
    datastores: list[int] = []  #: where the disks of all VMs are
    absent: list[int] = []  #: hosts that join later
    settings: Changes = {}
    every_probe: bool = False  #: time is not hurried where nothing happens, because single probes count in it
    harm: list[str] = []  #: what goes wrong in it, in the judge's words: a flaw that we know
    step: list[dict[str, Any]] = []


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that happens."""

    at: float
    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario as it was written."""

    written: Written
    steps: tuple[Step, ...]


class Mistakes(Exception):
    """What is wrong in a scenario.toml, a line for each."""


def happens(function: Does) -> Does:
    """Make a function a kind of step, by its own name; the parameters are the keys."""
    name, hints = function.__name__, get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1:]  # the first one is the cloud
    assert parameters[0].name == name, f"the first key of {name} must be {name}"
    keys: dict[str, Any] = {
        each.name: (hints[each.name], ... if each.default is inspect.Parameter.empty else each.default)
        for each in parameters
    }
    KINDS[name] = (function, create_model(name, __base__=Strict, at=(float, ...), **keys))
    return function


def read(path: Path) -> Scenario:
    """Read a scenario.toml.

    Raises:
        Mistakes: with the file and the line of each.
    """
    try:
        values, lines = parse(path.read_text())
    except ValueError as error:
        raise Mistakes(f"{path}: {error}") from None
    mistakes: list[tuple[int, str]] = []

    def wrong(location: Location, text: str) -> None:
        places = (location[:length] for length in range(len(location), 0, -1))
        line = next((lines[place] for place in places if place in lines), 1)
        mistakes.append((line, f"{path}:{line}: {text}"))

    written = _validated(Written, values, (), "a scenario", wrong)
    steps, last_at = [], 0.0
    for index, step in enumerate(values.get("step", [])):
        kind = next((key for key in step if key != "at"), "")
        if kind not in KINDS:
            wrong(("step", index, kind), f"`{kind}` is nothing that can happen; known are {', '.join(sorted(KINDS))}")
            continue
        known = _validated(KINDS[kind][1], step, ("step", index), f"`{kind}`", wrong)
        if known is None:
            continue
        at: float = known.at  # type: ignore[attr-defined]
        if at < last_at or at > values.get("until", at):
            wrong(("step", index, "at"), "steps stand in the order of time, none after `until`")
        last_at = at
        options = {name: getattr(known, name) for name in type(known).model_fields if name != "at"}
        steps.append(Step(at=at, kind=kind, options=options))
    if mistakes:
        raise Mistakes("\n".join(text for _, text in sorted(mistakes)))
    assert written is not None
    return Scenario(written=written, steps=tuple(steps))


def _validated(
    model: type[Model], values: dict[str, Any], place: Location, what: str, wrong: Callable[[Location, str], None]
) -> Model | None:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for each in error.errors():
            location = tuple(part for part in each["loc"] if part in _parts(values) or isinstance(part, int))
            key = ".".join(map(str, each["loc"]))
            if each["type"] == "extra_forbidden":
                text = f"there is no key `{key}` in {what}; known are {', '.join(sorted(model.model_fields))}"
            else:
                text = f"`{key}` of {what}: {each['msg']}"
            wrong((*place, *location), text)
        return None


def _parts(values: object) -> set[str]:
    """All keys in it: pydantic's own words for the branches of a union are none."""
    if isinstance(values, dict):
        return {*map(str, values), *(part for value in values.values() for part in _parts(value))}
    if isinstance(values, list):
        return {part for value in values for part in _parts(value)}
    return set()
