"""Finding plugins: real distributions in a directory on the path, good ones and every kind of bad one."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ha_controller.adapters import plugins
from ha_controller.adapters.plugins import PluginConflict, PluginInfo, Registry, find_plugins
from ha_controller.plugin import ENTRY_POINT_GROUP, FenceAgent, HookSpecs, Probe

HEADER = """
from ha_controller.plugin import (
    AgentConfig, Capability, CheckReport, Domain, FenceAgent, PowerState, Probe, ProbeConfig, hookimpl)
"""

AGENT = """
class {name}(FenceAgent):
    kind = {kind!r}
    config_model = AgentConfig
    capabilities = Capability.READ_POWER

    async def power_off(self): ...
    async def power_state(self): return PowerState.UNKNOWN
    async def check(self): return CheckReport(ok=True, summary="")
"""

PROBE = """
class {name}(Probe):
    kind = {kind!r}
    config_model = ProbeConfig
    domain = Domain.MANAGEMENT

    async def open(self): return ""
    async def close(self): ...
    def launch(self, targets, now): ...
    def collect(self, now): return []
"""

AGENT_HOOK = """
@hookimpl
def ha_controller_fence_agents():
    return {returned}
"""

PROBE_HOOK = """
@hookimpl
def ha_controller_probes():
    return {returned}
"""


def agent_plugin(kind: str, returned: str = "[Agent]") -> str:
    return HEADER + AGENT.format(name="Agent", kind=kind) + AGENT_HOOK.format(returned=returned)


def probe_plugin(*kinds: str) -> str:
    classes = "".join(PROBE.format(name=f"Probe{number}", kind=kind) for number, kind in enumerate(kinds))
    returned = "[" + ", ".join(f"Probe{number}" for number in range(len(kinds))) + "]"
    return HEADER + classes + PROBE_HOOK.format(returned=returned)


class Site:
    """A directory on the path that distributions are installed into."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.modules: list[str] = []

    def install(self, distribution: str, source: str, *, name: str, version: str = "1.0", module: str = "") -> None:
        """Install one module with one entry point, as pip would leave it."""
        module = module or distribution.replace("-", "_")
        self.directory.joinpath(f"{module}.py").write_text(source)
        self.modules.append(module)
        self.describe(distribution, f"[{ENTRY_POINT_GROUP}]\n{name} = {module}\n", version=version)

    def describe(self, distribution: str, entry_points: str, *, version: str = "1.0") -> None:
        """Write only the metadata."""
        metadata = self.directory / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir()
        metadata.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        metadata.joinpath("entry_points.txt").write_text(entry_points)
        importlib.invalidate_caches()

    def info(self, registry: Registry, distribution: str) -> PluginInfo:
        (info,) = [info for info in registry.plugins if info.distribution == distribution]
        return info

    def error(self, distribution: str = "bad") -> str:
        """Load everything; the good plugin beside the bad one must be there. Returns what is said of the bad one."""
        self.install("witness", agent_plugin("witness"), name="witness")
        registry = find_plugins(only={"bad", "witness"})
        assert registry.agents["witness"].kind == "witness", "a bad plugin costs nobody else"
        assert "bad" not in registry.agents
        info = self.info(registry, distribution)
        assert info.kinds == ()
        assert info.error is not None
        return info.error


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()


# --- good plugins -----------------------------------------------------------------------------------------------------


def test_agents_and_probes_of_installed_distributions_are_found(site: Site) -> None:
    site.install("ha-strip", agent_plugin("strip"), name="strip", version="2.1")
    site.install("ha-arp", probe_plugin("arp", "ndp"), name="arp", version="0.3")
    registry = find_plugins(only={"strip", "arp"})
    assert issubclass(registry.agents["strip"], FenceAgent)
    assert issubclass(registry.probes["arp"], Probe)
    assert set(registry.probes) >= {"arp", "ndp"}
    assert site.info(registry, "ha-strip") == PluginInfo(
        name="strip", distribution="ha-strip", version="2.1", kinds=("strip",)
    )
    assert site.info(registry, "ha-arp").kinds == ("arp", "ndp")


ARBITER = """
from ha_controller.plugin import Arbiter, ArbiterConfig, hookimpl

class Quorum(Arbiter):
    kind = "quorum"
    config_model = ArbiterConfig
    {lead}

    async def acquire(self): return None
    async def renew(self, term): ...
    async def prove(self, term): ...
    async def release(self, term): ...
    async def members(self): return []

@hookimpl
def ha_controller_arbiters():
    return [Quorum]
"""


def test_arbiters_are_found_like_the_rest_and_our_own_come_through_the_same_hook(site: Site) -> None:
    site.install("ha-quorum", ARBITER.format(lead=""), name="quorum")
    registry = find_plugins(only={"quorum"})
    assert set(registry.arbiters) == {"single", "etcd", "opennebula", "quorum"}
    assert site.info(registry, "ha-quorum").kinds == ("quorum",)


