"""What the API answers, as models: the served document is made from them, and tests hold every answer against them.

Answers only ever gain keys: a client must ignore keys that it does not know. Ages and delays are seconds, moments are
seconds since 1970 on the controller's clock.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from ha_controller.core.incident import Incident, VmRecord

SCHEMA = "ha-controller/v1"


class Answer(BaseModel):
    """Base of all answers. Tests refuse unknown keys; the document does not forbid them."""

    model_config = ConfigDict(extra="forbid")


class Versioned(Answer):
    """Base of those that say which version of the format they are in."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: Literal["ha-controller/v1"] = Field(alias="schema")


class SelfCheck(Answer):
    """Whether we reach our own witnesses."""

    ok: bool | None
    detail: str


class SecondMaster(Answer):
    """Whether somebody else acts on the same cloud."""

    present: bool | None
    detail: str


class HostCounts(Answer):
    """Hosts by state."""

    total: int
    ok: int
    suspect: int
    failed: int
    fenced: int
    recovered: int


class Status(Versioned):
    """The cloud in one sentence, and counts."""

    at: float = Field(description="The moment of this answer.")
    verdict: str
    code: int = Field(description="0 well, 1 degraded, 4 a guard holds something, 5 waits for a person.")
    mode: Literal["observe", "approve", "auto"]
    paused: str = Field(description="Who paused the cloud and why; empty: it is not paused.")
    paused_until: float | None = Field(description="When the pause ends by itself; null: a person ends it.")
    term: int | None = Field(description="In which this controller leads; null: it does not.")
    leader: str
    lead_trouble: str
    hosts: HostCounts
    excluded: int
    oned_age_s: float | None
    oned_error: str
    self_check: SelfCheck
    second_master: SecondMaster
    settling_s: float


class FenceDeviceRow(Answer):
    """A fence device of a host, as it was last checked."""

    device: str
    level: int
    ready: bool | None
    summary: str
    checked_s_ago: float | None
    identity: str
    seen_on: bool
    drilled_s_ago: float | None
    mismatch: str


class HostRow(Answer):
    """A host."""

    id: int
    name: str
    cluster: int
    cluster_name: str
    places: dict[str, str] = Field(description="What it shares with others, like its rack: attributes.")
    one_state: int
    state: Literal["ok", "suspect", "failed", "fenced", "recovered"]
    for_s: float
    vms: int
    maintenance: bool
    fencing: list[FenceDeviceRow]
    incident: int | None
    note: str
    silent: list[str] = Field(description="The channels that have no answer from it now.")


class Verdict(Answer):
    """What the evidence says."""

    kind: str
    reason: str


class GuardAnswer(Answer):
    """What one guard says."""

    guard: str
    passes: bool
    reason: str


class IfOrdered(Answer):
    """What an order to power the host off would come to now."""

    refused: str = Field(description="Why it would be refused; empty: it would be taken.")
    hold: str = Field(description="What would hold it up all the same, like a pause; empty: nothing.")
    guards: list[GuardAnswer] = Field(description="What the guards would say; empty if it is refused.")


class RejoinCondition(Answer):
    """One condition of the way back."""

    condition: str
    passes: bool
    reason: str
    can_be_forced: bool


class ChannelRow(Answer):
    """What one channel shows of a host."""

    channel: str
    domain: Literal["management", "vantage", "storage", "power", "oned", "self"] = Field(
        description="What fails together; vantage: other hosts look."
    )
    signal: Literal["alive", "silent", "off", "on", "unknown", "dumping", "leaving"]
    silent_s: float | None = Field(description="For how long it is silent; null: it is not.")
    alive_s_ago: float | None = Field(description="When it last showed life; null: never.")
    detail: str


def _recorded(kind: type) -> dict[str, Any]:
    """The fields of a record of the core, all of them always there."""
    hints = get_type_hints(kind)
    return {each.name: (hints[each.name], ...) for each in fields(kind)}


#: a VM of an incident with everything that is on record
IncidentVm: Any = create_model(
    "IncidentVm",
    __base__=Answer,
    __doc__="One VM of a failed host, from what it was to its outcome.",
    **{**_recorded(VmRecord), "outage_s": (float | None, ...)},
)


class Phases(Answer):
    """How long each part of an incident took; null: it did not come to that, or it is not known."""

    detect: float | None
    fence: float | None
    restart: float | None
    total: float | None


#: an incident with everything that is on record
IncidentRecord: Any = create_model(
    "IncidentRecord",
    __base__=Versioned,
    __doc__="One failure of one host, with everything that is on record.",
    **{
        **_recorded(Incident),
        "vms": (list[IncidentVm], ...),
        "open": (bool, ...),
        "needs_person": (bool, ...),
        "phases_s": (Phases, ...),
    },
)


class Explanation(HostRow):
    """Why a host is in its state, what blocks it and what comes next."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: Literal["ha-controller/v1"] = Field(alias="schema")
    verdict: Verdict
    evidence: list[str]
    channels: list[ChannelRow] = Field(description="The evidence in columns.")
    guards: list[GuardAnswer]
    if_ordered: IfOrdered
    rejoin: list[RejoinCondition]
    if_failed: str
    plan: list[str]
    record: Annotated[IncidentRecord | None, Field(description="The open incident.")]


class Pending(Answer):
    """A decision that waits for a person."""

    id: int
    host: str
    state: Literal["ok", "suspect", "failed", "fenced", "recovered"]
    question: str
    can_approve: bool


class TrailLine(Answer):
    """A line of the trail."""

    id: int = Field(description="Grows with every line and is never given twice.")
    at: float
    kind: str
    host: int | None
    incident: int | None
    text: str
    data: dict[str, Any]
    seal: str = Field(description="Over this line and the seal before, hexadecimal (docs/audit.md).")


class TrailHead(Answer):
    """The last line of the trail."""

    id: int
    seal: str


class DrillRow(Answer):
    """When a fence device is due for a drill."""

    host: str
    id: int
    device: str
    drilled_s_ago: float | None
    due_in_s: float
    overdue: bool
    obstacle: str
    by_itself: str


class Check(Answer):
    """A live check."""

    ok: bool | None = Field(description="null: it cannot be told, or it is a hint.")
    text: str


class NotifierRow(Answer):
    """A way to reach people."""

    name: str
    trouble: str
    results: dict[str, int]


class NotifierTest(Answer):
    """How a test message went."""

    name: str
    ok: bool
    trouble: str


class SettingInForce(Answer):
    """One value of the configuration."""

    name: str
    value: Any = Field(description="Secrets are masked.")
    origin: str = Field(description="FILE:LINE, a variable, or default.")


class ConfigInForce(Versioned):
    """The settings in force."""

    path: str | None
    values: list[SettingInForce]


class ConfigChange(Answer):
    """One value that differs from what is in force."""

    name: str
    before: Any = Field(description="Secrets are masked; null: it was not there.")
    after: Any
    needs_restart: bool


class Reloaded(Versioned):
    """What came of reading the configuration again."""

    code: Literal[0, 1, 78] = Field(
        description="0 all is in force; 1 something needs a restart, or, without changes, it could not be put on "
        "record and was not done; 78 it is bad."
    )
    text: str
    problems: list[str]
    changes: list[ConfigChange]


class Done(Answer):
    """An act that was carried out, or taken on."""

    code: Literal[0]
    text: str
