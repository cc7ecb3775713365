"""A host dies while people look at the page, at a desk and on a phone: what they see, live, and what really happens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from ha_controller.sim.hardware import Fault
from tests.page.site import USER, Site, site
from tests.page.window import PHONE, STATE_WITHIN_S, window

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]
VICTIM = "kvm-04"
SLOW_MS = 1000 * STATE_WITHIN_S


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("failover")) as served:
        await served.is_well()
        yield served


async def test_a_failover_is_watched_live_on_a_desk_and_on_a_phone(cloud: Site, browser: Browser, tmp_path: Path):
    async with (
        window(browser, cloud.url) as desk,
        window(browser, cloud.url, user=USER, scheme="dark", size=PHONE) as phone,
    ):
        for each in (desk, phone):
            await expect(each.region("Verdict")).to_contain_text("All hosts are well")
            await each.follows(VICTIM)
        cloud.break_host(VICTIM, Fault.HANG)
        for each in (desk, phone):
            await each.becomes(VICTIM, "suspect")
        await desk.becomes(VICTIM, "failed")
        await expect(desk.region("Verdict")).to_contain_text(VICTIM)
        await expect(desk.page).to_have_title(re.compile(VICTIM))
        await expect(desk.region("Incident")).to_contain_text(VICTIM)
        assert await desk.barriers() == []
        assert await phone.barriers() == []
        for each in (desk, phone):
            await each.becomes(VICTIM, "recovered")
            assert await each.states_of(VICTIM) == ["ok", "suspect", "failed", "fenced", "recovered"]
        await expect(desk.region("Verdict")).to_contain_text(VICTIM)
        incident = desk.region("Incident")
        for phase in ("Detect", "Guards", "Fence", "Verify", "Restart"):
            await expect(incident).to_contain_text(re.compile(phase, re.I))
        await expect(desk.region("Trail")).to_contain_text(re.compile("powered off|power off"))
        assert await desk.barriers() == []
        assert await phone.barriers() == []
    assert cloud.orders_off(VICTIM) == 1
    assert all(len(cloud.runs_where(vm)) == 1 for vm in cloud.vms_of(VICTIM))
    assert cloud.cloud.check(vms_must_wait=False) == []


async def test_the_post_mortem_of_it_opens_without_a_complaint(cloud: Site, browser: Browser, tmp_path: Path):
    await cloud.is_told("hosts", lambda rows: any(row["state"] == "recovered" for row in rows))
    code, text = await cloud.controller.cli("incidents", "export", "1", "--as", "html")
    assert code == 0
    (tmp_path / "incident.html").write_text(text)
    for size in ((1000, 900), PHONE):
        async with window(
            browser, "about:blank", user=None, path=(tmp_path / "incident.html").as_uri(), scheme="dark", size=size
        ) as opened:
            await expect(opened.page.get_by_role("heading", level=1)).to_contain_text(f"Incident 1: {VICTIM}")
            await expect(opened.page.get_by_role("img", name="Timeline")).to_be_visible()
            assert await opened.page.evaluate("document.documentElement.scrollWidth") == size[0]
            assert await opened.barriers() == []
