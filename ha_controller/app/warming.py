"""What is imported and made only after a start, so that no host waits for it: done before it is needed, in a thread.

Otherwise the first login by SSH, or the first flight record, would hold the event loop up in the middle of an incident.
"""

from __future__ import annotations

import importlib

import anyio
import structlog

from ha_controller import threads
from ha_controller.flight import text

log = structlog.get_logger(__name__)

AFTER_S = 5.0  #: by then the first inventory was read


async def warm_up() -> None:
    """Once. What fails here fails again where it is needed, and is told there."""
    await anyio.sleep(AFTER_S)
    try:
        await threads.run_sync(_import_and_make, abandon_on_cancel=True)
    except Exception:  # a border: only time is lost
        log.exception("what is needed later could not be made ready")


def _import_and_make() -> None:
    importlib.import_module("asyncssh")
    text.make_adapters()
