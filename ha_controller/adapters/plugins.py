"""Finds fence agents, probe channels, arbiters and notifiers of installed distributions through their entry points.

Runs once at start. Each entry point is loaded by itself, with a plugin manager of its own: a plugin that fails, in
whatever way, becomes a reported error and costs nobody else a class. Only kinds that the configuration names are
imported. Two owners of one name or kind are an error: which of them fences must not depend on the file system's order.

It must never be used while a host is being fenced, and never calls more of a plugin than its hooks. Data comes from
the distributions' metadata; the classes go to whoever builds devices and channels.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import Distribution, EntryPoint, distributions
from types import MappingProxyType, ModuleType
from typing import Any, TypedDict, TypeVar

import pluggy
import structlog

from ha_controller.plugin import (
    ENTRY_POINT_GROUP,
    AgentConfig,
    Arbiter,
    ArbiterConfig,
    Capability,
    Domain,
    FenceAgent,
    HookSpecs,
    Notifier,
    NotifierConfig,
    Probe,
    ProbeConfig,
)

log = structlog.get_logger(__name__)

OWN_DISTRIBUTION = "ha-controller"

_T = TypeVar("_T")


class PluginConflict(Exception):
    """Two owners claim one entry-point name or one kind. The text names both and says what helps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginInfo:
    """What became of one plugin."""

    name: str  #: of its entry point or module
    distribution: str
    version: str
    kinds: tuple[str, ...] = ()  #: what it brings; nothing when there is an error
    error: str | None = None  #: why it cannot be used


