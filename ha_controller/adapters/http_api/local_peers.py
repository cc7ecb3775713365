"""Who is at the other end of this machine's own socket: what the kernel says (SO_PEERCRED), and nobody else.

Root, the controller's own user and oneadmin may do everything. Names are looked up beside the event loop: a directory
service may hang.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from typing import Final

import anyio
from aiohttp import web

from ha_controller import threads
from ha_controller.adapters.http_api.access import NOBODY, Caller, Role
from ha_controller.adapters.http_api.problems import Problem

TRUSTED_USERS: Final = ("root", "oneadmin")
LOOK_UP_MAX_S: Final = 2.0
NAMES_MAX: Final = 1000


class LocalPeers:
    """Knows users by their numbers."""

    def __init__(self) -> None:
        """Nobody was looked up yet."""
        self._names: dict[int, str] = {0: "root"}  # who root is needs no directory service

    async def caller(self, request: web.Request) -> Caller:
        """Who is at the other end; without a role if that user is not trusted, `NOBODY` if it is no Unix socket.

        Raises:
            Problem: it cannot be looked up.
        """
        uid = _uid(request)
        if uid is None:
            return NOBODY
        name = await self._name(uid)
        is_trusted = uid == os.getuid() or name in TRUSTED_USERS
        return Caller(
            name=name, role=Role.ADMIN if is_trusted else Role.NOBODY, via="socket", address=f"local socket, uid {uid}"
        )

    async def _name(self, uid: int) -> str:
        if (known := self._names.get(uid)) is not None:
            return known
        try:
            with anyio.fail_after(LOOK_UP_MAX_S):
                found = await threads.run_sync(pwd.getpwuid, uid, abandon_on_cancel=True)
        except KeyError:
            return f"uid {uid}"
        except TimeoutError:
            raise Problem(
                503, f"The name of uid {uid} could not be looked up in time. Try again, or as root."
            ) from None
        if len(self._names) < NAMES_MAX:
            self._names[uid] = found.pw_name
        return found.pw_name


def _uid(request: web.Request) -> int | None:
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", packed)[1]
    return uid
