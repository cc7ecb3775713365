"""What is old is never shown as well, and no order is given for what one saw long ago."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Request, Route, expect

from ha_controller.sim.hardware import Fault
from tests.page.site import Site, site
from tests.page.window import STATE_WITHIN_S, window

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]
SLOW_MS = 1000 * STATE_WITHIN_S
LONG = 120_000  #: ms


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Site]:
    edits = {'mode = "auto"': 'mode = "approve"'}
    async with site(tmp_path_factory.mktemp("stale"), hosts=3, vms_per_host=1, edits=edits) as served:
        await served.is_well()
        yield served


def orders(page: Page) -> list[Request]:
    """Every order that leaves the page from now on."""
    found: list[Request] = []
    page.on("request", lambda request: found.append(request) if request.method == "POST" else None)
    return found


async def test_a_controller_that_hangs_is_not_shown_as_well(cloud: Site, browser: Browser):
    """Its connections stay open and are silent: nothing fails, and nothing answers."""
    process = cloud.controller.process
    assert process is not None
    async with window(browser, cloud.url, user=None) as tab:
        await tab.page.clock.install()
        await tab.page.reload()
        await tab.logs_in(("oneadmin", "embedded-cloud"))
        await tab.is_live()
        verdict = tab.region("Verdict")
        await expect(verdict).to_contain_text("All hosts are well")
        process.send_signal(signal.SIGSTOP)
        try:
            await tab.page.clock.fast_forward(LONG)
            await expect(verdict).to_contain_text("No connection to the controller")
            await expect(tab.page).to_have_title(re.compile(r"^\? No connection"))
        finally:
            process.send_signal(signal.SIGCONT)
        tab.expects("ERR_")
        await expect(verdict).not_to_contain_text("No connection", timeout=SLOW_MS)
        await expect(verdict).to_contain_text("All hosts are well", timeout=SLOW_MS)


async def test_an_order_without_an_answer_is_not_called_refused(cloud: Site, browser: Browser):
    async with window(browser, cloud.url) as tab:
        tab.expects("ERR_")
        await tab.page.route("**/pause", lambda route: route.abort())
        sent = orders(tab.page)
        await tab.button("Pause all actions").click()
        await tab.dialog().get_by_label("Reason").fill("why")
        await tab.dialog().get_by_role("button", name="Pause").click()
        await expect(tab.dialog()).to_contain_text("It is not known whether this was done")
        await expect(tab.dialog()).not_to_contain_text("Refused")
        keys = {request.headers["idempotency-key"] for request in sent}
        assert (len(sent), len(keys)) == (2, 1)


async def test_an_order_is_not_given_again_when_a_machine_wakes_up(cloud: Site, browser: Browser):
    async with window(browser, cloud.url, user=None) as tab:
        tab.expects("ERR_")
        await tab.page.clock.install()
        await tab.page.reload()
        await tab.logs_in(("oneadmin", "embedded-cloud"))
        await tab.is_live()

        async def sleeps(route: Route) -> None:
            await tab.page.clock.fast_forward(LONG)
            await route.abort()

        await tab.page.route("**/pause", sleeps)
        sent = orders(tab.page)
        await tab.button("Pause all actions").click()
        await tab.dialog().get_by_label("Reason").fill("why")
        await tab.dialog().get_by_role("button", name="Pause").click()
        await expect(tab.dialog()).to_contain_text("It is not known whether this was done")
        assert len(sent) == 1


async def test_a_device_that_does_not_answer_is_no_success_and_a_double_click_is_one_order(
    cloud: Site, browser: Browser
):
    async with window(browser, cloud.url) as tab:
        cloud.break_host("kvm-03", Fault.BMC_DEAD)
        await tab.tile("kvm-03").click()
        sent = orders(tab.page)
        await tab.button("Read power").dblclick()
        await expect(tab.region("Answer")).to_contain_text("✗ kvm-03", timeout=SLOW_MS)
        assert len(sent) == 1


async def test_a_dialog_knows_when_it_is_not_asked_any_more(cloud: Site, browser: Browser):
    async with window(browser, cloud.url) as tab:
        cloud.break_host("kvm-02", Fault.POWER_LOSS)
        await tab.is_asked("kvm-02")
        await tab.item("Waiting for you", "kvm-02").get_by_role("button", name="Approve").click()
        approve = tab.dialog().get_by_role("button", name="Approve")
        await expect(approve).to_be_enabled()
        async with window(browser, cloud.url) as other:
            await other.is_asked("kvm-02")
            await other.item("Waiting for you", "kvm-02").get_by_role("button", name="Reject").click()
            await other.dialog().get_by_role("button", name="Reject").click()
            await expect(other.region("Answer")).to_contain_text("Rejected")
        await expect(tab.dialog()).to_contain_text("This is not asked any more")
        await expect(approve).to_be_disabled()
