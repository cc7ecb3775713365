"""What a configuration may say: its tables, their defaults, and which values do not go together.

Keys are as in the file; in Python, durations are seconds with the unit in the name. Defaults are written as in the file
and validated like what is written there. Nothing here reads a file, a variable or a secret: `loader` does, and hands
over plain values, with every secret already a `SecretStr`.

The first sentence of an error is what is wrong, the rest is the remedy. Kinds of values are in `values.py`, the tables
about judging hosts in `detection.py`, what stops the controller in `guards.py`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    StrictBool,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

from ha_controller.config.api import Api
from ha_controller.config.controllers import OtherControllers
from ha_controller.config.detection import ClusterRules, Detect, Policies
from ha_controller.config.guards import Guard
from ha_controller.config.placeholders import filled
from ha_controller.config.positions import Location, Origins, as_toml, dotted
from ha_controller.config.values import (
    AbsolutePath,
    Pattern,
    Section,
    VmPolicyName,
    Window,
    count_between,
)
from ha_controller.durations import Duration, duration_field

_LOGIN = re.compile(r"//\S*@")  #: up to the last @: a password may have a "/" or an "@" in it


class OpenNebula(Section):
    """How to reach oned."""

    endpoint: str = "http://127.0.0.1:2633/RPC2"
    auth: SecretStr  #: "user:password" or "user:token"
    timeout_s: Duration = duration_field("5s", key="timeout")
    poll_s: Duration = duration_field("10s", key="poll")
    ssh_timeout_s: Duration = duration_field(
        "30s", key="ssh_timeout"
    )  #: oned's own ssh gives up on a dead host after this
    events: str = ""  #: where oned publishes its events; empty: it is only polled
    write_attributes: StrictBool = True  #: what became of VMs and hosts is written on them: HA_STATE, HA_LAST

    @field_validator("endpoint")
    @classmethod
    def _is_address_of_oned(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        _ = parts.port  # raises when it is none
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", endpoint):
            raise ValueError('not the address of oned. Write it like "http://127.0.0.1:2633/RPC2"')
        if parts.username is not None:  # it would be logged
            raise ValueError("must not name a user. Name user and password in opennebula.auth")
        return endpoint

    @field_validator("events")
    @classmethod
    def _is_address_of_a_publisher(cls, events: str) -> str:
        if not events:
            return events
        parts = urlsplit(events)
        if parts.scheme != "tcp" or not parts.hostname or not parts.port or events != f"tcp://{parts.netloc}":
            raise ValueError('not the address of a publisher. Write it like "tcp://127.0.0.1:2101", or "" for none')
        if parts.username is not None:
            raise ValueError("must not name a user: ZeroMQ publishers of OpenNebula have none")
        if importlib.util.find_spec("zmq") is None:
            raise ValueError("events need pyzmq, which is not installed. Run: pip install 'pyzmq>=27,<28'")
        return events

    @field_validator("auth")
    @classmethod
    def _names_a_user(cls, auth: SecretStr) -> SecretStr:
        if ":" not in auth.get_secret_value():
            raise ValueError("the secret is not of the form user:password. Use the content of oneadmin's one_auth")
        return auth


class Scope(Section):
    """Which hosts are ours: names, ids or globs."""

    clusters: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    exclude: tuple[Pattern, ...] = ()


class FenceDevice(BaseModel):
    """A way to switch hosts off. Keys that are not named here are the agent's own settings."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(min_length=1)]
    agent: Annotated[str, Field(min_length=1)]
    level: Annotated[int, count_between(1, 9)] = 1  #: tried in this order
    hosts: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)  #: names, ids, globs
    identity: Literal["unproven", "noted"] = "unproven"  #: noted: a person checked that each address is its host's
    timeout_s: Duration = duration_field("20s", key="timeout")

    @property
    def settings(self) -> dict[str, Any]:
        """The agent's own settings, with placeholders and secrets."""
        return dict(self.model_extra or {})

    def settings_for(self, attributes: Mapping[str, str]) -> dict[str, Any]:
        """The agent's settings for one host, from the attributes of its OpenNebula template, and its name as NAME.

        Raises:
            MissingAttribute: a placeholder names an attribute that the host has not, or has empty.
        """
        return {key: filled(value, attributes) for key, value in self.settings.items()}


class Notify(BaseModel):
    """A way to reach people. Keys that are not named here are the notifier's own settings."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(min_length=1)]
    notifier: Annotated[str, Field(min_length=1)]
    severity: Literal["info", "warning", "critical"] = "warning"  #: the quietest that is sent

    @property
    def settings(self) -> dict[str, Any]:
        """The notifier's own settings, with secrets."""
        return dict(self.model_extra or {})


