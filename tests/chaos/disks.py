"""The watcher of the VMs' disks: it finds two writers, and knows nothing of OpenNebula or of the controller.

Two proofs, independent of each other. The kernel's lock: whoever starts beside a living process, be it only stopped,
finds the lock taken. The order of records: a writer that writes again after another one has written was never dead.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.marker import LOCK_TAKEN

WRITES_WITHIN_S = 2.0  #: a living writer writes every 50 ms; machines may be busy
_FLOCK = "hhqqi"  #: struct flock of fcntl(2): type, whence, start, length, pid


@dataclass(frozen=True, kw_only=True)
class Record:
    """One write to a disk."""

    at: float  #: of the monotonic clock, which all namespaces share
    host: str
    boot: str
    writer: str
    what: str


@dataclass(kw_only=True)
class Disk:
    """What was written by whom."""

    path: Path
    read: int = 0
    last: Record | None = None
    past: set[str] = field(default_factory=set)  #: writers that others have followed


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A VM that was not written by anybody, from one host to the next."""

    vm: int
    since: str
    on: str
    seconds: float


class Disks:
    """All disks of a cloud, on one folder that stands for the shared datastore."""

    def __init__(self, folder: Path) -> None:
        """There is none yet."""
        self.folder = folder
        self.double: list[str] = []  #: found by the order of records
        self.lock_taken: list[str] = []  #: found by the lock
        self.outages: list[Outage] = []
        self.records = 0
        self._disks: dict[int, Disk] = {}

    def add(self, vm: int) -> None:
        """Watch one more."""
        self._disks[vm] = Disk(path=self.folder / f"{vm}.disk")

    def look(self) -> None:
        """Read what is new on all disks."""
        for vm, disk in self._disks.items():
            for record in _new(disk):
                self._take(vm, disk, record)

    def _take(self, vm: int, disk: Disk, record: Record) -> None:
        self.records += 1
        before, disk.last = disk.last, record
        where = f"VM {vm}: {record.host} (boot {record.boot}, writer {record.writer})"
        if record.what == LOCK_TAKEN:
            self.lock_taken.append(f"{where} started while another process held the disk")
        if before is None or before.writer == record.writer:
            return
        if record.writer in disk.past:
            self.double.append(f"{where} writes again after {before.host} (writer {before.writer}) has written")
        else:
            self.outages.append(Outage(vm=vm, since=before.host, on=record.host, seconds=record.at - before.at))
        disk.past.add(before.writer)

    def moves(self, vm: int) -> int:
        """How often it began anew on another host."""
        return sum(outage.vm == vm and outage.since != outage.on for outage in self.outages)

    def last(self, vm: int) -> Record | None:
        """The newest record."""
        return self._disks[vm].last

    def writes(self, vm: int) -> bool:
        """Whether somebody wrote a moment ago."""
        last = self.last(vm)
        return last is not None and time.monotonic() - last.at < WRITES_WITHIN_S

    def holder(self, vm: int) -> int | None:
        """The process that holds the lock of a disk, in the words of the kernel. The lock is not touched."""
        try:
            handle = os.open(self.folder / f"{vm}.lock", os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
            return None if kind == fcntl.F_UNLCK else process
        finally:
            os.close(handle)


def _new(disk: Disk) -> Iterator[Record]:
    """Whole lines only; the last one may still be on its way."""
    try:
        with disk.path.open("rb") as file:
            file.seek(disk.read)
            text = file.read()
    except FileNotFoundError:
        return
    whole = text[: text.rfind(b"\n") + 1]
    disk.read += len(whole)
    for line in whole.decode().splitlines():
        at, host, boot, writer, what = line.split(" ")
        yield Record(at=float(at), host=host, boot=boot, writer=writer, what=what)
