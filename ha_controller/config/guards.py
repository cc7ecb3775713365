"""The table about what stops the controller."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, field_validator

from ha_controller.config.values import LiteralAddress, Section, count_between
from ha_controller.durations import Duration, Share, duration_field


class MaxFences(Section):
    """A budget of power-offs."""

    count: Annotated[int, count_between(1, 1000)] = 2
    per_s: Duration = duration_field("1h", key="per")


class Quarantine(Section):
    """How often a host may die before it is not readmitted any more."""

    count: Annotated[int, count_between(2, 1000)] = 3
    per_s: Duration = duration_field("1d", key="per")


class Guard(Section):
    """What stops the controller."""

    max_failed_hosts: Share = Field("25%", validate_default=True)
    max_fences: MaxFences = MaxFences()
    max_fences_per_day: Annotated[int, count_between(1, 10000)] = 6
    places: tuple[str, ...] = ("HA_RACK", "HA_SWITCH", "HA_PDU")  #: host attributes: what hosts have in common
    quarantine: Quarantine = Quarantine()  #: a host that dies so often is readmitted as `--repaired` only
    settle_s: Duration = duration_field("30s", key="settle")
    fence_rounds: Annotated[int, count_between(1, 10)] = 2  #: how often all levels of a host are tried
    storm_cooldown_s: Duration = duration_field("5m", key="storm_cooldown")
    self_check: tuple[LiteralAddress, ...] = ()
    self_check_waived: StrictBool = False  #: the operator accepts to act without knowing who is cut off
    second_master: Literal["look", "none"] = "look"  #: none: the operator states that nobody else acts
    own_host: Literal["look", "none"] = "look"  #: none: the operator states that we run on no host that we handle
    own_vm: Literal["look"] | int = "look"  #: in which VM of this cloud we run

    @field_validator("own_vm", mode="before")
    @classmethod
    def _is_an_id(cls, written: object) -> object:
        if written == "look" or (type(written) is int and 0 <= written < 2**31):
            return written
        raise ValueError('not the id of a VM. Write it as a number, like 12, or leave it at "look"')
