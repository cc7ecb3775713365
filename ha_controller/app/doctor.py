"""Checks of `doctor` that look at this machine and at what would not be protected, each with what to do about it.

Reads only. What cannot be told is told as that (`ok` is None), and nothing here may keep the others waiting.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from ha_controller import threads
from ha_controller.adapters.opennebula import OpenNebulaError

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

Json = Any

FREE_MIN_BYTES, FREE_MIN_SHARE = 256 * 2**20, 0.05
LOOK_MAX_S = 3.0
VMS_MAX_S = 20.0
ONEADMIN_SSH_CONFIG = Path("/var/lib/one/.ssh/config")
SSH_G_TIMEOUT_S = 3.0
NAMES_MAX = 5
FILES_PER_HOST = 4  #: about what the channels have open for each


async def examine(runtime: Runtime) -> list[Json]:
    """All of them."""
    state = runtime.controller.state
    checks = [_sees_hosts(runtime), await disk(Path(runtime.config.state_dir)), await clock(), files(len(state.hosts))]
    if "icmp" in runtime.config.detect.channels:
        checks.append(icmp())
    checks += [own_place(runtime), *_events(runtime)]
    return [*checks, *_unprotected_hosts(runtime), *await _unprotected_vms(runtime)]


def _sees_hosts(runtime: Runtime) -> Json:
    count = len(runtime.controller.state.hosts)
    if count:
        return _check(True, f"hosts: {count} are seen in OpenNebula and in scope")
    why = runtime.controller.state.oned_detail or "this user may see none (USE on HOST/*), or none is in [scope]"
    return _check(False, f"hosts: none is seen: {why}")


async def ssh_timeout(set_s: float) -> Json:
    """How long oned's own ssh takes to give up decides how long the lever takes (seen: 3 s to 127 s)."""
    text = f"oned's ssh time-out is taken as {set_s:g} s (opennebula.ssh_timeout)"
    if not await anyio.Path(ONEADMIN_SSH_CONFIG).exists():
        return {"ok": None, "text": f"{text}; oneadmin's ssh configuration cannot be seen from here"}
    try:
        with anyio.fail_after(SSH_G_TIMEOUT_S):
            done = await anyio.run_process(["ssh", "-G", "-F", str(ONEADMIN_SSH_CONFIG), "host"], check=False)
    except (OSError, TimeoutError) as error:
        return {"ok": None, "text": f"{text}; ssh -G failed: {type(error).__name__}"}
    for line in done.stdout.decode(errors="replace").splitlines():
        name, _, value = line.partition(" ")
        if name == "connecttimeout" and value.isdigit():
            ok = int(value) <= set_s
            return {"ok": ok, "text": f"{text}; oneadmin's ConnectTimeout is {value} s"}
    remedy = "set ConnectTimeout 5 in oneadmin's ssh configuration, or a silent host costs up to 127 s"
    return {"ok": False, "text": f"{text}; {remedy}"}


async def disk(folder: Path) -> Json:
    """Whether the journal has room: a commit that fails ends the controller."""
    try:
        with anyio.fail_after(LOOK_MAX_S):
            usage = await threads.run_sync(shutil.disk_usage, folder, abandon_on_cancel=True)
    except TimeoutError:
        return _check(False, f"disk: {folder} does not answer within {LOOK_MAX_S:g} s. Keep it on a local disk")
    except OSError as error:
        return _check(False, f"disk: {folder}: {error.strerror}")
    text = f"disk: {usage.free // 2**20} MiB free for {folder}"
    if usage.free < FREE_MIN_BYTES:
        return _check(False, f"{text}: make room, without a journal nothing is ever done")
    return _check(None if usage.free < FREE_MIN_SHARE * usage.total else True, text)


async def clock() -> Json:
    """Whether the machine's clock is kept by NTP: times of incidents, tokens and certificates depend on it."""
    cannot = "clock: whether NTP keeps it cannot be told from here"
    try:
        with anyio.fail_after(LOOK_MAX_S):
            words = ["timedatectl", "show", "--property", "NTPSynchronized", "--value"]
            done = await anyio.run_process(words, check=False)
    except (OSError, TimeoutError) as error:
        return _check(None, f"{cannot}: timedatectl: {type(error).__name__}")
    match done.stdout.strip():
        case b"yes":
            return _check(True, "clock: kept by NTP")
        case b"no":
            return _check(False, "clock: no NTP keeps it. Start chrony or systemd-timesyncd")
    return _check(None, f"{cannot}: timedatectl does not say")