class Models(TypedDict):
    """The settings models of everything that can be used, by kind, as `config.load` takes them."""

    agents: dict[str, type[AgentConfig]]
    channels: dict[str, type[ProbeConfig]]
    arbiters: dict[str, type[ArbiterConfig]]
    notifiers: dict[str, type[NotifierConfig]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Registry:
    """Everything that can be used, by kind."""

    agents: dict[str, type[FenceAgent[AgentConfig]]]
    probes: dict[str, type[Probe[ProbeConfig]]]
    arbiters: dict[str, type[Arbiter[ArbiterConfig]]]
    notifiers: dict[str, type[Notifier[NotifierConfig]]]
    plugins: tuple[PluginInfo, ...]  #: those that were loaded and those that could not be

    def models(self) -> Models:
        """What the settings of each kind must look like."""
        return Models(
            agents={kind: agent.config_model for kind, agent in self.agents.items()},
            channels={kind: probe.config_model for kind, probe in self.probes.items()},
            arbiters={kind: arbiter.config_model for kind, arbiter in self.arbiters.items()},
            notifiers={kind: notifier.config_model for kind, notifier in self.notifiers.items()},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Contract:
    """What the classes of one hook must look like."""

    word: str  #: for people
    base: type
    config_base: type
    attribute: str
    attribute_type: type


_AGENTS = "ha_controller_fence_agents"
_PROBES = "ha_controller_probes"
_ARBITERS = "ha_controller_arbiters"
_NOTIFIERS = "ha_controller_notifiers"
_CONTRACTS: Mapping[str, _Contract] = MappingProxyType(
    {
        _AGENTS: _Contract(
            word="fence agent",
            base=FenceAgent,
            config_base=AgentConfig,
            attribute="capabilities",
            attribute_type=Capability,
        ),
        _PROBES: _Contract(
            word="probe channel", base=Probe, config_base=ProbeConfig, attribute="domain", attribute_type=Domain
        ),
        _ARBITERS: _Contract(
            word="arbiter", base=Arbiter, config_base=ArbiterConfig, attribute="lead_s", attribute_type=float
        ),
        _NOTIFIERS: _Contract(
            word="notifier", base=Notifier, config_base=NotifierConfig, attribute="groups", attribute_type=bool
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Something that a plugin can be loaded from."""

    name: str
    distribution: str
    version: str
    load: Callable[[], object]
    is_entry_point: bool

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.name})"


class _Unusable(Exception):
    """A plugin cannot be loaded or breaks the contract; the text says how."""


def find_plugins(
    *,
    only: Collection[str] | None = None,
    extra_modules: Sequence[ModuleType] = (),
    entry_points: Iterable[EntryPoint] | None = None,
) -> Registry:
    """Load the plugins of these kinds (all when None), our own, and the extra modules. Imports code: takes a while.

    An entry point is named after its kind, so others than the wanted ones need not be imported. Those of our own
    distribution are always loaded. `entry_points` replaces those of the installed distributions.

    Raises:
        PluginConflict: two distributions claim one entry-point name, or two plugins one kind.
    """
    broken: list[PluginInfo] = []
    found = list(_installed(broken) if entry_points is None else entry_points)
    sources = [_module_source(module) for module in extra_modules]
    extra = {module.__name__ for module in extra_modules}
    # not point.module: that raises when the value is nonsense
    sources += [source for point, source in _named_once(found) if point.value not in extra and _wanted(source, only)]

    classes: dict[str, dict[str, Any]] = {hook: {} for hook in _CONTRACTS}
    owners: dict[tuple[str, str], _Source] = {}
    plugins: list[PluginInfo] = []
    for source in sources:
        brought, error = _examine(source)
        for hook, by_kind in brought.items():
            for kind in by_kind:
                _claim(owners, (_CONTRACTS[hook].word, kind), source)
            classes[hook].update(by_kind)
        kinds = tuple(sorted(kind for by_kind in brought.values() for kind in by_kind))
        plugins.append(_info(source, kinds=kinds, error=error))
    return Registry(
        agents=classes[_AGENTS],
        probes=classes[_PROBES],
        arbiters=classes[_ARBITERS],
        notifiers=classes[_NOTIFIERS],
        plugins=(*plugins, *broken),
    )


# --- where plugins are ------------------------------------------------------------------------------------------------


def _installed(broken: list[PluginInfo]) -> Iterator[EntryPoint]:
    """Our entry points of all distributions; of one that is installed twice the first on the path, as import does.

    Not `importlib.metadata.entry_points`: there, one unreadable distribution loses those of all others.
    """
    seen: set[str] = set()
    for distribution in distributions():
        try:
            points = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
            name = _normalised(distribution.name) if points else ""
        except Exception as error:  # the border to what pip left on the disk
            log.warning("the metadata of a distribution cannot be read", exc_info=True)
            problem = f"its metadata cannot be read: {_told(error)}"
            broken.append(PluginInfo(name="?", distribution=_place(distribution), version="?", error=problem))
            continue
        if points and name not in seen:
            seen.add(name)
            yield from points


def _place(distribution: Distribution) -> str:
    """The name of a distribution whose metadata are damaged, or at least where it is."""
    try:
        return distribution.name or str(distribution.locate_file(""))
    except Exception:  # already being reported: this only looks for a name
        return str(distribution.locate_file(""))


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _named_once(points: Iterable[EntryPoint]) -> Iterator[tuple[EntryPoint, _Source]]:
    owners: dict[tuple[str, str], _Source] = {}
    for point in points:
        source = _Source(
            name=point.name,
            distribution="unknown" if point.dist is None else point.dist.name,
            version="" if point.dist is None else point.dist.version,
            load=point.load,
            is_entry_point=True,
        )
        _claim(owners, ("entry point", point.name), source)
        yield point, source


def _module_source(module: ModuleType) -> _Source:
    name = module.__name__
    return _Source(name=name, distribution="built in", version="", load=lambda: module, is_entry_point=False)


def _wanted(source: _Source, only: Collection[str] | None) -> bool:
    return only is None or source.name in only or _normalised(source.distribution) == OWN_DISTRIBUTION


def _claim(owners: dict[tuple[str, str], _Source], claimed: tuple[str, str], source: _Source) -> None:
    other = owners.setdefault(claimed, source)
    if other is not source:
        what = f"{claimed[0]} {claimed[1]!r}"
        raise PluginConflict(f"{what} is claimed by {other} and by {source}: uninstall one of them")


def _info(source: _Source, *, kinds: tuple[str, ...], error: str | None) -> PluginInfo:
    return PluginInfo(
        name=source.name, distribution=source.distribution, version=source.version, kinds=kinds, error=error
    )


# --- what a plugin brings ---------------------------------------------------------------------------------------------


def _examine(source: _Source) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Hook -> kind -> class, or nothing and why: the border to foreign code, where whatever it does becomes a text."""
    try:
        return _brought(source), None
    except (Exception, SystemExit) as error:  # the border to a plugin's code: it costs nobody else a class
        problem = str(error) if isinstance(error, _Unusable) else _told(error)
        log.error("a plugin cannot be used", plugin=str(source), problem=problem, exc_info=True)
        return {}, problem


def _brought(source: _Source) -> dict[str, dict[str, Any]]:
    plugin = _attempt("it cannot be imported", source.load)
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(HookSpecs)
    _attempt("it cannot be registered", partial(manager.register, plugin, name=source.name))
    callers = manager.get_hookcallers(plugin) or []
    # pluggy itself takes a misspelt hook for one that somebody else may call
    if unknown := [caller.name for caller in callers if not caller.has_spec()]:
        names = ", ".join(repr(name) for name in unknown)
        raise _Unusable(f"plugin {source.name!r} has an unknown hook {names}; there are {', '.join(_CONTRACTS)}")
    if not callers:
        raise _Unusable(f"plugin {source.name!r} has no function marked with hookimpl, so it registers nothing")
    return {caller.name: _by_kind(source, caller.name, _returned(caller)) for caller in callers}


def _returned(caller: pluggy.HookCaller) -> Sequence[object]:
    """What the hook returned, if it looks like a list."""
    results = _attempt(f"hook {caller.name} failed", caller)
    result = results[0] if results else None
    if inspect.iscoroutine(result):
        result.close()
        raise _Unusable(f"hook {caller.name} is async, but hooks are called without await")
    if not isinstance(result, Sequence) or isinstance(result, str | bytes):
        raise _Unusable(f"hook {caller.name} returned {type(result).__name__}, not a list of classes")
    return result


def _by_kind(source: _Source, hook: str, classes: Sequence[object]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for candidate in classes:
        kind = _kind_of(candidate, hook)
        if kind in found:
            raise _Unusable(f"hook {hook} returned two classes of kind {kind!r}")
        if hook in (_AGENTS, _NOTIFIERS) and source.is_entry_point and kind != source.name:
            raise _Unusable(f"the kind {kind!r} differs from the entry point {source.name!r}: they must be equal")
        found[kind] = candidate
    return found


def _kind_of(candidate: object, hook: str) -> str:
    """The kind of a class that keeps the contract of its hook."""
    contract = _CONTRACTS[hook]
    if not _is_subclass(candidate, contract.base):
        raise _Unusable(f"hook {hook} returned {candidate!r}, which is no subclass of {contract.base.__name__}")
    name = getattr(candidate, "__name__", "?")
    if missing := sorted(getattr(candidate, "__abstractmethods__", ())):
        raise _Unusable(f"{name} lacks {', '.join(missing)}")
    kind = getattr(candidate, "kind", None)
    if not isinstance(kind, str) or not kind:
        raise _Unusable(f"{name}.kind must be a name")
    if not _is_subclass(getattr(candidate, "config_model", None), contract.config_base):
        raise _Unusable(f"{name}.config_model must be a subclass of {contract.config_base.__name__}")
    if not isinstance(getattr(candidate, contract.attribute, None), contract.attribute_type):
        raise _Unusable(f"{name}.{contract.attribute} must be a {contract.attribute_type.__name__}")
    return kind


def _is_subclass(candidate: object, base: type) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, base)


def _attempt(problem: str, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except (Exception, SystemExit) as error:  # the border to a plugin's code: told with what was attempted
        raise _Unusable(f"{problem}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())  # on one line
