"""From files and variables to a configuration, or to every problem at once: where, what is wrong, what helps.

Layers, each over the one before: defaults, the file, `conf.d/*.toml` beside it in the order of their names, variables
`HA_SECTION__KEY`. Tables are merged key by key, `[[fence]]` is appended, everything else is replaced. Whatever the text
is, the end is a `Config` or a `ConfigError`; a layer that is there and cannot be read is never passed over.

It reads files and runs the commands that secrets name, so it blocks: at start, or in the thread that reloads. It must
never put a secret into a problem, nor a value that may be one: unknown keys are told without their value.
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import structlog
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ha_controller.config.detection import Detect
from ha_controller.config.model import Config, FenceDevice, Leader, Notify, fields_at, leaf_types
from ha_controller.config.placeholders import has_placeholder
from ha_controller.config.positions import DEPTH_MAX, Layers, Location, Origin, Origins, as_toml, dotted, parse
from ha_controller.config.secret import WHERE_TO_READ, Vault, is_source
from ha_controller.config.wording import about_unknown, about_zones, told
from ha_controller.plugin import AgentConfig, ArbiterConfig, NotifierConfig, ProbeConfig

log = structlog.get_logger(__name__)

ModelT = TypeVar("ModelT", bound=BaseModel)

_PREFIX: Final = "HA_"
_PLAIN_VARIABLES: Final = MappingProxyType({"HA_MODE": "mode", "HA_STATE_DIR": "state_dir"})
_AGENTS: Final = ("ipmi", "redfish", "pdu", "fence-agents", "ssh", "manual", "ceph", "watchdog")
_MESSENGERS: Final = ("webhook", "slack", "pagerduty", "alertmanager", "command")
_OTHERS: Final = MappingProxyType({kind: f"ha-controller-{kind}" for kind in ("email", "apprise")})
#: word of the configuration -> kind -> what to install
_DISTRIBUTIONS: Final = MappingProxyType(
    {
        "agent": {kind: f"ha-controller-{kind}" for kind in _AGENTS},
        "notifier": {**dict.fromkeys(_MESSENGERS, "ha-controller-messages"), **_OTHERS},
    }
)
_VALUE_CHARACTERS_MAX: Final = 60


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, without any secret."""

    file: str  #: or the name of an environment variable
    line: int | None  #: from 1; None for a variable, a whole file, or what is not written anywhere
    path: str  #: like fence.0.agent; empty when it is about the whole file
    value: str | None  #: as in TOML; None where there is none, or where it may be a secret
    message: str
    remedy: str

    def __str__(self) -> str:
        """One line: `config.toml:41: fence.0.agnet: unknown key. Did you mean "agent"?`"""
        place = str(Origin(file=self.file, line=self.line)) + (f": {self.path}" if self.path else "")
        what = self.message if self.value is None else f"{self.message}: {self.value}"
        return " ".join(f"{place}: {what}{'. ' if self.remedy else ''}{self.remedy}".split())


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has everything that is wrong, in the order of files and lines."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(
    path: Path,
    *,
    environ: Mapping[str, str],
    agents: Mapping[str, type[AgentConfig]],
    channels: Mapping[str, type[ProbeConfig]],
    arbiters: Mapping[str, type[ArbiterConfig]],
    notifiers: Mapping[str, type[NotifierConfig]],
) -> Config:
    """Read a configuration. `agents` to `notifiers` are what is installed: kind -> model of its settings.

    Raises:
        ConfigError: with every problem found. While a file cannot be read at all, only problems of that sort.
    """
    draft = _Draft(vault=Vault(environ=environ))
    for layer in (path, *_files_of(draft, path.parent / "conf.d")):
        _read_file(draft, layer, name=layer.name if layer == path else f"conf.d/{layer.name}")
    if draft.problems:
        raise ConfigError(draft.problems)
    _read_variables(draft, environ)
    draft.vault.reveal(draft.layers.values, Config, ())
    _check_tables(draft, "fence", "agent", FenceDevice, agents)
    _check_tables(draft, "notify", "notifier", Notify, notifiers)
    _check_channels(draft, channels)
    _check_arbiter(draft, arbiters)
    _check_armed(draft)
    for problem in about_zones(draft.layers.values.get("opennebula")):
        draft.complain(*problem)
    draft.layers.values.setdefault("opennebula", {})  # then the key that must be set is told, not its table
    whole = _Table(location=(), values=draft.layers.values)
    config = whole.validated(draft, Config, Origins(written=draft.layers.origins, readers=draft.vault.readers))
    if (problems := draft.all_problems()) or config is None:
        raise ConfigError(problems)
    return config


