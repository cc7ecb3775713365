"""What the API answers about what would happen: losses of hosts, room, and what is known of one VM."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from ha_controller.adapters.http_api.answers import Answer, Versioned


class LossRow(Answer):
    """What would become of a VM."""

    id: int
    name: str
    outcome: Literal["moved", "nowhere", "left alone"]
    to: str | None
    reason: str
    softened: bool


class Loss(Answer):
    """What would become of the VMs of hosts that fail."""

    hosts: list[str]
    moved: int
    nowhere: int
    left_alone: int
    vms: list[LossRow]


class StartRow(Answer):
    """When a VM would start."""

    vm: int
    name: str
    tier: int
    after: list[str]
    ready: str


class SimulatedFailure(Loss):
    """What would become of the VMs if these hosts failed now."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: Literal["ha-controller/v1"] = Field(alias="schema")
    order: list[StartRow]
    order_faults: list[str]


class HostLoss(Answer):
    """What the loss of one host would mean."""

    host: str
    moved: int
    nowhere: int
    left_alone: int
    reason: str


class ClusterCapacity(Answer):
    """How many hosts of a cluster may fail."""

    cluster: int
    name: str
    hosts: list[HostLoss]
    may_fail: int
    too_many: Loss | None


class Capacity(Versioned):
    """How many hosts may fail, by cluster."""

    clusters: list[ClusterCapacity]


class ForeseenVm(Answer):
    """What would become of a VM if its host failed now."""

    outcome: Literal["moved", "nowhere", "left alone"]
    to: str | None
    reason: str
    softened: bool = Field(description="It would be beside VMs it should be apart from.")


class PastOfVm(Answer):
    """What became of a VM in an incident."""

    incident: int
    host: str
    opened_at: float
    open: bool
    was: str
    stage: str
    to: str | None = Field(description="Where it was seen RUNNING after it.")
    reason: str
    settled_at: float | None
    outage_s: float | None


class VmExplanation(Versioned):
    """Where a VM is, what would become of it if its host failed, and what has become of it."""

    id: int
    name: str
    state: str
    host: str | None = Field(description="null: on none, or on one that is not in scope.")
    if_host_failed: ForeseenVm
    order: StartRow | None
    why_host_not_fenced: str = Field(description="Why its VMs would wait all the same; empty: nothing is known.")
    past: list[PastOfVm] = Field(description="Newest first.")
