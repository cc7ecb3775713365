#!/usr/bin/env python3
"""Runs on a host: feeds its hardware watchdog only while it can renew its lease on the shared datastore.

The lease is a small file that this program writes, once a second, with a counter that grows; beside it lies a file of
orders that the controller writes. When the order says "revoked", when the lease cannot be written, or when that takes
longer than the lease lasts, the watchdog is not fed, and resets the host.

It must never feed without a lease that was just renewed, and never disarm the watchdog without having said so in the
lease. Both files are written in place: network file systems show a new content to whoever opens the file anew, but may
hide a renamed or removed file for a minute.

Needs Python 3.9 or newer and nothing else, so that this one file can be copied to a host. Source of the device's
interface: the kernel's Documentation/watchdog/watchdog-api.rst and include/uapi/linux/watchdog.h.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Protocol  # noqa: UP035 - for Python 3.9

BYTES = 512  #: size of both files: one write
RENEW_EVERY_S = 1.0
REVOKED = "revoked"
SYSTEMD_ANSWERS_S = 3.0
_GET_SUPPORT, _SET_TIMEOUT = 0x80285700, 0xC0045706
_MAGIC_CLOSE = 0x0100  #: WDIOF_MAGICCLOSE: closing without the magic letter leaves it armed
#: A lease on one of these is nobody else's: the datastore is not mounted.
_LOCAL_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "ramfs"})
_DISARM = b"V"  #: "magic close"


class Watchdog(Protocol):
    """What resets the host."""

    identity: str  #: as the driver names itself
    timeout_s: int  #: as the driver confirmed it

    def feed(self) -> None:
        """Start the time anew."""

    def disarm(self) -> None:
        """Let the host live without it."""


class KernelWatchdog:
    """A watchdog device of Linux; open is armed."""

    def __init__(self, path: str, timeout_s: int) -> None:
        """Arm it. Raises OSError when it is busy, not there, or cannot do what is needed; then it is not armed."""
        self._device = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            support = fcntl.ioctl(self._device, _GET_SUPPORT, bytes(40))  # options, firmware version, identity
            [options] = struct.unpack("I", support[:4])
            if not options & _MAGIC_CLOSE:
                raise OSError(f"{path} stops when its owner is killed, so it proves nothing")
            given = fcntl.ioctl(self._device, _SET_TIMEOUT, struct.pack("i", timeout_s))
        except OSError:
            self.disarm()  # or it would reset a healthy host
            raise
        self.identity = support[8:].split(b"\0")[0].decode("ascii", "replace")
        [self.timeout_s] = struct.unpack("i", given)

    def feed(self) -> None:
        """Start the time anew."""
        os.write(self._device, b"\0")

    def disarm(self) -> None:
        """Let the host live without it, where the driver allows that (nowayout)."""
        os.write(self._device, _DISARM)
        os.close(self._device)


class NoWatchdog:
    """For a host that writes its heartbeat and nothing more: nothing resets it, and the lease says so."""

    identity, timeout_s = "none", 0

    def feed(self) -> None:
        """Nothing to feed."""

    def disarm(self) -> None:
        """Nothing to disarm."""


class Lease:
    """The two files of one host."""

    def __init__(self, folder: Path, name: str, lease_s: float) -> None:
        """Nothing is read or written yet."""
        self.path, self.orders = folder / f"{name}.lease", folder / f"{name}.order"
        run_id = os.urandom(8).hex()  # a counter that begins anew is not taken for an old one
        self._words: dict[str, Any] = {
            "host": name, "boot_id": boot_id(), "run_id": run_id, "lease_s": lease_s, "counter": 0, "up_s": 0.0,
        }  # fmt: skip
        self._handle = -1

    def is_revoked(self) -> bool:
        """Whether the controller wants this host to end. Raises OSError when that cannot be read."""
        try:
            return self.orders.read_text().strip() == REVOKED
        except FileNotFoundError:
            write(self.orders, "run", os.O_EXCL)  # fails if the controller was faster, and we had not seen it yet
            return False

    def renew(self, watchdog: Watchdog | None, leaving: bool = False) -> None:
        """Write the lease with the next counter; returns when it is on the storage. Raises OSError.

        `leaving`: the host is being shut down or rebooted on purpose.
        """
        self._words["counter"] += 1
        self._words["up_s"] = round(clock(), 1)
        armed = {"identity": watchdog.identity, "timeout_s": watchdog.timeout_s} if watchdog else {}
        text = json.dumps({**self._words, "armed": watchdog is not None, "leaving": leaving, **armed})
        try:
            if self._handle < 0:  # kept open: no other client can then be given the file for itself (NFS delegations)
                self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            write_all(self._handle, text)
            if os.fstat(self._handle).st_nlink == 0:
                raise OSError(f"{self.path} was removed")
        except OSError:
            self._close()
            raise

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with contextlib.suppress(OSError):
                os.close(handle)


def write(path: Path, text: str, flags: int = 0) -> None:
    """Write a whole file in place; returns when it is on the storage. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o640)
    try:
        write_all(handle, text)
    finally:
        os.close(handle)