@dataclass
class _Draft:
    """What the layers say, where each value comes from, and what is wrong with it."""

    vault: Vault
    layers: Layers = field(default_factory=lambda: Layers(is_value=is_source))
    files: list[str] = field(default_factory=list)  #: in the order of the layers
    problems: list[Problem] = field(default_factory=list)
    missing: dict[Location, Problem] = field(default_factory=dict)
    suggested: set[Location] = field(default_factory=set)  #: keys that were meant by misspelt ones

    def complain(self, location: Location, message: str, remedy: str = "", *, value: object = None) -> None:
        """Note a problem once; the value must not be a secret, and is left out when it is no plain one."""
        if any(location[: len(place)] == place for place in self.vault.problems):
            return  # it is about what stands in for the secret
        problem = self._problem(location, message, remedy, value)
        if problem not in self.problems:
            self.problems.append(problem)

    def miss(self, location: Location, remedy: str) -> None:
        """Note that something must be written and is not."""
        self.missing[location] = self._problem(location, "is missing", remedy, None)

    def all_problems(self) -> list[Problem]:
        """In the order of layers and lines. What is only misspelt is not missing."""
        absent = [problem for location, problem in self.missing.items() if location not in self.suggested]
        absent += [self._problem(place, why.message, why.remedy, None) for place, why in self.vault.problems.items()]
        order = {name: index for index, name in enumerate(self.files)}
        return sorted(
            [*self.problems, *absent],
            key=lambda problem: (order.get(problem.file, len(order)), problem.file, problem.line or 0),
        )

    def _problem(self, location: Location, message: str, remedy: str, value: object) -> Problem:
        origin = self.layers.nearest(location) or Origin(file=self.files[0])
        shown = _shown(value)
        return Problem(
            file=origin.file,
            line=origin.line,
            path=dotted(location),
            value=None if shown is None else self.vault.masked(shown),
            message=self.vault.masked(message),  # a plugin's check may quote a secret
            remedy=self.vault.masked(remedy),
        )


def _shown(value: object) -> str | None:
    if value is None or isinstance(value, SecretStr | dict | list):
        return None
    # a URL may have login data before its @
    text = as_toml(re.sub(r"(?s).*@", "***@", value) if isinstance(value, str) else value)
    return text if len(text) <= _VALUE_CHARACTERS_MAX else f"{text[:_VALUE_CHARACTERS_MAX]}..."


# --- layers -----------------------------------------------------------------------------------------------------------


