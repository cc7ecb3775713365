"""Which hosts are ours, and what people and we write on them in OpenNebula."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from ha_controller.adapters.opennebula import OnedHost
from ha_controller.core.model import Identity, OnedHostState

MARK = "HA_STATE"  #: host attribute: DISABLED by us
FENCED = "FENCED"  #: and the number of the incident
RESTARTING = "RESTARTING MONITORING"  #: and when
RESIDUE_S = 120.0  #: a host that is OFFLINE for longer is so because somebody wants it
IGNORE = "HA_IGNORE"  #: host attribute: hands off; "YES", or "until 2026-11-28T04:00:00+00:00"
IGNORE_REASON = "HA_IGNORE_REASON"
DRILL = "HA_DRILL"  #: host attribute: "YES" = in maintenance and empty it may be drilled by itself
UNTIL = "until "
POLICY = "HA_POLICY"  #: VM attribute: "leave" = never move it
UUID, SERIAL = "HA_UUID", "HA_SERIAL"  #: host attributes: which machine it is, as the operator noted it


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which hosts the controller is responsible for: names, ids or globs."""

    clusters: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    places: tuple[str, ...] = ()  #: attributes of a host that name what it shares with others

    def places_of(self, host: OnedHost) -> tuple[tuple[str, str], ...]:
        """What the host shares with others."""
        return tuple((name, host.template[name]) for name in self.places if host.template.get(name))

    def why_excluded(self, host: OnedHost, now: float) -> str:
        """Why a host is none of our business; empty if it is."""
        if not _ignored(host, now):
            return self._why_not_ours(host)
        reason = host.template.get(IGNORE_REASON, "")
        return f"{IGNORE}={host.template[IGNORE]} on the host in OpenNebula{f' ({reason})' if reason else ''}"

    def in_maintenance(self, host: OnedHost, now: float) -> bool:
        """Whether a host is ours, and a person works on it."""
        return _ignored(host, now) and not self._why_not_ours(host)

    def _why_not_ours(self, host: OnedHost) -> str:
        if not _matches(self.clusters, host.cluster, host.cluster_id):
            return f"its cluster {host.cluster} is not in scope.clusters"
        if _matches(self.exclude, host.name, host.id):
            return "listed in scope.exclude"
        return ""


def _ignored(host: OnedHost, now: float) -> bool:
    """Whatever is written there, except a plain no and a time that has passed: a typing error must not get it shot."""
    written = host.template.get(IGNORE, "").strip()
    if written.startswith(UNTIL):
        try:
            return now < datetime.fromisoformat(written.removeprefix(UNTIL)).timestamp()
        except ValueError:
            return True
    return written.upper() not in ("", "NO", "FALSE", "0")


def _matches(patterns: Collection[str], name: str, number: int) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) or pattern == str(number) for pattern in patterns)


def zombies_of(host: OnedHost) -> tuple[int, ...]:
    """The VMs that OpenNebula's monitoring finds on a host although it has them elsewhere: ids, or names of domains."""
    ids = (name.removeprefix("one-") for name in host.zombies)
    return tuple(sorted({int(each) for each in ids if re.fullmatch("[0-9]{1,10}", each)}))


def noted_identity(host: OnedHost) -> Identity | None:
    """What the operator wrote on the host."""
    noted = Identity(system_uuid=host.template.get(UUID) or None, serial=host.template.get(SERIAL) or None)
    return noted if noted.system_uuid or noted.serial else None


def is_restarting(host: OnedHost) -> bool:
    """Whether a crash or a lost answer left it in the middle of `RestartMonitoring`."""
    return host.template.get(MARK, "").startswith(RESTARTING)


def left_offline_by_us(host: OnedHost, now: float) -> bool:
    """Whether it is OFFLINE because of that, and not because a person took it out since."""
    written = host.template.get(MARK, "").removeprefix(RESTARTING).strip()
    try:
        marked_at = datetime.fromisoformat(written).timestamp()
    except ValueError:
        return False
    return host.state == OnedHostState.OFFLINE and is_restarting(host) and now - marked_at < RESIDUE_S
