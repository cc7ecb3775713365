"""What a controller has of the machine it runs on: clocks, ways to OpenNebula and to others, a disk, a door for people.

The simulator lends it other ones. Nothing else of the controller knows which.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ha_controller.adapters import open_pages
from ha_controller.adapters.arbiter import Moment
from ha_controller.adapters.commander import Commander
from ha_controller.adapters.controllers import Way, over_http
from ha_controller.adapters.journal import Journal
from ha_controller.adapters.opennebula import Transport
from ha_controller.app.clock import ControllerClock
from ha_controller.app.people import http_api
from ha_controller.app.sources import ControllerSources
from ha_controller.config import Api

Door = Callable[[Api, ControllerSources, Commander], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _served(api: Api, sources: ControllerSources, commander: Commander) -> AsyncIterator[None]:
    """The local socket, and the pages for everybody if they are wanted."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(http_api(api, sources, commander).serve())
        if api.metrics_port:
            await stack.enter_async_context(open_pages.serve(str(api.metrics_address), api.metrics_port, sources))
        yield


@dataclass(frozen=True, kw_only=True)
class Outside:
    """The real one by default."""

    clock: Callable[[], float] = field(default_factory=ControllerClock)  #: the controller's seconds
    moment: Callable[[], Moment] = Moment.now
    transport: Transport | None = None  #: to OpenNebula; None: HTTP to the configured endpoint
    open_journal: Callable[[Path], Journal] = Journal.open  #: blocks
    door: Door = _served
    way_to_others: Way = over_http  #: to other controllers