def test_an_arbiter_that_breaks_the_contract_is_told(site: Site) -> None:
    site.install("bad", ARBITER.format(lead="lead_s = None"), name="bad")
    assert "Quorum.lead_s must be a float" in site.error()


NOTIFIER = """
from ha_controller.plugin import Notifier, NotifierConfig, hookimpl

class Horn(Notifier):
    kind = "horn"
    config_model = NotifierConfig
    {groups}

    async def tell(self, message): ...

@hookimpl
def ha_controller_notifiers():
    return [Horn]
"""


def test_notifiers_are_found_like_the_rest(site: Site) -> None:
    site.install("ha-horn", NOTIFIER.format(groups=""), name="horn")
    assert "horn" in find_plugins(only={"horn"}).notifiers


def test_a_notifier_under_another_name_is_told(site: Site) -> None:
    site.install("bad", NOTIFIER.format(groups=""), name="bad")
    assert "the kind 'horn' differs from the entry point 'bad'" in site.error()


def test_a_notifier_that_breaks_the_contract_is_told(site: Site) -> None:
    site.install("bad", NOTIFIER.format(groups="groups = 3").replace("horn", "bad"), name="bad")
    assert "Horn.groups must be a bool" in site.error()


def test_one_plugin_may_bring_an_agent_and_a_probe(site: Site) -> None:
    both = agent_plugin("both") + PROBE.format(name="Channel", kind="both") + PROBE_HOOK.format(returned="(Channel,)")
    site.install("ha-both", both, name="both")
    registry = find_plugins(only={"both"})
    assert (registry.agents["both"].kind, registry.probes["both"].kind) == ("both", "both")
    assert site.info(registry, "ha-both").error is None


def test_only_wanted_kinds_are_imported(site: Site) -> None:
    site.install("ha-wanted", agent_plugin("wanted"), name="wanted")
    site.install("ha-unwanted", agent_plugin("unwanted"), name="unwanted")
    registry = find_plugins(only={"wanted"})
    assert "wanted" in registry.agents
    assert "unwanted" not in registry.agents
    assert "ha_unwanted" not in sys.modules
    assert "ha-unwanted" not in {info.distribution for info in registry.plugins}
    assert "unwanted" in find_plugins().agents, "without a selection all are loaded"


def test_our_own_channels_are_loaded_though_nobody_names_their_entry_point(site: Site) -> None:
    own = f"[{ENTRY_POINT_GROUP}]\nbuiltin_channels = ha_controller.adapters.prober.builtin\n"
    site.describe("ha_controller", own, version="9")
    registry = find_plugins(only=set())
    assert registry.agents == {}
    assert {"icmp", "ssh", "tcp", "bmc", "oned"} <= set(registry.probes)
    assert site.info(registry, "ha_controller").error is None


def test_an_extra_module_is_loaded_once_though_an_entry_point_names_it_too(site: Site) -> None:
    site.install("ha-twice", agent_plugin("twice"), name="twice")
    module = importlib.import_module("ha_twice")
    registry = find_plugins(only={"twice"}, extra_modules=[module])
    assert registry.agents["twice"] is module.Agent
    assert [info.name for info in registry.plugins if "twice" in info.kinds] == ["ha_twice"]


def test_of_a_distribution_that_is_there_twice_the_first_on_the_path_counts(
    site: Site, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = Site(tmp_path_factory.mktemp("older"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.directory)])
    older.install("ha_strip", agent_plugin("strip"), name="strip", version="1.0")
    site.install("ha-strip", agent_plugin("strip"), name="strip", version="2.0")
    registry = find_plugins(only={"strip"})
    assert [info.version for info in registry.plugins if "strip" in info.kinds] == ["2.0"]


def test_every_hook_of_the_contract_is_asked(site: Site) -> None:
    hooks = {name for name in vars(HookSpecs) if name.startswith("ha_controller_")}
    assert hooks == set(plugins._CONTRACTS)


# --- conflicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("only", [None, {"ipmi"}, set()])
def test_two_distributions_with_one_entry_point_name_are_an_error_that_names_both(
    site: Site, only: set[str] | None
) -> None:
    site.install("good-ipmi", agent_plugin("ipmi"), name="ipmi", version="1.0")
    site.install("other-ipmi", agent_plugin("ipmi"), name="ipmi", version="6.6")
    with pytest.raises(PluginConflict, match="entry point 'ipmi'") as caught:
        find_plugins(only=only)
    assert "good-ipmi 1.0" in str(caught.value)
    assert "other-ipmi 6.6" in str(caught.value)
    assert not {"good_ipmi", "other_ipmi"} & set(sys.modules), "neither was imported"


