"""A pretended VM: one real process that writes to its disk, as a guest would, and knows when it is not alone there.

It appends a record twenty times a second: the time, its host, the boot of that host, a name of its own, a counter. The
lock on the disk is the kernel's: it ends with the process, however that ends, and a process that only stands still
keeps it. Who finds it taken says so on the disk and writes on: the damage of a second writer is done, not prevented.

Usage: marker.py FOLDER VM HOST
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

EVERY_S = 0.05
LOCK_TAKEN = "lock-taken"


def main() -> None:
    """Write until the power goes."""
    folder, vm, host = sys.argv[1:]
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - pathlib would double the start-up time
        boot = file.read(8)
    name = os.urandom(4).hex()
    lock = os.open(f"{folder}/{vm}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    disk = os.open(f"{folder}/{vm}.disk", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    counter = 0

    def record(what: str) -> None:
        os.write(disk, f"{time.monotonic():.3f} {host} {boot} {name} {what}\n".encode())

    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        record(LOCK_TAKEN)
    while True:
        counter += 1
        record(str(counter))
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
