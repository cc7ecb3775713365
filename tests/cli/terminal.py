"""A terminal with a program in it: types, and waits until something is on the screen."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

SEEN_WITHIN_S = 60.0  #: a busy machine takes its time; what is waited for comes at once on a free one
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[=>])")


class Terminal:
    """What was printed, without colours and movements."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor, self.process = descriptor, process
        self._text = b""

    @property
    def text(self) -> str:
        return ESCAPE.sub("", self._text.decode(errors="replace")).replace("\r", "")

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, wanted: str) -> str:
        """Until it was printed since the last waiting; returns all that was."""
        deadline = time.monotonic() + SEEN_WITHIN_S
        while wanted not in self.text:
            assert time.monotonic() < deadline, f"{wanted!r} never came: {self.text!r}"
            ended = self.process.poll() is not None
            if select.select([self._descriptor], [], [], 0.0 if ended else 0.2)[0]:
                self._text += os.read(self._descriptor, 65536)
            else:
                assert not ended, f"it ended without {wanted!r}: {self.text!r}"
        found, self._text = self.text, b""
        return found


@contextmanager
def terminal(words: Sequence[str], environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a program with a terminal of its own; it is killed at the end of the block."""
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    # a session leader without a terminal gets the first one that it opens
    launch = ["/bin/sh", "-c", 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1', "sh", os.ttyname(theirs), *words]
    process = subprocess.Popen(launch, env=dict(environment), start_new_session=True)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait(timeout=30)
        os.close(theirs)  # not before: reading from a terminal that nobody has open fails
        os.close(ours)
