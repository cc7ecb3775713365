"""What the API answers about controllers: who leads, who could, what each sees, and whether it can do its work."""

from __future__ import annotations

from pydantic import Field

from ha_controller.adapters.http_api.answers import Answer


class LeaderMember(Answer):
    """A controller that takes part in the election."""

    name: str
    leads: bool
    term: int | None
    this: bool


class OtherController(Answer):
    """Another controller of this cloud, and what it last said."""

    name: str
    answered_s_ago: float | None
    leads: bool
    fit: bool = Field(description="Whether it can tell what is silent.")
    why_unfit: list[str]
    hosts_alive: int = Field(description="Hosts that it saw alive within the last seconds.")
    trouble: str = Field(description="Why its last question had no answer; empty: it had one.")


class SeenHost(Answer):
    """When life of a host was last seen."""

    host: int
    alive_s_ago: dict[str, float] = Field(description="By channel; the newest of a kernel alone, and the newest other.")


class Sight(Answer):
    """What this controller sees, for the others."""

    run: str = Field(description="Of the process; another one has another clock.")
    instance: str
    clock_s: float = Field(description="Of the clock by which the ages count; it never jumps.")
    leads: bool
    paused: bool = Field(description="Whether it would do nothing, if it led.")
    runs_on: list[int] = Field(description="Hosts on which it runs itself, as far as it knows.")
    why_unfit: list[str] = Field(description="Why it cannot tell what is silent; empty: it can.")
    hosts: list[SeenHost] = Field(description="Those seen alive within half a minute.")


class Leader(Answer):
    """Who leads, and who could."""

    kind: str
    name: str
    leads: bool
    term: int | None
    left_s: float | None
    trouble: str
    members: list[LeaderMember]
    engine: list[str]
    shares_record: bool = Field(
        description="Whoever leads next goes on with what is open, and is paused if this one is."
    )
    controllers: list[OtherController]


class Alive(Answer):
    """How long ago the decision loop finished a round."""

    round_age_s: float


class Ready(Answer):
    """Whether this controller can do its work."""

    ready: bool
    why_not: list[str]
    fit: bool = Field(description="Whether it can tell other controllers what is silent.")
    why_unfit: list[str]


class Leads(Answer):
    """Whether this controller leads."""

    leads: bool
