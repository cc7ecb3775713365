"""The commands that need the whole program: `serve`, `check-config`, `plugins list`, `simulate replay`."""

from __future__ import annotations

import gc
import os
import pwd
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click
import structlog

from ha_controller import __version__
from ha_controller.adapters.journal import JournalError
from ha_controller.adapters.journal_schema import NewerJournal
from ha_controller.adapters.plugins import PluginConflict, Registry, find_plugins
from ha_controller.app.loading import load_config
from ha_controller.app.logs import set_up_logging
from ha_controller.app.runtime import Runtime
from ha_controller.app.service_manager import ServiceManager
from ha_controller.app.settings import core_settings
from ha_controller.app.wakeful import wakeful_loop
from ha_controller.app.warming import warm_up
from ha_controller.config import Config, ConfigError, describe
from ha_controller.core.settings import Settings
from ha_controller.flight import replay as flight
from ha_controller.flight.text import BadRecord, read
from ha_controller.flight.verdict import compared
from ha_controller.plugin import NotLeading

__all__ = [
    "BadRecord",
    "check_config",
    "list_plugins",
    "load_config",
    "replay",
    "serve",
    "state_dir_of",
]

log = structlog.get_logger(__name__)

OK, FAILED, CONFIG_ERROR = 0, 1, 78
NOTE_TIMEOUT_S = 2.0

#: what an operator can mend; anything else is a bug and shows its traceback
EXPECTED = (NotLeading, JournalError, OSError)


def _or_say(path: Path) -> tuple[Config, Registry] | None:
    try:
        return load_config(path)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        click.echo(f"{count} error{'s' if count != 1 else ''} in the configuration.", err=True)
    except PluginConflict as error:
        click.echo(str(error), err=True)
    return None


def check_config(path: Path, *, origin: bool) -> int:
    """Check the configuration and say what is wrong, all at once."""
    loaded = _or_say(path)
    if loaded is None:
        return CONFIG_ERROR
    config, _ = loaded
    if origin:
        for name, value, where in describe(config):
            click.echo(f"{name} = {value}    # {where}")
    click.echo(f"{path} is good. Mode {config.mode}, {len(config.fence)} fence devices.", err=True)
    return OK


def list_plugins() -> list[dict[str, Any]]:
    """What is installed."""
    return [
        {
            "name": plugin.name,
            "kinds": list(plugin.kinds),
            "distribution": plugin.distribution,
            "version": plugin.version,
            "error": plugin.error or "",
        }
        for plugin in find_plugins().plugins
    ]


def replay(lines: Iterable[str], config_path: Path | None) -> dict[str, Any] | None:
    """What would be decided about a flight record with a configuration, or with the settings of then.

    None: the configuration is bad, and was told so.

    Raises:
        BadRecord: the lines are no record that can be read here.
    """
    record, settings = read(lines), None
    if config_path is not None:
        loaded = _or_say(config_path)
        if loaded is None:
            return None
        config, registry = loaded
        settings = core_settings(config, registry.probes)
    return compared(record, flight.replay(record, settings), settings)


def settings_of(path: Path) -> Settings | None:
    """What the core would be given of a configuration. None: it is bad, and was told so."""
    loaded = _or_say(path)
    return None if loaded is None else core_settings(loaded[0], loaded[1].probes)


def state_dir_of(path: Path) -> Path | None:
    """The state directory of a configuration. None: it is bad, and was told so."""
    loaded = _or_say(path)
    return None if loaded is None else Path(loaded[0].state_dir)


def serve(path: Path) -> int:
    """Run the controller until SIGTERM or SIGINT; SIGHUP re-reads the configuration."""
    loaded = _or_say(path)
    if loaded is None:
        return CONFIG_ERROR
    config, registry = loaded
    set_up_logging(level=config.log.level, format_name=config.log.format)
    _raise_file_limit()
    try:
        runtime = Runtime(config, registry)
        runtime.config_path = path
        loop = partial(wakeful_loop, runtime.leadership.lapse)
        return anyio.run(_run, runtime, backend_options={"loop_factory": loop})
    except BaseExceptionGroup as group:  # what is expected is told in words, a bug keeps its traceback
        expected, bugs = group.split(EXPECTED)
        if bugs is not None:
            raise
        return _cannot_run(_first(expected))
    except EXPECTED as error:
        return _cannot_run(error)


def _cannot_run(error: BaseException | None) -> int:
    """Say why. What does not get better by starting again ends like a bad configuration: systemd leaves it at that."""
    click.echo(f"ha-controller cannot run: {error}", err=True)
    return CONFIG_ERROR if isinstance(error, NewerJournal) else FAILED


def _first(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(runtime: Runtime) -> int:
    manager = ServiceManager()
    async with anyio.create_task_group() as group:

        def stop() -> None:
            manager.stopping()
            group.cancel_scope.cancel()

        def ready() -> None:
            gc.freeze()  # what was built at the start stays; collections need not look at it again
            log.info("ready", mode=runtime.config.mode, api=str(runtime.config.api.socket))
            manager.ready()
            group.start_soon(manager.feed, runtime.last_round_at)
            group.start_soon(warm_up)
            group.start_soon(_note, runtime, "start", f"version {__version__}, mode {runtime.config.mode}")

        group.start_soon(_obey_signals, stop, runtime)
        await runtime.run(ready=ready)
        group.cancel_scope.cancel()
    log.info("ended")
    return OK


async def _obey_signals(stop: Callable[[], None], runtime: Runtime) -> None:
    async with anyio.create_task_group() as reloads:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number != signal.SIGHUP:
                    log.info("stopping", signal=signal.Signals(number).name)
                    await _note(runtime, "stop", signal.Signals(number).name)
                    stop()
                    return
                reloads.start_soon(_reload, runtime)  # beside it: secrets may take their time, and a stop none


async def _reload(runtime: Runtime) -> None:
    """One at a time, each within its deadline."""
    try:
        await runtime.reloader.reload(who=_own_name(), origin=_own_origin())
    except TimeoutError:
        log.error("the configuration could not be read in time; the old one stays in force")


async def _note(runtime: Runtime, what: str, result: str, code: int = 0) -> None:
    """Put what the service manager, or whoever may send signals, did on the audit trail."""
    who, origin = _own_name(), _own_origin()
    with anyio.move_on_after(NOTE_TIMEOUT_S):  # a disk that hangs keeps nobody from stopping
        await runtime.audit.note(who=who, origin=origin, what=what, code=code, result=result)


def _raise_file_limit() -> None:
    """Each TCP channel may have two thousand sockets open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 4096:
        click.echo(f"only {hard} files may be open; more than {hard // 4} hosts need a higher limit", file=sys.stderr)


def _own_origin() -> str:
    return f"service manager or signal, pid {os.getpid()}"


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
