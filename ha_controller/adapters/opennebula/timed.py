"""How long a call of oned took, and how it ended, for whoever counts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ha_controller.adapters.opennebula.xmlrpc import OpenNebulaError

Heed = Callable[[str, str, float], None]  #: method, result, seconds; must not raise


def unheeded(method: str, result: str, took_s: float) -> None:
    """Nobody counts."""
    del method, result, took_s


@contextmanager
def timed(method: str, heed: Heed) -> Iterator[None]:
    """Tell how it ended: `ok`, the kind of the error as `no_answer`, or `cut_off` where we did not wait for the end."""
    loop = asyncio.get_running_loop()
    began_at, result = loop.time(), "cut_off"
    try:
        yield
        result = "ok"
    except OpenNebulaError as error:
        result = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
        raise
    finally:
        heed(method, result, loop.time() - began_at)
