"""Writes the live stream to one listener, and lets go of one that does not read."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Final

import anyio
from aiohttp import web

from ha_controller.adapters.http_api.feed import CutOff, Feed
from ha_controller.adapters.http_api.operations import Call
from ha_controller.adapters.http_api.problems import Problem
from ha_controller.adapters.http_api.questions import StreamQuery

WRITE_MAX_S: Final = 20.0
_HEADERS: Final = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


async def stream(feed: Feed, call: Call) -> web.StreamResponse:
    """Write until one of both ends goes away."""
    request, after = call.request, _resumes_after(call)
    response = web.StreamResponse(headers=_HEADERS)
    try:
        async with aclosing(feed.frames(after)) as frames:
            async for frame in frames:
                if not response.prepared:  # the first one came, so there is room
                    await response.prepare(request)
                with anyio.fail_after(WRITE_MAX_S):
                    await response.write(frame)
                call.still_welcome()
    except (CutOff, TimeoutError, ConnectionError, Problem):
        if not response.prepared:
            raise
        if request.transport is not None:
            request.transport.abort()  # what it has not read by now would wait in our memory
    return response


def _resumes_after(call: Call) -> int | None:
    """The header, which browsers send by themselves, goes before the query of the first connection."""
    header = call.request.headers.get("Last-Event-ID")
    if header is None:
        return call.asked(StreamQuery).after
    if not re.fullmatch("[0-9]{1,18}", header):
        raise Problem(400, "Last-Event-ID must be the number of a line of the trail.")
    return int(header)