def write_all(handle: int, text: str) -> None:
    """Write the whole content of an open file, and see it on the storage. Raises OSError."""
    os.pwrite(handle, text.ljust(BYTES - 1).encode() + b"\n", 0)
    os.fsync(handle)


def file_system_of(folder: Path) -> str:
    """The kind of file system that holds a folder, from /proc/self/mounts: "nfs4", "ceph", "ext4", ..."""
    found = (0, "")
    place = folder.resolve()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, kind = line.split()[:3]
        mounted = mounted.encode().decode("unicode_escape")
        if place == Path(mounted) or Path(mounted) in place.parents:
            found = max(found, (len(mounted), kind))
    return found[1]


def notify_ready() -> None:
    """Tell systemd that the watchdog is armed: what requires this unit may start now (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(b"READY=1", f"\0{address[1:]}" if address.startswith("@") else address)


def boot_id() -> str:
    """Another one after each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_shutting_down() -> bool:
    """Whether the whole host is being shut down or rebooted, and not only this unit stopped."""
    try:
        asked = subprocess.run(
            ["systemctl", "is-system-running"], capture_output=True, timeout=SYSTEMD_ANSWERS_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.stdout.strip() == b"stopping"


def clock() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def keep(lease: Lease, arm: Callable[[], Watchdog], lease_s: float, ended: Callable[[], bool]) -> None:
    """Renew and feed until the end is asked for; then say so in the lease, and disarm.

    Before the watchdog is armed, nothing is lost by waiting: a revoked host comes up and stays without a lease.
    """
    watchdog: Watchdog | None = None
    while not ended():
        began = clock()
        try:
            if not lease.is_revoked():
                if watchdog is None:
                    lease.renew(None)  # without that, arming would only reset the host
                    watchdog = arm()
                    say(f"armed: {watchdog.identity}, {watchdog.timeout_s} s")
                    notify_ready()
                lease.renew(watchdog)
                if clock() - began < lease_s:
                    watchdog.feed()
        except OSError as error:
            say(f"not renewed: {error}")
        time.sleep(max(0.0, RENEW_EVERY_S - (clock() - began)))
    if watchdog is not None:
        lease.renew(None, leaving=is_shutting_down())
        watchdog.disarm()


def say(text: str) -> None:
    """Tell the journal."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def armed(device: str, timeout_s: int) -> Watchdog:
    """Arm what is there. Raises OSError."""
    return NoWatchdog() if device == "none" else KernelWatchdog(device, timeout_s)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="on the shared datastore, the same on all hosts")
    parser.add_argument("--name", required=True, help="of this host in OpenNebula")
    parser.add_argument("--device", default="/dev/watchdog", help='"none": a heartbeat only, nothing resets this host')
    parser.add_argument("--timeout", type=int, default=15, help="of the watchdog, seconds")
    parser.add_argument("--lease", type=int, default=10, help="how long a renewal may take, seconds")
    parser.add_argument("--local", action="store_true", help="the folder may be on a disk of this host (for tests)")
    chosen = parser.parse_args()
    if not chosen.local and (kind := file_system_of(chosen.folder)) in _LOCAL_FILE_SYSTEMS:
        sys.exit(f"{chosen.folder} is on a file system of this host ({kind}): the datastore is not mounted")
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    lease = Lease(chosen.folder, chosen.name, chosen.lease)
    try:
        keep(lease, lambda: armed(chosen.device, chosen.timeout), chosen.lease, lambda: bool(asked))
    except OSError as error:
        sys.exit(f"the lease cannot be ended ({error}), so the watchdog stays armed and resets this host")


if __name__ == "__main__":
    main()
