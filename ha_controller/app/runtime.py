"""Builds one controller from a configuration and runs it until cancelled."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import assert_never

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from ha_controller.adapters.arbiter import NotLeading, SingleArbiter
from ha_controller.adapters.domains import DomainReader
from ha_controller.adapters.fencer import Fencer, Looks
from ha_controller.adapters.host_identity import HostIdentifier
from ha_controller.adapters.http_api import Commander, HttpApi
from ha_controller.adapters.journal import Journal
from ha_controller.adapters.notifier import LogNotifier, Message, NotifierQueue
from ha_controller.adapters.opennebula import Client, NoAnswer, OnedHost, OpenNebulaError, Unauthenticated
from ha_controller.adapters.plugins import Registry
from ha_controller.adapters.prober import Prober
from ha_controller.adapters.recoverer import FencePlan, Recoverer
from ha_controller.app.armory import Addresses, Armory
from ha_controller.app.black_box import BlackBox
from ha_controller.app.clock import ControllerClock
from ha_controller.app.drills import DrillSchedule
from ha_controller.app.ledger import Ledger
from ha_controller.app.settings import core_settings, host_login, scope
from ha_controller.app.sources import ControllerSources
from ha_controller.app.surroundings import SecondMaster, Witnesses
from ha_controller.config import Config
from ha_controller.core.controller import Controller
from ha_controller.core.detector import alive_channels, life_since, silence_confirmed, suspicious
from ha_controller.core.effects import (
    Answer,
    AskDomains,
    Drill,
    Effect,
    Explain,
    Fence,
    LiftOrders,
    LockVm,
    MarkMaintenance,
    MoveVm,
    OrderHost,
    ReadHost,
    ReadPower,
    RecoverVm,
    RenewOrders,
    RestartMonitoring,
    ResumeVm,
    Tell,
    WatchClosely,
)
from ha_controller.core.events import Event, EvidenceTaken, HostReaddressed, LeadChanged, SettingsChanged, Verb
from ha_controller.core.model import HostState
from ha_controller.engine import Engine, JournalPort
from ha_controller.plugin import Domain, Probe, ProbeConfig, ProbeContext, Reading, Target

log = structlog.get_logger(__name__)

#: what a running controller does not take over from a new configuration
NEED_RESTART = ("opennebula", "state_dir", "api", "leader", "channel", "identity", "log")
DETECT_NEEDS_RESTART = ("channels", "interval_s", "confirm_interval_s")
RENEW_EVERY_S = 5.0  #: how often we look whether the lead is still ours


class Runtime:
    """One controller: everything that a configuration asks for, wired together."""

    def __init__(self, config: Config, registry: Registry) -> None:
        """Builds what needs no I/O."""
        self.config = config
        self.registry = registry
        self.clock = ControllerClock()
        self._arbiter = SingleArbiter(Path(config.state_dir))
        self._term: int | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._hosts: Sequence[OnedHost] = ()
        settings = core_settings(config, registry.probes)
        self.controller = Controller(settings, self.clock())
        self.fencer = Fencer(
            report=self.post,
            may_act=self._leads,
            clock=self.clock,
            looks=Looks(
                shows_life=self._shows_life,
                is_silent=self._is_silent,
                why_not_empty=lambda host: self.recoverer.why_not_empty(host),
            ),
        )
        self.armory = Armory(config=config, agents=registry.agents, fencer=self.fencer)
        self.addresses = Addresses(self.clock)
        self.witnesses = Witnesses(addresses=config.guard.self_check, report=self.post, clock=self.clock)
        self.client = Client(config.opennebula.endpoint, config.opennebula.auth, timeout_s=config.opennebula.timeout_s)
        self.recoverer = Recoverer(
            self.client,
            report=self.post,
            may_act=self._leads,
            clock=self.clock,
            scope=scope(config),
            poll_s=config.opennebula.poll_s,
            equip=self._equip,
            order_timeout_s=3 * config.opennebula.timeout_s,
            told=self._told,
        )
        login = host_login(config)
        self.domain_reader = DomainReader(login, targets=self._targets, report=self.post, clock=self.clock)
        self.prober = self._make_prober()
        self.commander = Commander(self.post)
        self.notifier = NotifierQueue([LogNotifier()])
        self.engine: Engine | None = None

    def _make_prober(self) -> Prober:
        context = ProbeContext(
            read_power=self.fencer.power_of, oned_view=self.recoverer.oned_view, neighbours=self._neighbours
        )
        channels: dict[str, Probe[ProbeConfig]] = {}
        for name in self.config.detect.channels:
            probe_class = self.registry.probes[name]
            settings = probe_class.config_model.model_validate(self.config.channel.get(name, {}))
            channels[name] = probe_class(settings, context)
        return Prober(
            channels,
            interval_s=self.config.detect.interval_s,
            confirm_interval_s=self.config.detect.confirm_interval_s,
            clock=self.clock,
            sink=self._evidence,
        )

    # --- between the parts ---

    def post(self, event: Event) -> None:
        """Hand an event to the engine; before it exists there is nobody to decide."""
        if self.engine is not None:
            self.engine.post(event)

    def _told(self, error: OpenNebulaError) -> str:
        """An error of OpenNebula, with what to look at."""
        one, where = self.config.opennebula, partial(self.config.origin, "opennebula")
        match error:
            case Unauthenticated():
                return f"OpenNebula refuses our login ({error}). Check opennebula.auth ({where('auth')})"
            case NoAnswer():
                check = f"Check that oned runs, and opennebula.endpoint {one.endpoint} ({where('endpoint')})"
                return f"{error}. {check}"
            case _:
                return str(error)

    def _shows_life(self, host: int, moment: float) -> bool:
        view = self.controller.state.views.get(host)
        return view is not None and bool(life_since(view.views, moment))

    def _is_silent(self, host: int, moment: float) -> bool:
        """Whether every management channel was asked after a moment, often enough, and none got an answer."""
        view, settings = self.controller.state.views.get(host), self.controller.state.settings
        return view is not None and silence_confirmed(view.views, settings, moment) and suspicious(view.views, settings)

    def _neighbours(self, host: int) -> Sequence[Target]:
        """Healthy hosts of the same cluster, beginning after the host itself, so that not all suspects ask the same."""
        state, now = self.controller.state, self.clock()
        suspect = state.hosts.get(host)
        if suspect is None:
            return ()
        healthy = {
            known.id
            for known in state.hosts.values()
            if known.id != host
            and known.cluster == suspect.cluster
            and not known.excluded
            and state.view(known.id).state is HostState.OK
            and alive_channels(state.view(known.id).views, state.settings, now)
        }
        targets = [target for target in self.addresses.targets(self._hosts) if target.host in healthy]
        return sorted(targets, key=lambda target: (target.host < host, target.host))

    def _leads(self) -> bool:
        return self._term is not None and self._arbiter.holds(self._term)

    def _evidence(self, channel: str, domain: Domain, readings: list[Reading]) -> None:
        del domain
        if self.witnesses.addresses:
            self.witnesses.note(reading for reading in readings if reading.host < 0)
            readings = [reading for reading in readings if reading.host >= 0]
        if readings:
            self.post(EvidenceTaken(channel=channel, readings=tuple(readings)))

    def _equip(self, hosts: Sequence[OnedHost]) -> dict[int, FencePlan]:
        self._hosts = hosts
        self._aim()
        if self._group is not None:
            self._group.start_soon(self._resolve_contained, hosts)
        return self.armory.equip(hosts)

    def _targets(self) -> Sequence[Target]:
        return self.addresses.targets(self._hosts)

    def _aim(self) -> None:
        for host in self.addresses.moved(self._hosts):
            self.post(HostReaddressed(host=host))
        self.prober.set_targets([*self.addresses.targets(self._hosts), *self.witnesses.targets()])

    async def _resolve_contained(self, hosts: Sequence[OnedHost]) -> None:
        """A border like `_contained`: names come from people."""
        try:
            if await self.addresses.resolve(hosts):
                self._aim()
        except Exception:  # a border: no name may end the controller
            log.exception("the names of hosts could not be looked up")

    def dispatch(self, effect: Effect) -> None:
        """Start to carry out an effect. Never blocks: each runs in a task of its own and reports by an event."""
        match effect:
            case WatchClosely(host=host, on=on):
                self.prober.watch_closely(host, on)
            case ReadHost():
                self._start(self.recoverer.read_host, effect)
            case ReadPower():
                self._start(self.fencer.read_power, effect)
            case Fence():
                self._start(self.fencer.fence, effect)
            case Drill():
                self._start(self.fencer.drill, effect)
            case RenewOrders():
                self._start(self.fencer.renew, effect)
            case LiftOrders():
                self._start(self.fencer.lift, effect)
            case RestartMonitoring():
                self._start(self.recoverer.restart_monitoring, effect)
            case MarkMaintenance():
                self._start(self.recoverer.mark_maintenance, effect)
            case OrderHost():
                self._start(self.recoverer.order_host, effect)
            case MoveVm() | ResumeVm() | RecoverVm() | LockVm():
                self._start(self.recoverer.order_vm, effect)
            case AskDomains():
                self._start(self.domain_reader.read, effect)
            case Tell():
                self._tell(effect)
            case Explain():
                pass  # the engine has written it into the trail
            case Answer():
                self.commander.answered(effect)
            case _:
                assert_never(effect)

    def _start(self, executor: Callable[..., Awaitable[None]], effect: Effect) -> None:
        if self._group is None:
            raise RuntimeError("effects are dispatched while the controller runs")
        self._group.start_soon(self._contained, executor, effect)

    async def _contained(self, executor: Callable[..., Awaitable[None]], effect: Effect) -> None:
        """The border: a bug in an executor ends one order, which then has an unknown outcome, and nothing else."""
        try:
            await executor(effect)
        except Exception:  # a border: the order has an unknown outcome, the controller goes on
            log.exception("an order ended with an error of ours", effect=type(effect).__name__)

    def _tell(self, effect: Tell) -> None:
        host = self.controller.state.hosts.get(-1 if effect.host is None else effect.host)
        self.notifier.post(
            Message(
                at=self.clock(),
                severity=effect.severity.value,
                host=None if host is None else host.name,
                incident=effect.incident,
                text=effect.text,
                next_step=effect.next_step,
            )
        )

    # --- running ---

    def wrap_journal(self, ledger: Ledger) -> JournalPort:
        """For builds that test crashes: a journal that dies at a chosen moment."""
        return ledger

    async def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Run until cancelled.

        Raises:
            NotLeading: another controller uses the state directory.
            JournalError: the journal cannot be opened, or a record could not be made durable.
            OSError: the socket or the state directory cannot be used.
        """
        state_dir = _made(Path(self.config.state_dir))
        async with AsyncExitStack() as stack:
            self._term = await self._arbiter.acquire()
            if self._term is None:
                raise NotLeading(self._arbiter.refusal)
            stack.push_async_callback(self._arbiter.release, self._term)
            journal = await anyio.to_thread.run_sync(Journal.open, state_dir / "journal.db")
            stack.push_async_callback(journal.close)
            ledger = Ledger(journal)
            incidents, cloud, trusts = await ledger.load()
            self.controller.restore(incidents, cloud, self.clock(), trusts)
            black_box = BlackBox(self.controller, state_dir / "flights", self.clock())
            self.engine = Engine(
                self.controller,
                journal=self.wrap_journal(ledger),
                dispatch=self.dispatch,
                record=black_box.note,
                clock=self.clock,
            )
            await stack.enter_async_context(self.client)
            second_master = SecondMaster(
                client=self.client,
                instance=_instance_id(state_dir),
                acts=lambda: self.config.mode != "observe",
                report=self.post,
            )
            sources = ControllerSources(
                self, journal=journal, ledger=ledger, second_master=second_master, black_box=black_box
            )
            await stack.enter_async_context(HttpApi(Path(self.config.api.socket), sources, self.commander).serve())
            await self._run_parts(second_master, black_box, ready)

    async def _run_parts(self, second_master: SecondMaster, black_box: BlackBox, ready: Callable[[], None]) -> None:
        if self.engine is None:
            raise RuntimeError("the engine is built before its parts run")
        async with anyio.create_task_group() as group:
            self._group = group
            self.post(LeadChanged(term=self._term))
            group.start_soon(self.engine.run)
            group.start_soon(self.notifier.run)
            group.start_soon(self.prober.run)
            group.start_soon(self.recoverer.run_inventory)
            group.start_soon(self.fencer.run_checks)
            group.start_soon(self.witnesses.run)
            if (identifier := self._host_identifier()) is not None:
                group.start_soon(identifier.run)
            group.start_soon(second_master.run)
            group.start_soon(black_box.run)
            group.start_soon(self._keep_lead)
            group.start_soon(self._drill_schedule().run)
            ready()

    def last_round_at(self) -> float:
        """When the decision loop last finished a round."""
        return float("-inf") if self.engine is None else self.engine.last_round_at

    def _drill_schedule(self) -> DrillSchedule:
        async def order(host: int) -> Answer:
            return await self.commander.order(
                Verb.DRILL, who="the drill schedule", reason="overdue", host=host, incident=None
            )

        return DrillSchedule(
            settings=lambda: self.config.drill, state=self.controller.state, clock=self.clock, order=order
        )

    def _host_identifier(self) -> HostIdentifier | None:
        targets, login = self._targets, host_login(self.config)
        return HostIdentifier(login, targets=targets, report=self.post, clock=self.clock) if login else None

    async def _keep_lead(self) -> None:
        """Look again and again whether the lead is still ours; losing it is final for this process."""
        while self._term is not None and await self._arbiter.renew(self._term):  # noqa: ASYNC110 - the kernel tells nobody
            await anyio.sleep(RENEW_EVERY_S)
        self._term = None
        log.critical("the lead is lost: nothing is powered off or moved any more", state_dir=str(self.config.state_dir))
        self.post(LeadChanged(term=None))

    def reconfigure(self, config: Config) -> list[str]:
        """Take over what may change while running; returns the tables of which something needs a restart."""
        before = self.config
        kept: dict[str, object] = {name: getattr(before, name) for name in NEED_RESTART}
        kept["detect"] = config.detect.model_copy(
            update={key: getattr(before.detect, key) for key in DETECT_NEEDS_RESTART}
        )
        kept["guard"] = config.guard.model_copy(update={"self_check": before.guard.self_check})
        now = config.model_copy(update=kept)
        self.config = self.armory.config = now
        self.recoverer.scope = scope(now)
        self.post(SettingsChanged(settings=core_settings(now, self.registry.probes)))
        return [name for name in Config.model_fields if getattr(now, name) != getattr(config, name)]


def _made(state_dir: Path) -> Path:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return state_dir


def _instance_id(state_dir: Path) -> str:
    """Stays the same for a state directory, so that a restart does not look like a rival."""
    path = state_dir / "instance"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text().strip()
