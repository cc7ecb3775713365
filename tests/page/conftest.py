"""The page in Debian's Chromium, headless, against real controllers of embedded clouds."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(require_peer: Callable[[str], str]) -> AsyncIterator[Browser]:
    """One for all tests of a file, with a profile of its own; every window has its own cookies."""
    program = require_peer("chromium")
    async with async_playwright() as tools:
        started = await tools.chromium.launch(executable_path=program, args=FLAGS.split())
        yield started
        await started.close()


@pytest.fixture(autouse=True)
def _sockets_of_killed_controllers() -> None:
    """A controller that is killed closes nothing; that is the point."""
    warnings.simplefilter("ignore", ResourceWarning)