def test_two_distributions_with_one_probe_kind_are_an_error_that_names_both(site: Site) -> None:
    site.install("good-arp", probe_plugin("arp"), name="arp")
    site.install("other-arp", probe_plugin("ndp", "arp"), name="ndp")
    with pytest.raises(PluginConflict, match="probe channel 'arp'") as caught:
        find_plugins(only={"arp", "ndp"})
    assert "good-arp 1.0" in str(caught.value)
    assert "other-arp 1.0" in str(caught.value)


def test_an_extra_module_and_a_distribution_with_one_kind_are_an_error(site: Site) -> None:
    site.install("good-strip", agent_plugin("strip"), name="strip")
    extra = ModuleType("extra_strip")
    exec(agent_plugin("strip"), vars(extra))
    with pytest.raises(PluginConflict, match=r"fence agent 'strip'.*extra_strip.*good-strip"):
        find_plugins(only={"strip"}, extra_modules=[extra])


# --- bad plugins ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a_library_that_is_not_there", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit"),
        ("this is no Python", "cannot be imported: SyntaxError"),
        (
            agent_plugin("bad").replace("fence_agents", "fence_agnts"),
            "plugin 'bad' has an unknown hook '.*fence_agnts'",
        ),
        (agent_plugin("bad").replace("@hookimpl", ""), "no function marked with hookimpl"),
        (agent_plugin("bad").replace("fence_agents()", "fence_agents(config)"), "cannot be registered.*config"),
        (agent_plugin("bad").replace("def ha", "async def ha"), "hook ha_controller_fence_agents is async"),
        (agent_plugin("bad", "1 / 0"), "hook ha_controller_fence_agents failed: ZeroDivisionError"),
        (agent_plugin("bad", "__import__('sys').exit(1)"), "hook ha_controller_fence_agents failed: SystemExit"),
        (agent_plugin("bad", "None"), "returned NoneType, not a list of classes"),
        (agent_plugin("bad", "Agent"), "not a list of classes"),
        (agent_plugin("bad", "'Agent'"), "returned str, not a list of classes"),
        (agent_plugin("bad", "['Agent']"), "returned 'Agent', which is no subclass of FenceAgent"),
        (agent_plugin("bad", "[Agent(AgentConfig())]"), "is no subclass of FenceAgent"),
        (agent_plugin("bad", "[Agent, int]"), "is no subclass of FenceAgent"),
        (agent_plugin("bad", "[Agent, Agent]"), "two classes of kind 'bad'"),
        (agent_plugin("worse"), "the kind 'worse' differs from the entry point 'bad'"),
        (agent_plugin("bad").replace("power_off", "power_of"), "Agent lacks power_off"),
        (agent_plugin("bad").replace("    kind = ", "    kinds = "), "Agent.kind must be a name"),
        (agent_plugin("bad").replace("= AgentConfig", "= dict"), "config_model must be a subclass of AgentConfig"),
        (agent_plugin("bad").replace("Capability.READ", "'READ' #"), "Agent.capabilities must be a Capability"),
        (probe_plugin("bad").replace("Domain.MANAGEMENT", "'here'"), "Probe0.domain must be a Domain"),
        (probe_plugin("bad").replace("(Probe)", "(FenceAgent)"), "is no subclass of Probe"),
    ],
)
def test_a_bad_plugin_is_reported_and_costs_nobody_else(site: Site, source: str, expected: str) -> None:
    site.install("bad", source, name="bad", module="bad_plugin")
    error = site.error()
    assert re.search(expected, error), error
    assert "\n" not in error


def test_a_bad_probe_costs_the_agent_of_the_same_plugin(site: Site) -> None:
    both = agent_plugin("bad") + PROBE_HOOK.format(returned="[None]")
    site.install("bad", both, name="bad", module="bad_plugin")
    assert "ha_controller_probes returned None" in site.error()


@pytest.mark.parametrize(
    "entry_points",
    [f"[{ENTRY_POINT_GROUP}]\nthis is no entry point\n", f"[{ENTRY_POINT_GROUP}]\nbad = not a module at all\n"],
)
def test_unreadable_metadata_are_reported_and_cost_nobody_else(site: Site, entry_points: str) -> None:
    site.describe("bad", entry_points)
    assert re.match("its metadata cannot be read|it cannot be imported", site.error())


def test_a_broken_plugin_is_logged_with_its_traceback(site: Site, logged: list[Any]) -> None:
    site.install("bad", agent_plugin("bad", "1 / 0"), name="bad", module="bad_plugin")
    site.error()
    (line,) = [line for line in logged if line["event"] == "a plugin cannot be used"]
    assert line["plugin"] == "bad 1.0 (bad)"
    assert line["exc_info"]
