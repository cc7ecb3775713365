"""What the API is asked: queries and bodies, checked before anything is done. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Secret

from ha_controller.showable import one_line

NUMBER_MAX = 2**63 - 1  #: what the journal takes
MOMENT_MAX = 1e11  #: seconds; more is no time
HOSTS_MAX = 150  #: of such names: they stand in one line of at most 64 KiB
REASON_MAX = 500  #: characters


def _shown(reason: str) -> str:
    """It goes into the trail and into logs."""
    return one_line(reason, characters_max=REASON_MAX) or ("(nothing that can be shown)" if reason else "")


_Shown = AfterValidator(_shown)
Reason = Annotated[str, Field(max_length=REASON_MAX, description="Why; goes into the trail."), _Shown]
NeededReason = Annotated[
    str, Field(min_length=1, max_length=REASON_MAX, description="Why; goes into the trail."), _Shown
]
HostName = Annotated[str, Field(min_length=1, max_length=256)]


class Question(BaseModel):
    """Base of what is asked."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NoQuery(Question):
    """Nothing can be said."""


class EventsQuery(Question):
    """Which lines of the trail."""

    after: int = Field(default=0, ge=0, le=NUMBER_MAX, description="Only lines with a higher id.")
    before: float | None = Field(
        default=None, gt=-MOMENT_MAX, lt=MOMENT_MAX, allow_inf_nan=False, description="Not later than this moment."
    )
    host: HostName | None = Field(default=None, description="Of this host: its name or id.")
    incident: int | None = Field(default=None, ge=0, le=NUMBER_MAX, description="Of this incident.")
    kind: str | None = Field(default=None, max_length=50, description="Of this kind, like decision.")
    limit: int = Field(default=200, ge=1, le=1000, description="At most so many.")
    newest: bool = Field(default=False, description="The last ones instead of the first; still oldest first.")


class IncidentsQuery(Question):
    """How many incidents."""

    limit: int | None = Field(default=None, ge=1, le=10_000, description="The newest ones, at most so many.")


class StreamQuery(Question):
    """Where the stream begins."""

    after: int | None = Field(
        default=None, ge=0, le=NUMBER_MAX, description="As Last-Event-ID, for clients that cannot set the header."
    )


class HostsQuery(Question):
    """Which hosts fail."""

    host: list[Annotated[str, Field(pattern="^[ -~]{1,128}$")]] = Field(
        min_length=1, max_length=HOSTS_MAX, description="Names or ids."
    )


class DevicesQuery(Question):
    """Whose devices."""

    host: HostName | None = Field(default=None, description="Of this host alone: its name or id.")


class NotifiersQuery(Question):
    """Through which notifiers."""

    name: list[Annotated[str, Field(pattern="^[ -~]{1,100}$")]] = Field(
        default_factory=list, max_length=100, description="Through these alone."
    )


Password = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\ufffe\uffff]{1,1024}$")]


class Body(Question):
    """Base of bodies: JSON has numbers and truth values of its own, so none is made from a text."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)


class ReasonBody(Body):
    """Why something is ordered."""

    reason: Reason = ""


class NeededReasonBody(ReasonBody):
    """Why something is ordered that others will ask about."""

    reason: NeededReason


class MaintenanceBody(NeededReasonBody):
    """Taking a host out of our hands."""

    for_s: float | None = Field(
        default=None, gt=0, le=366 * 86400, allow_inf_nan=False, description="Ends by itself after so long."
    )


class PauseBody(NeededReasonBody):
    """Stopping all that this controller does."""

    for_s: float | None = Field(
        default=None, gt=0, le=366 * 86400, allow_inf_nan=False, description="Ends by itself after so long."
    )
    here: bool = Field(
        default=False,
        description="Also where another one leads: this one stays paused, should it take the lead.",
    )


class OfIncidentBody(ReasonBody):
    """Something that ends an incident."""

    incident: int | None = Field(
        default=None, ge=0, le=NUMBER_MAX, description="Only in this incident of the host; not in a later one."
    )


class UnfenceBody(OfIncidentBody):
    """Giving a host back to OpenNebula."""

    force: bool = Field(default=False, description="It was rebooted, looked at, and what is in force was lifted.")
    repaired: bool = Field(default=False, description="What made it fail again and again is repaired.")


class StepDownBody(ReasonBody):
    """Giving the lead away."""

    force: bool = Field(default=False, description="Also with open incidents, or with nobody there to take it.")


class ReloadBody(ReasonBody):
    """Reading the configuration again."""

    dry_run: bool = Field(default=False, description="Only tell what would change; nothing is taken over.")


class LoginBody(Body):
    """An OpenNebula user. What XML cannot carry is in no name and in no password."""

    user: str = Field(
        pattern=r"^[^\x00-\x20:\x7f-\x9f\ufffe\uffff]{1,128}$", description="OpenNebula has none with a colon."
    )
    password: Secret[Password] = Field(description="The password, or a login token of OpenNebula.")


class TokenBody(Body):
    """A token to be made."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    role: Literal["viewer", "operator", "admin"]
    for_s: float | None = Field(
        default=None, gt=0, le=10 * 366 * 86400, allow_inf_nan=False, description="Expires after so long."
    )
