"""Builds one controller from a configuration and runs it until cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import assert_never

import anyio
import anyio.abc
import structlog

from ha_controller import threads
from ha_controller.adapters.commander import Commander
from ha_controller.adapters.domains import DomainReader
from ha_controller.adapters.fencer import Fencer, Looks
from ha_controller.adapters.host_identity import HostIdentifier
from ha_controller.adapters.leftovers import DomainDestroyer
from ha_controller.adapters.notifier import NotifierQueue
from ha_controller.adapters.opennebula import Client, NoAnswer, OnedHost, OpenNebulaError, Unauthenticated
from ha_controller.adapters.plugins import Registry
from ha_controller.adapters.readiness import ReadinessAsker
from ha_controller.adapters.recoverer import AttributeWriter, FencePlan, NameReader, Recoverer
from ha_controller.app.armory import Armory
from ha_controller.app.audit import Audit
from ha_controller.app.black_box import BlackBox
from ha_controller.app.counting import Counting
from ha_controller.app.drills import DrillSchedule
from ha_controller.app.foresight import Foresight
from ha_controller.app.hints import Hints
from ha_controller.app.ledger import Ledger
from ha_controller.app.messages import message_of, sinks
from ha_controller.app.order_login import OrderLogin
from ha_controller.app.outside import Outside
from ha_controller.app.own_place import own_place_of
from ha_controller.app.reloading import Reloader
from ha_controller.app.renewal import LoginRenewal
from ha_controller.app.reserve import reserve_watch
from ha_controller.app.settings import core_settings, host_login, scope
from ha_controller.app.shared_ledger import shared_behind
from ha_controller.app.sources import ControllerSources
from ha_controller.app.standing import StateDirectory, account_of, build_leadership
from ha_controller.app.surroundings import SecondMaster
from ha_controller.app.vantage import controllers_of
from ha_controller.app.watching import Watching
from ha_controller.app.yielding import yielding_of
from ha_controller.config import Config
from ha_controller.config.secret import read_again
from ha_controller.core.controller import Controller
from ha_controller.core.detector import life_since, silence_confirmed, suspicious
from ha_controller.core.effects import (
    Answer,
    AskDomains,
    AskNames,
    AskReady,
    DestroyDomain,
    Drill,
    Effect,
    Explain,
    Fence,
    LiftOrders,
    LockVm,
    MarkMaintenance,
    MoveVm,
    OrderHost,
    PowerOn,
    ReadHost,
    ReadPower,
    RecoverVm,
    RenewOrders,
    RestartMonitoring,
    ResumeVm,
    Tell,
    WatchClosely,
    WriteAttributes,
)
from ha_controller.core.events import Event, SettingsChanged, Verb
from ha_controller.engine import Engine, JournalPort
from ha_controller.lead import Login, OpenNebulaAccount

log = structlog.get_logger(__name__)


class Runtime:
    """One controller: everything that a configuration asks for, wired together."""

    def __init__(self, config: Config, registry: Registry, outside: Outside | None = None) -> None:
        """Builds what needs no I/O."""
        self.config = config
        self.registry = registry
        self.config_path: Path | None = None  #: where it was read, if from a file
        self.reloader = Reloader(self)
        self.outside = outside or Outside()
        self.clock = self.outside.clock
        self.ledger: Ledger | None = None
        self.directory = StateDirectory(Path(config.state_dir), self._last_term)
        account = account_of(config)
        self.leadership = build_leadership(config, registry, self.directory, account, self.post, self.outside.moment)
        self._group: anyio.abc.TaskGroup | None = None
        settings = core_settings(config, registry.probes, self.leadership.arbiter)
        self.controller = Controller(settings, self.clock())
        self.counting = Counting(self.controller.state, self.clock)
        self.counting.equipped([fence.agent for fence in config.fence])
        self.controllers = controllers_of(self)
        self.fencer = self._make_fencer()
        self.armory = Armory(config=config, agents=registry.agents, fencer=self.fencer)
        self.renewal = LoginRenewal(account, lambda: read_again(self.config, "opennebula", "auth"), lambda: self.audit)
        self.order_login = OrderLogin(account, self.leadership, client=lambda: self.client, clock=self.clock)
        self.client = self._make_client(account)
        self.recoverer = self._make_recoverer()
        self.hints = self._make_hints()
        self.attributes = AttributeWriter(
            self.client, may_act=self.leadership.may_act, while_leading=self.leadership.order, clock=self.clock
        )
        self.watching = Watching(
            config,
            registry,
            state=self.controller.state,
            read_power=self.fencer.power_of,
            oned_view=self.recoverer.oned_view,
            post=self.post,
            clock=self.clock,
            counting=self.counting,
        )
        self.domain_reader, self.destroyer, self.readiness_asker = self._make_host_tools()
        self.names = NameReader(self.client, report=self.post)
        self.commander = Commander(self.post)
        self.foresight = Foresight(self)
        self.notifier = NotifierQueue(sinks(config, registry))
        self.engine: Engine | None = None
        self.audit = Audit(lambda: self.ledger, self.clock)

    def _make_client(self, account: OpenNebulaAccount) -> Client:
        timeout_s, way = self.config.opennebula.timeout_s, self.outside.transport
        login, orders, heed = Login(account=account), self.order_login, self._called
        return Client(account.endpoint, login, orders=orders, timeout_s=timeout_s, transport=way, heed=heed)

    def _called(self, method: str, result: str, took_s: float) -> None:
        self.counting.called(method, result, took_s)
        self.renewal.called(method, result)
        self.order_login.called(method, result)

    def _make_fencer(self) -> Fencer:
        looks = Looks(
            shows_life=self._shows_life,
            is_silent=self._is_silent,
            why_not_empty=lambda host: self.recoverer.why_not_empty(host),
        )
        heed, may_act = self.counting.fenced, self.leadership.may_act
        return Fencer(report=self.post, may_act=may_act, clock=self.clock, looks=looks, heed=heed)

    def _make_recoverer(self) -> Recoverer:
        one = self.config.opennebula
        return Recoverer(
            self.client,
            report=self.post,
            may_act=self.leadership.may_act,
            clock=self.clock,
            scope=scope(self.config),
            poll_s=one.poll_s,
            equip=self._equip,
            order_timeout_s=3 * one.timeout_s,
            confirms=self.leadership.arbiter.confirms_orders,
            told=self._told,
        )

    def _make_hints(self) -> Hints:
        return Hints(
            self.config.opennebula.events,
            state=self.controller.state,
            look=self.recoverer.pace.sooner,
            read_host=partial(self._contained, self.recoverer.read_host),
            clock=self.clock,
        )

    def _make_host_tools(self) -> tuple[DomainReader, DomainDestroyer, ReadinessAsker]:
        login, targets = host_login(self.config), self.watching.targets
        destroyer = DomainDestroyer(
            login,
            targets=targets,
            read_vms=self.recoverer.read_vms,
            report=self.post,
            may_act=self.leadership.may_act,
            clock=self.clock,
        )
        return (
            DomainReader(login, targets=targets, report=self.post, clock=self.clock),
            destroyer,
            ReadinessAsker(login, targets=targets, report=self.post, clock=self.clock),
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

    def _last_term(self) -> int:
        return 0 if self.ledger is None else self.ledger.term

    def _equip(self, hosts: Sequence[OnedHost]) -> dict[int, FencePlan]:
        self.watching.aim(hosts)
        if self._group is not None:
            self._group.start_soon(self.watching.resolve)
        return self.armory.equip(hosts)

    def dispatch(self, effect: Effect) -> None:
        """Start to carry out an effect. Never blocks: each runs in a task of its own and reports by an event."""
        match effect:
            case WatchClosely(host=host, on=on):
                self.watching.prober.watch_closely(host, on)
            case ReadHost():
                self.hints.asked(effect)
                self._start(self.recoverer.read_host, effect)
            case ReadPower():
                self._start(self.fencer.read_power, effect)
            case Fence():
                self._start(self.fencer.fence, effect, ends_with_lead=True)
            case Drill():
                self._start(self.fencer.drill, effect)
            case RenewOrders():
                self._start(self.fencer.renew, effect, ends_with_lead=True)
            case PowerOn():
                self._start(self.fencer.power_on, effect, ends_with_lead=True)
            case DestroyDomain():
                self._start(self.destroyer.destroy, effect, ends_with_lead=True)
            case LiftOrders():
                self._start(self.fencer.lift, effect)
            case RestartMonitoring():
                self._start(self.recoverer.restart_monitoring, effect, ends_with_lead=True)
            case MarkMaintenance():
                self._start(self.recoverer.mark_maintenance, effect)
            case OrderHost():
                self._start(self.recoverer.order_host, effect, ends_with_lead=True)
            case MoveVm() | ResumeVm() | RecoverVm() | LockVm():
                self._start(self.recoverer.order_vm, effect, ends_with_lead=True)
            case WriteAttributes():
                self.attributes.put(effect)
            case AskDomains():
                self._start(self.domain_reader.read, effect)
            case AskReady():
                self._start(self.readiness_asker.ask, effect)
            case AskNames():
                self._start(self.names.read, effect)
            case Tell():
                trail = "" if self.ledger is None else str(self.ledger.head.short)
                self.notifier.post(message_of(effect, self.controller.state, self.clock(), trail))
            case Explain():
                pass  # the engine has written it into the trail
            case Answer():
                self.commander.answered(effect)
            case _:
                assert_never(effect)

    def _start(self, executor: Callable[..., Awaitable[None]], effect: Effect, *, ends_with_lead: bool = False) -> None:
        """`ends_with_lead`: not what would leave a host off in the middle of a drill, or cut off for good."""
        if self._group is None:
            raise RuntimeError("effects are dispatched while the controller runs")
        self._group.start_soon(self._while_leading if ends_with_lead else self._contained, executor, effect)

    async def _while_leading(self, executor: Callable[..., Awaitable[None]], effect: Effect) -> None:
        with self.leadership.order():
            await self._contained(executor, effect)

    async def _contained(self, executor: Callable[..., Awaitable[None]], effect: Effect) -> None:
        """The border: a bug in an executor ends one order, which then has an unknown outcome, and nothing else."""
        try:
            await executor(effect)
        except Exception:  # a border: the order has an unknown outcome, the controller goes on
            log.exception("an order ended with an error of ours", effect=type(effect).__name__)

    # --- running ---

    def wrap_journal(self, ledger: Ledger) -> JournalPort:
        """For builds that test crashes: a journal that dies at a chosen moment."""
        return ledger

    async def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Run until cancelled.

        Raises:
            NotLeading: another process uses the state directory.
            JournalError: the journal cannot be opened, or a record could not be made durable.
            OSError: the socket or the state directory cannot be used.
        """
        async with AsyncExitStack() as stack:
            await self.directory.lock()
            stack.push_async_callback(self.directory.unlock)
            state_dir = Path(self.config.state_dir)
            journal = await threads.run_sync(self.outside.open_journal, state_dir / "journal.db")
            stack.push_async_callback(journal.close)
            ledger = self.ledger = Ledger(journal)
            incidents, cloud, trusts = await ledger.load()
            await self.directory.lock()  # again: now the last term is known, which may be another arbiter's
            self.controller.restore(incidents, cloud, self.clock(), trusts)
            self.counting.restored(incidents)
            journal_port = self.counting.timed(self.wrap_journal(ledger))
            black_box = BlackBox(self.controller, state_dir / "flights", self.clock())
            self.engine = Engine(
                self.controller,
                journal=shared_behind(journal_port, ledger, self.leadership, self.post),
                dispatch=self.dispatch,
                record=self.counting.beside(black_box.note),
                clock=self.clock,
            )
            await stack.enter_async_context(self.client)
            second_master = SecondMaster(
                client=self.client,
                instance=self.directory.context.instance,
                acts=lambda: self.config.mode != "observe" and self.leadership.term is not None,
                report=self.post,
                peers=self._peers,
            )
            sources = ControllerSources(
                self, journal=journal, ledger=ledger, second_master=second_master, black_box=black_box
            )
            await stack.enter_async_context(self.outside.door(self.config.api, sources, self.commander))
            await self._run_parts(second_master, black_box, ready)

    async def _run_parts(self, second_master: SecondMaster, black_box: BlackBox, ready: Callable[[], None]) -> None:
        if self.engine is None:
            raise RuntimeError("the engine is built before its parts run")
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self.engine.run)
            group.start_soon(self.notifier.run)
            group.start_soon(self.watching.prober.run)
            group.start_soon(self.recoverer.run_inventory)
            group.start_soon(self.hints.run)
            group.start_soon(self.renewal.run)
            group.start_soon(self.order_login.run)
            group.start_soon(self.attributes.run)
            group.start_soon(self.fencer.run_checks)
            group.start_soon(self.watching.witnesses.run)
            if (identifier := self._host_identifier()) is not None:
                group.start_soon(identifier.run)
            group.start_soon(second_master.run)
            group.start_soon(black_box.run)
            group.start_soon(self.directory.watch, self.leadership.end)
            group.start_soon(self.leadership.run)
            group.start_soon(self.controllers.run)
            group.start_soon(yielding_of(self).run)
            group.start_soon(own_place_of(self).run)
            group.start_soon(self._drill_schedule().run)
            group.start_soon(reserve_watch(self).run)
            ready()

    def last_round_at(self) -> float:
        """When the decision loop last finished a round."""
        return float("-inf") if self.engine is None else self.engine.last_round_at

    def _drill_schedule(self) -> DrillSchedule:
        async def order(host: int) -> Answer:
            return await self.commander.order(
                Verb.DRILL, who="the drill schedule", origin="schedule", reason="overdue", host=host, incident=None
            )

        return DrillSchedule(
            settings=lambda: self.config.drill, state=self.controller.state, clock=self.clock, order=order
        )

    def _host_identifier(self) -> HostIdentifier | None:
        targets, login = self.watching.targets, host_login(self.config)
        return HostIdentifier(login, targets=targets, report=self.post, clock=self.clock) if login else None

    def _peers(self) -> set[str]:
        """Instances that take part in the same election: of them, the arbiter sees to it that one acts."""
        return {member.instance for member in self.leadership.members}

    def take_over(self, config: Config) -> None:
        """Go on with a configuration from `reloading.as_taken_over`."""
        self.renewal.take(config.opennebula.auth)
        self.config = self.armory.config = config
        self.recoverer.scope = scope(config)
        self.post(SettingsChanged(settings=core_settings(config, self.registry.probes, self.leadership.arbiter)))
