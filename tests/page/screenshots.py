"""`make screenshots`: pictures of the page for docs/pictures, during a failure of a real controller's cloud.

One host is in maintenance, one was recovered, and one is being powered off while it is looked at; then 1,000 hosts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from playwright.async_api import Browser, async_playwright

from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault
from tests.page.conftest import FLAGS
from tests.page.site import Site, of_many, site
from tests.page.window import DESK, PHONE, Scheme, Window, window

PICTURES = Path(__file__).parents[2] / "docs/pictures"
BYTES_MAX = 250_000
PROGRAM = "/usr/bin/chromium"
MAINTAINED, RECOVERED, DYING, SILENT = "kvm-03", "kvm-15", "kvm-07", "kvm-12"
MANY = 1_000
VIEWS: tuple[tuple[str, Scheme, tuple[int, int]], ...] = (
    ("page-light", "light", DESK),
    ("page-dark", "dark", DESK),
    ("page-phone", "light", PHONE),
)


def racks(cloud: EmbeddedCloud) -> None:
    """Hosts of two racks."""
    for number, host in cloud.oned.hosts.items():
        host.attributes["HA_RACK"] = "A" if number < len(cloud.hosts) // 2 else "B"


async def take(opened: Window, name: str) -> None:
    """Write a picture of what the window shows."""
    path = PICTURES / f"{name}.png"
    await opened.page.mouse.move(0, 0)
    await opened.page.screenshot(path=path, animations="disabled", caret="hide")
    size = path.stat().st_size
    print(f"{path}: {size // 1000} kB", flush=True)
    if size > BYTES_MAX:
        raise SystemExit(f"{path} is too big: more than {BYTES_MAX // 1000} kB", flush=True)


async def of_a_failure(browser: Browser) -> None:
    """Light, dark and on a phone, at the same moment."""
    async with served(hosts=24, vms_per_host=8, prepare=racks) as cloud, AsyncExitStack() as stack:
        await cloud.is_well()
        views = [
            (name, await stack.enter_async_context(window(browser, cloud.url, scheme=scheme, size=size)))
            for name, scheme, size in VIEWS
        ]
        await cloud.controller.cli("maintenance", "on", MAINTAINED, "--reason", "DIMM swap", "--for", "4h")
        cloud.break_host(RECOVERED, Fault.POWER_LOSS)
        for _, opened in views:
            await opened.becomes(RECOVERED, "recovered")
        await anyio.sleep(20)  # so that the strips of the probes are full
        cloud.break_host(DYING, Fault.HANG)
        await views[0][1].becomes(DYING, "failed")
        cloud.break_host(SILENT, Fault.PARTITION)
        for _, opened in views:
            await opened.becomes(SILENT, "suspect")
        for name, opened in views:
            await take(opened, name)


async def of_a_thousand(browser: Browser) -> None:
    """A thousand hosts, of which some are silent."""
    with tempfile.TemporaryDirectory(prefix="ha-controller-pictures-") as folder:
        async with site(Path(folder), hosts=MANY, vms_per_host=4, prepare=racks, edits=of_many(Path(folder))) as cloud:
            await cloud.is_told("status", lambda status: status.get("hosts", {}).get("ok") == MANY)
            async with window(browser, cloud.url) as opened:
                for name in ("kvm-117", "kvm-248", "kvm-640"):
                    cloud.break_host(name, Fault.PARTITION)
                    await opened.becomes(name, "suspect")
                await take(opened, "page-1000")


@asynccontextmanager
async def served(**options: object) -> AsyncIterator[Site]:
    """A site in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="ha-controller-pictures-") as folder:
        async with site(Path(folder), **options) as found:
            yield found


async def main(names: list[str]) -> None:
    """Take them all, or those of a kind."""
    PICTURES.mkdir(exist_ok=True)
    async with async_playwright() as tools:
        browser = await tools.chromium.launch(executable_path=PROGRAM, args=FLAGS.split())
        for name, taken in (("failure", of_a_failure), ("many", of_a_thousand)):
            if not names or name in names:
                await taken(browser)
        await browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.page.screenshots", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("which", nargs="*", choices=["failure", "many", []], help="those of these kinds alone")
    anyio.run(main, parser.parse_args().which)
