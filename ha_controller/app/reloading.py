"""`reload`: the configuration is read again and checked as a whole; what may change in a running controller is taken
over, and the rest is told (docs/decisions/0016-what-a-reload-takes-over.md). A bad one changes nothing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from ha_controller import threads
from ha_controller.adapters.plugins import PluginConflict
from ha_controller.app.loading import load_config
from ha_controller.config import Config, ConfigError, differences, in_force

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

log = structlog.get_logger(__name__)

Json = Any
SCHEMA = "ha-controller/v1"
GOOD, NEEDS_RESTART, NOT_DONE, BAD = 0, 1, 1, 78
READ_MAX_S = 60.0  #: secrets may come from commands
NOTE_MAX_S = 2.0
#: what a running controller does not take over from a new configuration
NEED_RESTART = ("opennebula", "state_dir", "api", "leader", "channel", "identity", "notify", "log", "controller")
MODES = ("observe", "approve", "auto")  #: each may do more than the one before
DETECT_NEEDS_RESTART = ("channels", "interval_s", "confirm_interval_s")
RESTART = "systemctl restart ha-controller (open incidents go on from the journal)"


def shown(runtime: Runtime) -> Json:
    """The settings in force, each with where it comes from; secrets are masked."""
    path = runtime.config_path
    values = [{"name": each.name, "value": each.value, "origin": each.origin} for each in in_force(runtime.config)]
    return {"schema": SCHEMA, "path": None if path is None else str(path), "values": values}


def as_taken_over(runtime: Runtime, config: Config) -> Config:
    """A configuration as it can be in force without a restart: what cannot change in a running controller stays.

    Fence devices of a kind that was installed meanwhile need a restart, too: a host must not lose its devices. And so
    does a mode that may do more, with witnesses where there were none: it is not meant to act without them.
    """
    before = runtime.config
    kept: dict[str, object] = {name: getattr(before, name) for name in NEED_RESTART}
    kept["opennebula"] = before.opennebula.model_copy(update={"auth": config.opennebula.auth})
    kept["detect"] = config.detect.model_copy(update={key: getattr(before.detect, key) for key in DETECT_NEEDS_RESTART})
    kept["guard"] = config.guard.model_copy(update={"self_check": before.guard.self_check})
    if any(device.agent not in runtime.registry.agents for device in config.fence):
        kept["fence"] = before.fence
    lacks_witnesses = bool(config.guard.self_check) and not before.guard.self_check
    if lacks_witnesses and MODES.index(config.mode) > MODES.index(before.mode):
        kept["mode"] = before.mode
    return config.with_kept(kept, before)


class Reloader:
    """Reads the configuration again, one reading at a time."""

    def __init__(self, runtime: Runtime) -> None:
        """The runtime knows its file."""
        self._runtime = runtime
        self._one = anyio.Lock()
        self._reader = anyio.CapacityLimiter(1)

    async def reload(self, *, who: str, origin: str, reason: str = "", dry_run: bool = False) -> Json:
        """Take over what may be; with `dry_run` only say what that would be. It is on record before it is done.

        Raises:
            TimeoutError: the configuration could not be read in time; nothing was changed.
        """
        path = self._runtime.config_path
        if path is None:
            return _answer(NEEDS_RESTART, "This controller was not started from a file.")
        async with self._one:
            answer, after = await self._judged(path, dry_run=dry_run)
            if dry_run:
                return answer
            what = {"who": who, "origin": origin, "reason": reason, "result": answer["text"]}
            noted = await self._noted(code=BAD if after is None else 0, **what)
            if after is None:
                return answer
            if not noted:
                log.error("the reload could not be put on record; the old configuration stays in force", who=who)
                return _answer(NOT_DONE, "It could not be put on record, so nothing was taken over. See: doctor")
            self._runtime.take_over(after)
            log.info("the configuration was read again", mode=after.mode, result=answer["text"])
            return answer

    async def _noted(self, *, code: int, who: str, origin: str, reason: str, result: str) -> bool:
        """Whether it is on record. A disk that hangs keeps nobody from stopping."""
        with anyio.move_on_after(NOTE_MAX_S):
            return await self._runtime.audit.note(
                who=who, origin=origin, what="reload", reason=reason, code=code, result=result
            )
        return False

    async def _judged(self, path: Path, *, dry_run: bool) -> tuple[Json, Config | None]:
        """The answer, and what would be in force; None: it is bad."""
        counting = self._runtime.counting
        try:
            with anyio.fail_after(READ_MAX_S):
                config, registry = await threads.run_sync(
                    partial(load_config, path), limiter=self._reader, abandon_on_cancel=True
                )
        except (ConfigError, PluginConflict) as error:
            problems = [str(each) for each in error.problems] if isinstance(error, ConfigError) else [str(error)]
            counting.config_is_bad = True
            log.error("the configuration is bad; the old one stays in force", problems=problems)
            count = f"{len(problems)} error{'s' if len(problems) != 1 else ''}"
            text = f"The configuration is bad ({count}); the one before stays in force."
            return _answer(BAD, text, problems=problems), None
        counting.config_is_bad = False
        for kind, agent in registry.agents.items():  # installed then, too, and not named until now
            self._runtime.registry.agents.setdefault(kind, agent)
        before, after = self._runtime.config, as_taken_over(self._runtime, config)
        waits = {each.name for each in differences(after, config)}
        changes = [
            {"name": each.name, "before": each.before, "after": each.after, "needs_restart": each.name in waits}
            for each in differences(before, config)
        ]
        answer = _answer(NEEDS_RESTART if waits else GOOD, _said(changes, dry_run=dry_run), changes=changes)
        return answer, after


def _said(changes: list[Json], *, dry_run: bool) -> str:
    if not changes:
        return "Nothing differs from what is in force."
    waiting = [each["name"] for each in changes if each["needs_restart"]]
    taken = len(changes) - len(waiting)
    verb = "would be taken over" if dry_run else "in force now"
    text = f"{taken} of {len(changes)} changes {verb}."
    return f"{text} Not without a restart: {', '.join(waiting)}. Then: {RESTART}" if waiting else text


def _answer(code: int, text: str, *, problems: list[str] | None = None, changes: list[Json] | None = None) -> Json:
    return {"schema": SCHEMA, "code": code, "text": text, "problems": problems or [], "changes": changes or []}
