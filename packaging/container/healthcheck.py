"""Ends with 0 if the controller in this container ends its rounds of decisions, else with 1: the HEALTHCHECK."""

from __future__ import annotations

import os
import socket
import sys

SOCKET = os.environ.get("HA_API__SOCKET", "/run/ha-controller/ha-controller.sock")
DEADLINE_S = 4.0  #: less than the --timeout of HEALTHCHECK, so that it can say why


def main() -> None:
    """Ask /livez over the local socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(DEADLINE_S)
        try:
            asked.connect(SOCKET)
            asked.sendall(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
            line = asked.recv(64).split(b"\r\n")[0].decode("ascii", "replace")
        except OSError as error:
            sys.exit(f"no answer at {SOCKET}: {error}")
    if line.split()[1:2] != ["200"]:
        sys.exit(f"/livez says: {line or 'nothing'}")


if __name__ == "__main__":
    main()