class HostIdentity(Section):
    """How to ask living hosts over SSH which machine they are. Without a username nobody is asked."""

    username: str = ""
    key_file: AbsolutePath = Path("/etc/ha-controller/secrets/identity_key")
    known_hosts: AbsolutePath = Path("/etc/ha-controller/known_hosts")
    port: Annotated[int, count_between(1, 65535)] = 22

    @field_validator("known_hosts", "key_file")
    @classmethod
    def _can_be_read(cls, path: Path, info: ValidationInfo) -> Path:
        if info.data.get("username") and not path.is_file():
            raise ValueError("no such file. Make it, or leave out identity.username")
        return path


class Recover(Section):
    """How VMs are brought back."""

    parallel: Annotated[int, count_between(1, 50)] = 5  #: VMs of all hosts together
    parallel_per_host: Annotated[int, count_between(0, 50)] = 0  #: with one destination; 0: any number
    parallel_per_datastore: Annotated[int, count_between(0, 50)] = 0  #: with disks on one datastore; 0: any number
    priority: Annotated[int, count_between(-10000, 10000)] = 0  #: of VMs without HA_PRIORITY
    ready_delay_s: Duration = duration_field("1s", key="ready_delay")  #: ready so long after it is seen RUNNING
    tier_timeout_s: Duration = duration_field("300s", key="tier_timeout")  #: without progress
    tier_on_timeout: Literal["go on", "stop"] = "go on"
    vm_timeout_s: Duration = duration_field("120s", key="vm_timeout")  #: one VM's way to RUNNING
    policy: VmPolicyName = "restart"  #: of VMs without HA_POLICY
    cluster_policy: dict[str, VmPolicyName] = Field(default_factory=dict)  #: the same by the cluster's name
    recreate: StrictBool = False  #: VMs with the policy recreate may be made anew, and lose what is not on images
    powered_off: Literal["move", "leave"] = "move"  #: VMs that did not run
    locked: Literal["leave", "move"] = "leave"  #: move: unlock, move, lock again
    rejoin: Literal["ask", "auto"] = (
        "ask"  #: who readmits a returned host that passes the gate: a person, or the controller by itself
    )
    destroy_leftovers: StrictBool = False  #: on a returned host, domains of VMs that run elsewhere
    power_on: StrictBool = False  #: a host that we powered off, once, when its VMs are cared for
    soften_anti_affinity: StrictBool = False  #: what fits nowhere else may be beside VMs it should be apart from


class Capacity(Section):
    """How much room is to be left for the VMs of hosts that fail."""

    reserve_hosts: Annotated[int, count_between(0, 100)] = 1  #: of each cluster; 0: not looked at
    cluster_reserve_hosts: dict[str, Annotated[int, count_between(0, 100)]] = Field(default_factory=dict)
    every_s: Duration = duration_field("5m", key="every")  #: how often it is computed at the latest


class Drills(Section):
    """How often each fence device is tried for real, and whether the controller may begin a drill by itself."""

    every_s: Duration = duration_field("180d", key="every")  #: an older drill is overdue
    automatic: StrictBool = False  #: hosts in maintenance (HA_IGNORE) without VMs, one after the other
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ("sat", "sun")
    window: Window = "01:00-05:00"  #: local time


class Leader(BaseModel):
    """Who leads when there are several controllers. Keys that are not named here are the arbiter's own settings."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    kind: Annotated[str, Field(min_length=1)] = "single"

    @property
    def settings(self) -> dict[str, Any]:
        """The arbiter's own settings, with secrets."""
        return dict(self.model_extra or {})


class Log(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "logfmt", "json"] = "auto"


