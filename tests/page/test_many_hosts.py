"""A thousand hosts: the ones that are not well stand out and come first, and the page stays quick."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from ha_controller.sim.hardware import Fault
from tests.page.site import Site, of_many, site
from tests.page.window import PHONE, window

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]
HOSTS = 1_000
#: a task of the page that blocks it longer than this is seen and felt; measured on a busy machine
BLOCKED_MAX_MS = 1_500
_WATCH_TASKS = """() => {
  window.longest = 0;
  const note = (list) => { for (const each of list.getEntries()) longest = Math.max(longest, each.duration); };
  new PerformanceObserver(note).observe({ entryTypes: ['longtask'] });
}"""

_AS_SHOWN = "(tiles) => tiles.map((tile) => [tile.dataset.host, tile.dataset.state])"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("many")
    async with site(folder, hosts=HOSTS, vms_per_host=2, edits=of_many(folder)) as served:
        await served.is_told("status", lambda status: status.get("hosts", {}).get("ok") == HOSTS)
        yield served


async def test_of_a_thousand_hosts_the_silent_ones_are_seen_first(cloud: Site, browser: Browser):
    async with (
        window(browser, cloud.url) as desk,
        window(browser, cloud.url, scheme="dark", size=PHONE) as phone,
    ):
        for each in (desk, phone):
            await expect(each.page.locator("[data-host]")).to_have_count(HOSTS, timeout=30_000)
            await each.page.evaluate(_WATCH_TASKS)
        cloud.break_host("kvm-640", Fault.HANG)
        for each in (desk, phone):
            await each.becomes("kvm-640", "suspect")
            shown = await each.page.locator("[data-host]").evaluate_all(_AS_SHOWN)
            before = shown[: next(index for index, (host, _) in enumerate(shown) if host == "kvm-640")]
            assert "ok" not in {state for _, state in before}  # a busy machine makes others suspect, too
            await expect(each.tile("kvm-640")).to_contain_text("kvm-640")
            wide = await each.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0
            assert await each.page.evaluate("longest") < BLOCKED_MAX_MS
        await desk.page.keyboard.press("/")
        await desk.page.keyboard.type("kvm-99")
        await expect(desk.page.locator("[data-host]")).to_have_count(11)
        assert await desk.barriers() == []