def _files_of(draft: _Draft, folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix == ".toml" and not file.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        draft.problems.append(_about_file(str(folder), f"cannot be listed ({error.strerror})", "Its files may matter"))
        return []


def _read_file(draft: _Draft, path: Path, *, name: str) -> None:
    draft.files.append(name)
    try:
        text = path.read_bytes().decode()
        values, lines = parse(text)
    except OSError as error:
        remedy = "It must be there, for the user that runs ha-controller. Another place: --config FILE"
        draft.problems.append(_about_file(str(path), f"cannot be read ({error.strerror})", remedy))
    except UnicodeDecodeError:
        draft.problems.append(_about_file(name, "not UTF-8 text", "Save it as UTF-8"))
    except ValueError as error:
        line = re.search(r"at line (\d+)", str(error))
        at_end = "at end of document" in str(error)
        found = int(line[1]) if line else text.count("\n") + 1 if at_end else None
        draft.problems.append(_about_file(name, f"not TOML: {error}", "", line=found))
    else:
        draft.layers.overlay(values, {location: Origin(file=name, line=line) for location, line in lines.items()})


def _about_file(file: str, message: str, remedy: str, *, line: int | None = None) -> Problem:
    return Problem(file=file, line=line, path="", value=None, message=message, remedy=remedy)


def _read_variables(draft: _Draft, environ: Mapping[str, str]) -> None:
    for name, text in sorted(environ.items()):
        if name in _PLAIN_VARIABLES:
            keys: Location = (_PLAIN_VARIABLES[name],)
        elif name.startswith(_PREFIX) and "__" in name:
            keys = tuple(name.removeprefix(_PREFIX).lower().split("__"))
        else:
            continue
        if keys[0] in ("fence", "notify") or len(keys) > DEPTH_MAX:
            draft.problems.append(_about_file(name, "no variable can set this", "Write it into a file in conf.d"))
            continue
        value, inner = _variable(text)
        values = reduce(lambda below, key: {key: below}, reversed(keys), value)
        places = [*(keys[:length] for length in range(1, len(keys) + 1)), *((*keys, *place) for place in inner)]
        draft.layers.overlay(values, dict.fromkeys(places, Origin(file=name)))


def _variable(text: str) -> tuple[Any, list[Location]]:
    """The value of a variable, and the places inside it: TOML if it is, else the text itself."""
    try:
        values, lines = parse(f"value = {text}")
    except ValueError:
        return text, []
    if values.keys() != {"value"}:  # a text of several lines
        return text, []
    return values["value"], [location[1:] for location in lines if len(location) > 1]


# --- what plugins and tables say --------------------------------------------------------------------------------------


def _check_tables(
    draft: _Draft, key: str, word: str, ours: type[BaseModel], installed: Mapping[str, type[BaseModel]]
) -> None:
    """The tables `[[key]]`, in each of which `word` names a plugin and the rest are its settings."""
    tables = draft.layers.values.get(key)
    names: dict[str, int] = {}
    known = fields_at(ours, ())
    for index, values in enumerate(tables if isinstance(tables, list) else []):
        if not isinstance(values, dict):
            continue
        location: Location = (key, index)
        name, kind = values.get("name"), values.get(word)
        if isinstance(name, str) and names.setdefault(name, index) != index:
            draft.complain((*location, "name"), f"already names {key}.{names[name]}", "Give each its own", value=name)
        settings = {own: value for own, value in values.items() if own not in known}
        if isinstance(kind, str) and kind in installed:
            per_host = ours is FenceDevice
            table = _Table(location=location, values=settings, also_known=known, per_host=per_host)
            _check_settings(draft, table, installed[kind])
            values.update(settings)  # with the secrets
            continue
        if isinstance(kind, str):
            _complain_of_kind(draft, (*location, word), word, kind, installed)
        for own in settings:  # the plugin's own keys are not known, but a misspelt one of ours is
            if near := difflib.get_close_matches(own, known, n=1, cutoff=0.75):
                draft.suggested.add((*location, near[0]))
                draft.complain((*location, own), "unknown key", f'Did you mean "{near[0]}"?')


def _check_channels(draft: _Draft, channels: Mapping[str, type[ProbeConfig]]) -> None:
    detect, tables = draft.layers.values.get("detect"), draft.layers.values.get("channel")
    used = detect.get("channels") if isinstance(detect, dict) else None
    if used is None:
        used = list(Detect.model_fields["channels"].default)
    for index, kind in enumerate(used if isinstance(used, list) else []):
        if isinstance(kind, str) and kind not in channels:
            _complain_of_kind(draft, ("detect", "channels", index), "channel", kind, channels)
    settings: dict[Any, Any] = {kind: {} for kind in used if isinstance(kind, str)} if isinstance(used, list) else {}
    settings |= tables if isinstance(tables, dict) else {}
    for kind, table in settings.items():
        if kind in channels and isinstance(table, dict):
            _check_settings(draft, _Table(location=("channel", kind), values=table), channels[kind])
        elif isinstance(tables, dict) and kind in tables and kind not in channels:
            _complain_of_kind(draft, ("channel", kind), "channel", kind, channels)


def _check_arbiter(draft: _Draft, arbiters: Mapping[str, type[ArbiterConfig]]) -> None:
    leader = draft.layers.values.get("leader")
    kind = leader.get("kind", Leader.model_fields["kind"].default) if isinstance(leader, dict) else None
    if not isinstance(leader, dict) or not isinstance(kind, str):
        return
    if kind not in arbiters:
        _complain_of_kind(draft, ("leader", "kind"), "arbiter", kind, arbiters)
        return
    settings = {key: value for key, value in leader.items() if key != "kind"}
    ours = fields_at(Leader, ())
    _check_settings(draft, _Table(location=("leader",), values=settings, also_known=ours), arbiters[kind])
    leader.update(settings)  # with the secrets


def _complain_of_kind(draft: _Draft, location: Location, word: str, kind: str, installed: Mapping[str, object]) -> None:
    remedy = f"Installed: {', '.join(sorted(installed)) or 'none'}"
    if near := difflib.get_close_matches(kind, installed, n=1):
        remedy = f'Did you mean "{near[0]}"? {remedy}'
    elif kind in _DISTRIBUTIONS.get(word, {}):
        remedy = f"Install the distribution {_DISTRIBUTIONS[word][kind]}. {remedy}"
    draft.complain(location, f"no plugin provides this {word}", remedy, value=kind)


def _check_settings(draft: _Draft, table: _Table, model: type[BaseModel]) -> None:
    """Check the settings of a plugin by its own model, and reveal its secrets in place."""
    draft.vault.reveal(table.values, model, table.location)
    try:
        table.validated(draft, model)
    except Exception as error:  # the border to the plugin's code
        # no message: it may quote a secret
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("a plugin cannot check its settings", path=dotted(table.location), frames=frames)
        message = f"its plugin cannot check these settings ({type(error).__name__})"
        draft.complain(table.location, message, "This is a bug of the plugin; the log has the traceback")


def _check_armed(draft: _Draft) -> None:
    """A controller that acts needs something to act with, and someone to ask whether it is cut off itself."""
    mode, guard = draft.layers.values.get("mode"), draft.layers.values.get("guard")
    if mode not in ("approve", "auto"):
        return
    if not draft.layers.values.get("fence"):
        draft.complain(("mode",), "needs at least one [[fence]]", "Add one, or observe", value=mode)
    guard = guard if isinstance(guard, dict) else {}
    if not guard.get("self_check") and guard.get("self_check_waived") is not True:
        message = f"mode {as_toml(mode)} needs addresses that show whether we are cut off ourselves"
        draft.complain(("guard", "self_check"), message, "Name your gateway or switch, or set self_check_waived = true")


# --- validation -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Values, and where they stand in the configuration."""

    location: Location
    values: dict[str, Any]
    also_known: Mapping[str, FieldInfo] = field(default_factory=dict)  #: keys beside those of the model
    per_host: bool = False  #: may hold placeholders, whose values are known, and then checked, per host only

    def validated(self, draft: _Draft, model: type[ModelT], context: Origins | None = None) -> ModelT | None:
        """The model of these values, or None and the problems in the draft."""
        try:
            return model.model_validate(self.values, context=context)
        except ValidationError as error:
            for details in error.errors(include_input=False, include_url=False):
                self._complain(draft, details, model)
        return None

    def _complain(self, draft: _Draft, details: ErrorDetails, model: type[BaseModel]) -> None:
        place = self._existing(details["loc"])
        known = {**fields_at(model, place[:-1]), **(self.also_known if len(place) == 1 else {})}
        key = str(place[-1]) if place else ""
        if details["type"] != "extra_forbidden" and key not in known and key.removesuffix("_s") in known:
            place = (*place[:-1], key.removesuffix("_s"))  # pydantic names a default by the Python name
        here: Location = (*self.location, *place)
        match details["type"]:
            case "extra_forbidden":
                near = difflib.get_close_matches(key, known, n=1)
                draft.suggested.update((*here[:-1], key) for key in near)
                draft.complain(here, "unknown key", about_unknown(key, near, known, here))
            case "missing":
                is_secret = key in known and SecretStr in leaf_types(known[key].annotation)
                draft.miss(here, WHERE_TO_READ if is_secret else "")
            case _ if self.per_host and has_placeholder(self.values.get(str(place[0])) if place else self.values):
                pass  # checked when the host is known
            case _:
                value = self._value(place, known)
                draft.complain(here, *told(details, value), value=value)

    def _existing(self, place: Location) -> Location:
        """Without the names of union members that pydantic puts behind a plain value."""
        value: Any = self.values
        for depth, part in enumerate(place):
            if not isinstance(value, dict | list):
                return place[:depth]
            value = _inner(value, part, {})
        return place

    def _value(self, place: Location, known: Mapping[str, FieldInfo]) -> object:
        value: Any = self.values
        for part in place:
            # not written: then it is the default that does not go with something else
            default = known[str(part)].default if str(part) in known else None
            value = _inner(value, part, default)
        return value


def _inner(value: object, part: str | int, default: object) -> Any:
    match value, part:
        case list(), int() if part < len(value):
            return value[part]
        case dict(), _:
            return value.get(part, default)
        case _:
            return default
