"""HTTP over the controller's Unix socket. Apart from `client`, which all commands import: http.client is not small."""

from __future__ import annotations

import http.client
import socket


class UnixConnection(http.client.HTTPConnection):
    """One connection to a controller; everything else is as with HTTP over TCP."""

    def __init__(self, path: str, *, timeout_s: float) -> None:
        """Connects at the first request."""
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
