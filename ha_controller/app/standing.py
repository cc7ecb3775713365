"""Builds who decides whether we lead: the state directory that is ours alone, the arbiter, and the leadership."""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import structlog

from ha_controller.adapters.arbiter import Leadership, Moment, SingleArbiter, SingleConfig, write_whole
from ha_controller.adapters.plugins import Registry
from ha_controller.config import Config
from ha_controller.core.events import LeadChanged
from ha_controller.core.model import HostState
from ha_controller.core.state import State
from ha_controller.lead import OpenNebulaAccount
from ha_controller.plugin import ArbiterContext, ArbiterUnreachable, NotLeading

log = structlog.get_logger(__name__)

LOOK_AT_LOCK_EVERY_S = 5.0


class StateDirectory:
    """The directory that one controller at a time uses: its lock, its instance id."""

    def __init__(self, path: Path, last_term: Callable[[], int]) -> None:
        """Makes the directory when there is none, and the id with it.

        Raises:
            OSError: it cannot be made or written.
        """
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.context = ArbiterContext(
            name=f"pid {os.getpid()} on {socket.gethostname()}",
            instance=_instance_id(path),
            state_dir=path,
            last_term=last_term,
        )
        self.arbiter = SingleArbiter(SingleConfig(), self.context)
        self.number = 0  #: of this taking; higher than all before

    async def lock(self) -> None:
        """Take it for this process. Again once `last_term` is known: the number grows beyond it.

        Raises:
            NotLeading: another process has it.
            StateDirectoryUnusable: it cannot be locked.
        """
        number = await self.arbiter.acquire()
        if number is None:
            raise NotLeading(self.arbiter.refusal)
        self.number = number

    async def unlock(self) -> None:
        """Give it back, even when cancelled."""
        await self.arbiter.release(self.number)

    async def watch(self, lost: Callable[[str], None]) -> None:
        """Look again and again whether it is still ours; `lost` is told why it is not.

        Raises:
            NotLeading: it is not. The process must end: another one may open the journal that this one writes.
        """
        while True:
            try:
                await self.arbiter.renew(self.number)
            except (NotLeading, ArbiterUnreachable) as error:
                lost(str(error))
                raise NotLeading(f"the state directory is lost: {error}") from error
            await anyio.sleep(LOOK_AT_LOCK_EVERY_S)


def _instance_id(state_dir: Path) -> str:
    """Stays the same for a state directory, so that a restart does not look like a rival, and is nobody else's.

    Raises:
        OSError: it cannot be read or written, or is none.
    """
    path = state_dir / "instance"
    if not path.exists():
        write_whole(path, uuid.uuid4().hex[:12])
    found = path.read_text("utf-8", "replace").strip()
    if not re.fullmatch("[0-9a-f]{12}", found):
        raise OSError(f"{path} holds no id (12 hexadecimal digits). Remove it: this controller gets a new one")
    return found


def account_of(config: Config) -> OpenNebulaAccount:
    """Our account in OpenNebula, as it is configured."""
    one = config.opennebula
    return OpenNebulaAccount(endpoint=one.endpoint, auth=one.auth, orders=one.auth)


def build_leadership(
    config: Config,
    registry: Registry,
    directory: StateDirectory,
    account: OpenNebulaAccount,
    report: Callable[[LeadChanged], None],
    now: Callable[[], Moment] = Moment.now,
) -> Leadership:
    """The leadership for the configured kind of arbiter. From then on, orders go by `account.orders`.

    Raises:
        OSError: a certificate cannot be used.
    """
    if config.leader.kind == SingleArbiter.kind:
        return Leadership(arbiter=directory.arbiter, report=report, now=now)
    chosen = registry.arbiters[config.leader.kind]
    settings = chosen.config_model.model_validate(config.leader.settings)
    context = replace(directory.context, opennebula=account)
    return Leadership(arbiter=chosen(settings, context), report=report, now=now)


def shown(leadership: Leadership) -> dict[str, Any]:
    """Who leads, for `leader show`."""
    arbiter, term = leadership.arbiter, leadership.term
    return {
        "kind": arbiter.kind,
        "name": arbiter.context.name,
        "leads": term is not None,
        "term": term,
        "left_s": None if arbiter.lead_s == float("inf") or term is None else round(leadership.left_s, 1),
        "trouble": "" if term is not None else leadership.ended or leadership.trouble,
        "members": [
            {
                "name": member.name,
                "leads": member.leads,
                "term": member.term,
                "this": _is_ours(leadership, member.instance),
            }
            for member in leadership.members
        ],
        "engine": list(arbiter.engine()),
        "shares_record": arbiter.record is not None,
    }


def _is_ours(leadership: Leadership, instance: str) -> bool:
    return instance == leadership.arbiter.context.instance


def why_no_step_down(leadership: Leadership, state: State, *, force: bool) -> str:
    """Why the lead should not be given away now; empty if it may."""
    if not leadership.arbiter.regains:
        return "There is no other controller that could lead. To stop this one: systemctl stop ha-controller"
    if force:
        return ""
    if not leadership.arbiter.hands_over:
        kind = leadership.arbiter.kind
        return f"With kind {kind} no other controller gets the lead from this one. To step down all the same: --force"
    if all(_is_ours(leadership, member.instance) for member in leadership.members):
        return "No other controller is there to take the lead. To step down all the same: --force"
    under_way = [each.host_name for each in state.incidents.values() if each.state is not HostState.RECOVERED]
    if under_way:
        names = ", ".join(sorted(under_way))
        shares = leadership.arbiter.record is not None
        what = "looks for every order anew before it goes on" if shares else "would leave what is open to a person"
        return f"{names}: the next leader {what}. To step down all the same: --force"
    return ""