class Config(Section):
    """Everything. Two of them are equal when they say the same, wherever they say it."""

    mode: Literal["observe", "approve", "auto"] = "observe"
    state_dir: AbsolutePath = Path("/var/lib/ha-controller")
    opennebula: OpenNebula
    scope: Scope = Scope()
    detect: Detect = Detect()
    cluster: dict[str, ClusterRules] = Field(default_factory=dict)  #: by the cluster's name
    channel: dict[str, dict[str, Any]] = Field(default_factory=dict)  #: kind -> settings, checked by its own model
    policy: Policies = Policies()
    guard: Guard = Guard()
    fence: tuple[FenceDevice, ...] = ()
    identity: HostIdentity = HostIdentity()
    recover: Recover = Recover()
    capacity: Capacity = Capacity()
    drill: Drills = Drills()
    leader: Leader = Leader()
    controller: OtherControllers = ()  #: the others of this cloud
    notify: tuple[Notify, ...] = ()
    api: Api = Api()
    log: Log = Log()

    _origins: Origins = PrivateAttr(default_factory=Origins)

    @field_validator("cluster")
    @classmethod
    def _fits_detect(cls, clusters: dict[str, ClusterRules], info: ValidationInfo) -> dict[str, ClusterRules]:
        if isinstance(detect := info.data.get("detect"), Detect):
            for rules in clusters.values():
                rules.over(detect)
        return clusters

    def origin(self, *location: str) -> str:
        """Where a value was written, as "FILE:LINE", or "default"."""
        found = [origin for place, origin in self._origins.written.items() if place[: len(location)] == location]
        return str(found[0]) if found else "default"

    def with_kept(self, kept: Mapping[str, object], of: Config) -> Config:
        """The same, but these values of another one, with where they come from.

        `kept`: by the names of fields. Of a table that is kept in part, what differs comes from the other one.
        """
        made = self.model_copy(update=dict(kept))
        written = dict(self._origins.written)
        for each in differences(made, self):
            written.pop(each.location, None)
            if each.location in of._origins.written:
                written[each.location] = of._origins.written[each.location]
        made._origins = Origins(written=written, readers=self._origins.readers)
        return made

    def model_post_init(self, context: Any) -> None:
        """Keep where the values come from, when the loader says so."""
        if isinstance(context, Origins):
            self._origins = context


# --- for the loader ---------------------------------------------------------------------------------------------------


def fields_at(model: type[BaseModel], location: Location) -> dict[str, FieldInfo]:
    """Key -> field of the table at a location inside a model; nothing when the model knows no table there."""
    for part in location:
        if isinstance(part, int):
            continue
        info = fields_at(model, ()).get(part)
        inner = [kind for kind in leaf_types(info.annotation) if issubclass(kind, BaseModel)] if info else []
        if not inner:
            return {}
        model = inner[0]
    return {info.alias or name: info for name, info in model.model_fields.items()}


def leaf_types(annotation: object) -> set[type]:
    """The plain types in an annotation: of `tuple[SecretStr, ...] | None` these are SecretStr and NoneType."""
    if arguments := get_args(annotation):
        return set().union(*map(leaf_types, arguments))
    return {annotation} if isinstance(annotation, type) else set()


# --- for people -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One value that is in force."""

    name: str
    value: Any  #: as JSON has it; secrets are masked
    origin: str  #: "FILE:LINE", a variable, or "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One value that two configurations do not share; None: it is not in that one. Secrets are masked."""

    location: Location
    before: Any
    after: Any

    @property
    def name(self) -> str:
        """The path."""
        return dotted(self.location)


def in_force(config: Config) -> Iterator[Setting]:
    """Every value, in the order of the tables."""
    for location, value in _leaves(config.model_dump(mode="json", by_alias=True), ()):
        origin = str(config._origins.written.get(location, "default"))
        yield Setting(name=dotted(location), value=_masked(value), origin=origin)


def describe(config: Config) -> Iterator[tuple[str, str, str]]:
    """Every value as (path, value as in TOML, origin or "default"), in the order of the tables; secrets are masked."""
    for each in in_force(config):
        yield each.name, as_toml(each.value), each.origin


def differences(before: Config, after: Config) -> list[Difference]:
    """Where two configurations differ; secrets that differ are found, and shown by neither."""
    plain = [dict(_leaves(each.model_dump(by_alias=True), ())) for each in (before, after)]
    texts = [dict(_leaves(each.model_dump(mode="json", by_alias=True), ())) for each in (before, after)]
    missing = object()
    return [
        Difference(location=place, before=_masked(texts[0].get(place)), after=_masked(texts[1].get(place)))
        for place in {**plain[0], **plain[1]}
        if plain[0].get(place, missing) != plain[1].get(place, missing)
    ]


def _masked(value: Any) -> Any:
    """Without the login data that an address may have before its @."""
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return _LOGIN.sub("//***@", value) if isinstance(value, str) else value


def _leaves(value: Any, location: Location) -> Iterator[tuple[Location, Any]]:
    if isinstance(value, dict) and (value or not location):
        for key, inner in value.items():
            yield from _leaves(inner, (*location, key))
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*location, index))
    else:
        yield location, value
