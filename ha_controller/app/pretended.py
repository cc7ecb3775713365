"""Builds the whole controller for the simulator: the production `Runtime` and everything in it, on a pretended machine.

What is pretended is at its edges: clocks, threads, the disk below the journal, the way to OpenNebula, the plugins. What
leaves and what is reported passes the simulator's checkers. Nothing here is used when a controller serves.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar, cast

import structlog

from ha_controller.adapters.arbiter import Moment
from ha_controller.adapters.journal import Journal
from ha_controller.adapters.opennebula import NoAnswer
from ha_controller.adapters.plugins import Registry
from ha_controller.adapters.prober.bmc import BmcProbe
from ha_controller.adapters.prober.oned import OnedProbe
from ha_controller.app.commands import EXPECTED
from ha_controller.app.ledger import Ledger
from ha_controller.app.outside import Outside
from ha_controller.app.pretended_peers import Others, etcd_arbiter_of, name_instance, peers_configured, way_from
from ha_controller.app.pretended_zone import zone_arbiter_of
from ha_controller.app.reloading import as_taken_over
from ha_controller.app.runtime import Runtime
from ha_controller.config import Config
from ha_controller.core.controller import Decision
from ha_controller.core.effects import Answer, Effect, Order, Tell
from ha_controller.core.events import Event
from ha_controller.engine import Commit, JournalPort
from ha_controller.sim.core_level.campaign import Tally, Task, tally
from ha_controller.sim.core_level.faults import Rates
from ha_controller.sim.core_level.judge import Violation
from ha_controller.sim.core_level.layout import Layout
from ha_controller.sim.engine_level.agents import PASSWORD, agents_of
from ha_controller.sim.engine_level.channels import channels_of
from ha_controller.sim.engine_level.election import arbiters_of
from ha_controller.sim.engine_level.front_end import SESSION, ConnectionRefused, Disk
from ha_controller.sim.engine_level.process import Killed, Life
from ha_controller.sim.engine_level.world import GATEWAY, World
from ha_controller.sim.engine_level.zone_front_ends import ENDPOINTS

QUICK_FOLDER = Path("/dev/shm")  #: if there is one: the pretended disk is slow enough


def run(
    seed: int,
    hosts: int,
    hours: float,
    rates: Rates,
    *,
    controllers: int | None = None,
    lead: str = "etcd",
    healing: bool = True,
    trace: bool = False,
) -> tuple[World, Sequence[Violation]]:
    """Let one seed live through its hours; returns the world after its end, and what went wrong."""
    with world(seed, hosts, rates, controllers=controllers, lead=lead, trace=trace) as made:
        found = made.run(hours, healing=healing)
    return made, found


@contextmanager
def world(
    seed: int, hosts: int, rates: Rates, *, controllers: int | None = None, lead: str = "etcd", trace: bool = False
) -> Iterator[World]:
    """A cloud with whole controllers that have just started, and a place for their state."""
    place = QUICK_FOLDER if QUICK_FOLDER.is_dir() else None
    before = structlog.get_config()
    with tempfile.TemporaryDirectory(prefix="ha-controller-simulate-", dir=place) as folder:

        def assemble(life: Life) -> PretendedRuntime:
            return PretendedRuntime(life, Path(folder) / life.process.name)

        try:
            made = World(seed, hosts, rates, assemble, controllers=controllers, lead=lead, trace=trace, folder=folder)
            structlog.configure(processors=[lambda _, __, line: _heard(made, line)])
            yield made
        finally:
            structlog.configure(**before)


def part(task: Task) -> Tally:
    """Run one seed of a campaign."""
    return tally(task, *_run(task))


def trace(task: Task) -> list[str]:
    """The story of one seed."""
    return _run(task, trace=True)[0].trace or []


def _run(task: Task, *, trace: bool = False) -> tuple[World, Sequence[Violation]]:
    return run(
        task.seed, task.hosts, task.hours, task.rates,
        controllers=task.controllers, lead=task.lead, healing=task.healing, trace=trace,
    )  # fmt: skip


def _heard(heard_in: World, line: Any) -> Any:
    """The log is read by people, and by nobody else."""
    if heard_in.violation is None:
        with heard_in.judged():
            heard_in.judge.said_aloud(f"{line} {line.get('exc_info') or ''}")
    if heard_in.trace is not None:
        heard_in.story(f"LOG {', '.join(f'{name}={value}' for name, value in line.items())}")
    raise structlog.DropEvent


def configuration(
    layout: Layout, folder: Path, reloads: int, others: Others = None, front_end: str | None = None
) -> Config:
    """What a person would have written for this cloud. `others`: the names of other controllers; None: it is alone.

    `front_end`: the one beside this controller, where several lead by OpenNebula.
    """
    drawn = layout.settings
    fences: dict[tuple[str, int], list[str]] = {}
    for host, levels in enumerate(layout.levels):
        for level, devices in enumerate(levels, start=1):
            for device in devices:
                fences.setdefault((device.name, level), []).append(f"kvm-{host:02}")
    return Config.model_validate(
        {
            "mode": "auto",
            "state_dir": str(folder / "state"),
            "opennebula": {"auth": SESSION, "ssh_timeout": f"{drawn.ssh_timeout_s:g}s"}
            | ({} if front_end is None else {"endpoint": front_end}),
            "detect": {
                "channels": [channel.name for channel in drawn.channels],
                "fail_after": "12s" if reloads % 2 else "10s",
            },
            "guard": {
                "settle": f"{drawn.settle_s:g}s",
                "max_failed_hosts": f"{drawn.max_failed_share:.0%}",
                "max_fences": {"count": drawn.fences_max + reloads % 2},
                "max_fences_per_day": drawn.fences_per_day_max,
                "quarantine": {"count": drawn.quarantine_after},
                "self_check": [GATEWAY],
            },
            "fence": [
                {
                    "name": name, "agent": name, "level": level, "hosts": hosts, "host": "{FENCE_HOST}",
                    "device": name, "password": PASSWORD, "identity": "unproven" if name == "bmc" else "noted",
                }
                for (name, level), hosts in sorted(fences.items())
            ],
            "recover": {"parallel": drawn.moves_parallel},
            **peers_configured(others, "etcd" if front_end is None else "opennebula"),
            "api": {"socket": str(folder / "socket")},
        }
    )  # fmt: skip


def plugins_of(life: Life) -> Registry:
    """What a life of the controller finds installed."""
    probes: dict[str, Any] = {**channels_of(life), "bmc": BmcProbe, "oned": OnedProbe}
    arbiters = {**arbiters_of(life), **etcd_arbiter_of(life), **zone_arbiter_of(life)}
    return Registry(agents=agents_of(life), probes=probes, arbiters=arbiters, notifiers={}, plugins=())


class _Way:
    """To the embedded OpenNebula."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def exchange(self, method: str, body: bytes, take: Callable[[bytes], None]) -> None:
        """One call."""
        try:
            answer = await self._life.world.front_end.call(self._life, method, body)
        except ConnectionRefused:
            raise NoAnswer(method, "cannot connect: refused", sent=False) from None
        take(answer)


