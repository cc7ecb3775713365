"""Talks to the running controller over its Unix socket with the standard library alone: operators type in panic."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

DEFAULT_SOCKET = "/run/ha-controller/ha-controller.sock"
NO_SUCH, NO_CONTROLLER = 3, 7
TIMEOUT_S = 1530.0  #: a drill takes minutes; everything else is answered within one

Json = Any


class Failure(Exception):
    """A request that did not succeed: the exit code of the command, and a sentence."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def socket_path() -> str:
    """Where the controller listens."""
    return click.get_current_context().find_root().params.get("socket") or os.environ.get("HA_SOCKET", DEFAULT_SOCKET)


def request(method: str, path: str, body: Json = None) -> Json:
    """Ask the controller.

    Raises:
        Failure: it is not reachable, or it refused.
    """
    text = fetch(method, path, body)
    try:
        return json.loads(text)
    except ValueError:
        raise Failure(1, "The controller answered something that is not JSON.") from None


def fetch(method: str, path: str, body: Json = None) -> str:
    """Like `request`, for an answer that is more than one JSON value."""
    from ha_controller.cli.unix_socket import UnixConnection  # half of what `--help` would cost

    connection = UnixConnection(socket_path(), timeout_s=TIMEOUT_S)
    try:
        payload = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        if method == "POST":
            import secrets

            headers["Idempotency-Key"] = secrets.token_hex(16)
        connection.request(method, path, body=payload, headers=headers)
        response = connection.getresponse()
        text = response.read().decode()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        remedy = "Is it running? Try: systemctl status ha-controller"
        raise Failure(
            NO_CONTROLLER, f"The controller at {socket_path()} is not reachable: {reason}. {remedy}"
        ) from None
    finally:
        connection.close()
    if response.status >= 400:
        raise _refusal(response.status, text)
    return text


def _refusal(status: int, text: str) -> Failure:
    try:
        answer = json.loads(text)
    except ValueError:
        return Failure(1, f"The controller answered something that is not JSON (HTTP {status}).")
    return Failure(answer.get("code", 1), answer.get("detail", f"HTTP {status}"))


def finish(code: int) -> None:
    """End with an exit code."""
    sys.exit(code)
