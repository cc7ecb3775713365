"""What each command prints with `-o json`, as models: docs/schemas is made from them, and tests hold every command
against them.

Where the controller's answer is printed as it came, the model is the API's own; here are those that the command line
puts together. Like answers, what is printed only ever gains keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, create_model

from ha_controller.adapters.http_api import answers, foreseen, leader_answers, people_answers
from ha_controller.adapters.http_api.answers import Answer, Versioned

Json = Any

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
Shown = Literal["then", "now", "both"]


class Act(Answer):
    """What somebody ordered, and what came of it."""

    entry: int = Field(description="The number of its line on the trail.")
    at: float
    who: str
    origin: str
    what: str
    host: str | int | None = Field(description="Its name; its number, if OpenNebula has it no more.")
    incident: int | None
    why: str
    code: int | None = Field(description="The exit code of the answer; null: there is none on record.")
    result: str


class TrailCheck(Answer):
    """Whether the trail is as it was written."""

    entries: int
    head: str
    faults: list[str]
    more: int = Field(description="Faults beyond those.")


class FencingSummary(Answer):
    """Whether every host could be powered off now."""

    hosts: int
    devices: int
    ready: int
    cannot: list[str]
    asks: list[str]
    never_on: list[str]
    overdue: list[str]


class ListedVm(foreseen.LossRow):
    """A VM: what would become of it if its host failed alone."""

    host: str
    last_restart: float | None = Field(description="When it was last seen RUNNING after an incident.")


class PluginRow(Answer):
    """An installed plugin."""

    name: str
    kinds: list[str]
    distribution: str
    version: str
    error: str


class PluginSetting(Answer):
    """A setting of a plugin."""

    name: str
    type: str
    required: bool
    default: str
    text: str


class PluginPage(Answer):
    """What a plugin can do, and what it takes."""

    kind: str
    what: Literal["fence agent", "arbiter", "notifier", "probe channel"]
    summary: str
    capabilities: list[str]
    settings: list[PluginSetting]
    variants: list[str] = Field(default=[], description="Of some agents: what they stand for on this machine.")
    name: str = Field(default="", description="Of a variant.")


class SettingThen(Answer):
    """A setting that differs from the one of then."""

    name: str
    then: Any
    now: Any


class ReplayedOutcome(Answer):
    """Whether a host was ordered off."""

    ordered_off: bool
    at: float | None
    why: str


class ReplayedLine(Answer):
    """A decision or an order."""

    at: float
    now_at: float | None
    who: Shown
    text: str
    said_no: list[str]


class ReplayedHost(Answer):
    """What was decided about a host then, and is now."""

    host: str
    then: ReplayedOutcome
    now: ReplayedOutcome
    same: bool
    same_orders: bool
    cannot_tell_from: float | None
    cannot_tell_why: str
    lines: list[ReplayedLine]


class Replay(Versioned):
    """What a configuration would have done with an incident."""

    incidents: list[int]
    begins_at: float
    ends_at: float
    end: str
    settings: list[SettingThen]
    notes: list[str]
    same: bool
    hosts: list[ReplayedHost]


class BrokenInvariant(Answer):
    """An invariant that did not hold."""

    seed: int
    invariant: str
    text: str


class Simulation(Answer):
    """What came of simulated clouds."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: Literal["ha-controller/simulate/v1"] = Field(alias="schema")
    seeds: list[int]
    sim_host_hours: float
    wall_s: float
    incidents: int
    violations: list[BrokenInvariant]
    false_fences: int
    vms_lost: int
    idle: str
    counted: dict[str, int]
    delivered: dict[str, int]
    deaths: dict[str, int]
    verified_off: dict[str, int]
    holds: dict[str, int]


IncidentWithTimeline: Any = create_model(
    "IncidentWithTimeline",
    __base__=answers.IncidentRecord,
    __doc__="One failure of one host, with its lines of the trail.",
    timeline=(list[answers.TrailLine], ...),
)
PostMortem: Any = create_model(
    "PostMortem",
    __base__=IncidentWithTimeline,
    __doc__="The same, with what people ordered in its time.",
    acts=(list[Act], ...),
)

_TRAIL = list[answers.TrailLine]
#: by the command's words
PRINTED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "audit list": list[Act],
        "audit verify": TrailCheck,
        "config diff": answers.Reloaded,
        "config show": answers.ConfigInForce,
        "doctor": list[answers.Check],
        "drill report": _TRAIL,
        "drill schedule": list[answers.DrillRow],
        "events": _TRAIL,
        "explain": answers.Explanation | foreseen.VmExplanation | _TRAIL,
        "fencing check": list[answers.HostRow],
        "fencing history": _TRAIL,
        "fencing list": list[answers.HostRow],
        "fencing status": FencingSummary,
        "hosts": list[answers.HostRow],
        "incidents": list[answers.IncidentRecord],
        "incidents export": PostMortem,
        "incidents show": IncidentWithTimeline,
        "leader show": leader_answers.Leader,
        "maintenance list": list[answers.HostRow],
        "notify list": list[answers.NotifierRow],
        "notify test": list[answers.NotifierTest],
        "pending list": list[answers.Pending],
        "plugins list": list[PluginRow],
        "plugins show": PluginPage,
        "reload": answers.Reloaded,
        "simulate capacity": foreseen.Capacity,
        "simulate fail": foreseen.SimulatedFailure,
        "simulate replay": Replay,
        "simulate run": Simulation,
        "status": answers.Status,
        "token list": list[people_answers.TokenRow],
        "vms": list[ListedVm],
    }
)


def schema_of(command: str, *, strict: bool = False) -> dict[str, Any]:
    """The JSON Schema of what a command prints.

    `strict`: as this version prints it, with every key and no other; else as programs should expect it, which bear
    keys that come later.
    """
    found = TypeAdapter(PRINTED[command]).json_schema(mode="serialization")
    option = "--as" if command == "incidents export" else "-o"
    whole = {"$schema": DIALECT, **found, "title": f"ha-controller {command} {option} json"}
    for schema in _objects(whole):
        _close(schema) if strict else schema.pop("additionalProperties", None)
    return whole


def _objects(schema: Json) -> Iterator[dict[str, Any]]:
    """The schemas in it that name keys of an object."""
    if isinstance(schema, list):
        for each in schema:
            yield from _objects(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
            yield schema
        for each in schema.values():
            yield from _objects(each)


def _close(schema: dict[str, Any]) -> None:
    """Records of the core say nothing about other keys, and print all that they have."""
    if "additionalProperties" not in schema:
        schema["additionalProperties"] = False
        schema["required"] = sorted(schema["properties"])