class _FullDisk:
    """In place of the connection to a file that cannot be written any more."""

    def execute(self, *_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def close(self) -> None:
        """Nothing to close."""


class PretendedJournal(Journal):
    """The journal with its real file, and a writer that takes its time on a pretended disk instead of a thread."""

    life: ClassVar[Life]
    pending: Decision = Decision()  #: what the commit that is handed over next is about

    def _begin(self) -> None:
        self._disk, self._file = Disk(self.life), self._connection

    def _hand_over(self, commit: Any) -> None:
        decision = self.pending
        orders = any(row[1] == "intent" for row in commit.rows)
        self._disk.write(lambda: self._written(commit, decision), lambda: self._spoilt(commit), has_orders=orders)

    def _written(self, commit: Any, decision: Decision) -> bool:
        self._write([commit])
        if self._failure is None:
            with self.life.world.judged():
                self.life.process.record.write([decision])
                self.life.world.judge.recorded(self.life.process, [decision])
        return self._failure is None

    def _spoilt(self, commit: Any) -> None:
        self._connection = cast(Any, _FullDisk())
        self._write([commit])

    async def close(self) -> None:
        """Close the file."""
        self._closed = True
        self.release()

    def release(self) -> None:
        """As the kernel does when the process is gone."""
        self._file.close()


class _Recorder:
    """Remembers what a commit is about, until it is on disk."""

    def __init__(self, ledger: Ledger, journal: Callable[[], PretendedJournal]) -> None:
        self._ledger, self._journal = ledger, journal

    async def commit(self, commit: Commit) -> None:
        """Make it durable, by the real ledger."""
        self._journal().pending = Decision(
            incidents=tuple(commit.incidents), cloud=commit.cloud, trusts=tuple(commit.trusts), term=commit.term
        )
        await self._ledger.commit(commit)


class PretendedRuntime(Runtime):
    """The production controller. What leaves it and what comes back is shown to the checkers."""

    def __init__(self, life: Life, folder: Path) -> None:
        """Builds it for one life."""
        self.life, self._folder = life, folder
        self._journal: PretendedJournal | None = None
        world = life.world
        registry = plugins_of(life)
        config = self._configured()
        name_instance(Path(config.state_dir), life.process.index)
        outside = Outside(
            clock=life.process.clock,
            moment=lambda: Moment(monotonic=world.now, boot=world.now, wall=world.wall(world.now)),
            transport=_Way(life),
            open_journal=self._open_journal,
            door=lambda path, sources, commander: nullcontext(),
            way_to_others=way_from(life),
        )
        super().__init__(config, registry, outside)
        life.process.settings = self.controller.state.settings

    def _open_journal(self, path: Path) -> Journal:
        kind: Any = type("LifesJournal", (PretendedJournal,), {"life": self.life})
        self._journal = cast(PretendedJournal, kind.open(path))
        return self._journal

    # --- for the process ---

    def lapse(self) -> None:
        """The loop has woken."""
        self.leadership.lapse()

    def reload(self) -> None:
        """The configuration is read again."""
        self.take_over(as_taken_over(self, self._configured()))

    def _configured(self) -> Config:
        world = self.life.world
        others = [each.name for each in world.controllers if each is not self.life.process] if world.shares else None
        front_end = None if world.zone is None else ENDPOINTS[self.life.process.index]
        return configuration(world.layout, self._folder, world.reloads, others, front_end)

    def release(self) -> None:
        """The kernel takes back locks and open files."""
        if self._journal is not None:
            self._journal.release()
        with suppress(StopIteration):
            self.directory.unlock().send(None)  # it waits for nothing

    def is_expected(self, error: BaseException) -> bool:
        """As `serve` has it."""
        if isinstance(error, BaseExceptionGroup):
            return error.split(EXPECTED)[1] is None
        return isinstance(error, EXPECTED)

    # --- for the checkers ---

    def wrap_journal(self, ledger: Ledger) -> JournalPort:
        """What was read from the disk is what was written there."""
        record, world = self.life.process.record, self.life.world
        read = {each.id: (each.host, each.state) for each in self.controller.state.incidents.values()}
        known = {each.id: (each.host, each.state) for each in record.incidents.values() if each.open}
        with world.judged():
            if read != known:
                raise Violation("D1", f"the journal holds {read}, and written was {known}")

        def journal() -> PretendedJournal:
            if self._journal is None:
                raise RuntimeError("the journal is open before anything is written")
            return self._journal

        return _Recorder(ledger, journal)

    def post(self, event: Event) -> None:
        """Somebody reports."""
        if self.life.alive:
            with self.life.world.judged():
                self.life.world.judge.told(self.life.process, event)
        super().post(event)

    def dispatch(self, effect: Effect) -> None:
        """An effect leaves."""
        world, trouble = self.life.world, self.life.world.trouble
        self.life.here()
        if self.life.alive:
            with world.judged():
                world.judge.leaves(self.life.process, effect)
        if isinstance(effect, Answer):
            world.people.answered(effect)
        if isinstance(effect, Tell) and self.life.alive:
            with world.judged():
                world.judge.told_people(effect)
        super().dispatch(effect)
        if self.life.alive and isinstance(effect, Order) and trouble.strikes("crash-after-order"):
            self.life.process.kill(trouble.down_s(), "an order has just been given to its executor")
            raise Killed

    async def _contained(self, executor: Callable[..., Awaitable[None]], effect: Effect) -> None:
        world = self.life.world
        world.begins(self.life.process, effect)
        try:
            await super()._contained(executor, effect)
        finally:
            if self.life.alive:
                world.ends(self.life.process, effect)
