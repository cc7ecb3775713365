"""How hosts are judged: the tables `[detect]`, `[cluster.NAME]` and `[policy]`."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator

from ha_controller.config.values import PolicyName, Section, count_between
from ha_controller.durations import Duration, duration_field, format_duration


class Weights(Section):
    """What the silence of each failure domain weighs; see `detect.need`."""

    management: Annotated[int, count_between(0, 9)] = 1  #: icmp, ssh, tcp: all that we ask from here
    vantage: Annotated[int, count_between(0, 9)] = 1
    storage: Annotated[int, count_between(0, 9)] = 1
    oned: Annotated[int, count_between(0, 9)] = 1


def _not_by_us_alone(need: int, info: ValidationInfo) -> int:
    weights = info.data.get("weights")
    if isinstance(weights, Weights) and weights.management >= need:
        raise ValueError(
            f"not more than weights.management ({weights.management}). "
            "What we see from here would decide alone, and we may be what is cut off"
        )
    return need


class Detect(Section):
    """How a dead host is told from a living one."""

    channels: Annotated[tuple[str, ...], Field(min_length=1)] = ("icmp", "ssh", "bmc", "oned")
    interval_s: Duration = duration_field("1s", key="interval")
    confirm_interval_s: Duration = duration_field("200ms", key="confirm_interval")
    misses: Annotated[int, count_between(2, 100)] = 3
    evidence_ttl_s: Duration = duration_field("5s", key="evidence_ttl")
    fail_after_s: Duration = duration_field("10s", key="fail_after")
    fail_after_per_vm_s: Duration = duration_field("20ms", key="fail_after_per_vm", longest="10s")
    weights: Weights = Weights()
    need: Annotated[int, count_between(2, 36), AfterValidator(_not_by_us_alone)] = Field(2, validate_default=True)
    dump_await_s: Duration = duration_field("20s", key="dump_await", longest="10m")
    dump_max_s: Duration = duration_field("10m", key="dump_max", longest="1d")
    planned_reboot_max_s: Duration = duration_field("10m", key="planned_reboot_max", longest="1d")
    single_domain_after_s: Duration = duration_field("60s", key="single_domain_after")
    hung_after_s: Duration = duration_field("180s", key="hung_after")

    # A validator sees the fields above its own, and of these only the good ones.

    @field_validator("channels")
    @classmethod
    def _asks_each_channel_once(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({kind for kind in channels if channels.count(kind) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} more than once. Name each channel once")
        return channels

    @field_validator("confirm_interval_s")
    @classmethod
    def _confirms_faster_than_it_looks(cls, confirm_interval_s: float, info: ValidationInfo) -> float:
        interval_s = info.data.get("interval_s", math.inf)
        if confirm_interval_s > interval_s:
            raise ValueError(
                f"longer than detect.interval ({format_duration(interval_s)}). "
                "A host that missed must be asked more often, not less"
            )
        return confirm_interval_s

    @field_validator("evidence_ttl_s")
    @classmethod
    def _remembers_two_rounds(cls, evidence_ttl_s: float, info: ValidationInfo) -> float:
        interval_s = info.data.get("interval_s", 0.0)
        if evidence_ttl_s < 2 * interval_s:
            raise ValueError(
                f"shorter than two detect.interval ({format_duration(2 * interval_s)}). "
                "Evidence would expire before the next one comes"
            )
        return evidence_ttl_s

    @field_validator("fail_after_s")
    @classmethod
    def _waits_for_the_misses(cls, fail_after_s: float, info: ValidationInfo) -> float:
        needed_s = info.data.get("misses", 0) * info.data.get("interval_s", 0.0)
        if fail_after_s < needed_s:
            raise ValueError(
                f"shorter than detect.misses times detect.interval ({format_duration(needed_s)}). "
                "A host would be condemned before it missed that often"
            )
        return fail_after_s

    @field_validator("single_domain_after_s", "hung_after_s")
    @classmethod
    def _waits_longer_on_less_proof(cls, duration_s: float, info: ValidationInfo) -> float:
        fail_after_s = info.data.get("fail_after_s", 0.0)
        if duration_s < fail_after_s:
            raise ValueError(
                f"shorter than detect.fail_after ({format_duration(fail_after_s)}). "
                "It is the weaker proof, so it must last at least as long"
            )
        return duration_s


class ClusterRules(Section):
    """How hosts of one cluster are judged, where that differs from `[detect]`. Life always counts, on any channel."""

    channels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None  #: whose silence counts
    weights: Weights | None = None
    need: Annotated[int, count_between(2, 36)] | None = None
    fail_after_s: Duration | None = Field(None, alias="fail_after")
    single_domain_after_s: Duration | None = Field(None, alias="single_domain_after")
    hung_after_s: Duration | None = Field(None, alias="hung_after")

    def over(self, detect: Detect) -> Detect:
        """`[detect]` as it is for this cluster. Raises ValueError: together they make no sense."""
        if strange := sorted(set(self.channels or ()) - set(detect.channels)):
            raise ValueError(f"{', '.join(strange)} is not in detect.channels. Add it there, or leave it out here")
        values = detect.model_dump(by_alias=True) | self.model_dump(by_alias=True, exclude_none=True)
        try:
            return Detect.model_validate(values)
        except ValidationError as error:  # as one line: this runs inside of another validator
            first = error.errors()[0]
            raise ValueError(f"{first['loc'][0]} is {first['msg'].removeprefix('Value error, ')}") from None


class Policies(Section):
    """What is done about each verdict: power off, ask a person first, or only tell."""

    powered_off: PolicyName = "fence"
    dead: PolicyName = "fence"
    hung: PolicyName = "approve"  #: the kernel answers, and nothing else has for detect.hung_after
    isolated: PolicyName = "tell"  #: alive, but not reachable from here