def icmp() -> Json:
    """Whether we may ping."""
    for kind, name in ((socket.SOCK_DGRAM, "unprivileged socket"), (socket.SOCK_RAW, "raw socket (CAP_NET_RAW)")):
        try:
            socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP).close()
        except OSError:
            continue
        return _check(True, f"ICMP: {name}")
    group = os.getegid()
    remedy = f'sysctl net.ipv4.ping_group_range="{group} {group}" (packaging/systemd/ha-controller.sysctl)'
    return _check(False, f"ICMP: no right to ping, so the channel icmp tells nothing. Set {remedy}")


def files(hosts: int) -> Json:
    """Whether enough files may be open at once."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = 1024 + FILES_PER_HOST * hosts
    text = f"files: {limit} may be open at once"
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return _check(True, text)
    return _check(False, f"{text}, {hosts} hosts want {wanted}. Set LimitNOFILE= in the unit")


def own_place(runtime: Runtime) -> Json:
    """Whether this controller could power itself off."""
    state = runtime.controller.state
    if not state.own_hosts:
        return _check(None if state.own_hosts is None else True, f"own host: {state.own_place}")
    what = "Should that host die, a fit controller elsewhere gets the lead; without one, a person has to power it off"
    if not state.settings.lead_is_given_away:
        what = "Should that host die, a person has to power it off. Better run it elsewhere"
    return _check(None, f"own host: {state.own_place}. {what}")


def _events(runtime: Runtime) -> list[Json]:
    """Whether oned's events are heard, if they are wanted. Nothing is lost without them but seconds."""
    hints, poll_s = runtime.hints, runtime.config.opennebula.poll_s
    if not hints.address:
        return []
    heard = None if hints.listener is None else hints.listener.heard
    if heard is not None and heard.connected:
        text = f"{heard.hosts} of hosts and {heard.vms} of VMs were heard since the start"
        return [_check(True, f"events: OpenNebula publishes at {hints.address}; {text}")]
    why = "" if heard is None or not heard.trouble else f" ({heard.trouble})"
    text = f"events: nobody publishes at {hints.address}{why}; changes are seen when OpenNebula is read"
    remedy = 'Look at HM_MAD in oned.conf (-p and -b), or set opennebula.events to ""'
    return [_check(None, f"{text}, every {poll_s:g} s. {remedy}")]


def _unprotected_hosts(runtime: Runtime) -> list[Json]:
    """Hosts that nothing is done for, by why; those without a device have a line of their own elsewhere."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for host in runtime.controller.state.hosts.values():
        if host.excluded:
            by_reason[host.excluded].append(host.name)
    return [
        _check(None, f"hosts out of our hands: {_some(names)}: {reason}") for reason, names in sorted(by_reason.items())
    ]


async def _unprotected_vms(runtime: Runtime) -> list[Json]:
    """VMs that would be left alone if their host failed, by why."""
    try:
        with anyio.fail_after(VMS_MAX_S):
            count, left = await runtime.foresight.left_alone()
    except OpenNebulaError as error:
        return [_check(None, f"VMs: which are protected cannot be told: {error}")]
    except TimeoutError:
        return [_check(None, f"VMs: which are protected was not found out within {VMS_MAX_S:g} s")]
    alone = sum(map(len, left.values()))
    text = f"VMs: {count - alone} of {count} would be recovered, room provided. See: ha-controller vms"
    return [
        _check(True if not alone else None, text),
        *(
            _check(None, f"{len(names)} VMs would be left alone ({_some(names)}): {why}")
            for why, names in sorted(left.items())
        ),
    ]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return f"{', '.join(names[:NAMES_MAX])}{more}"


def _check(ok: bool | None, text: str) -> Json:
    return {"ok": ok, "text": text}
