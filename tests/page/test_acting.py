"""What people do on the page of a well cloud: log in, pause, ask what if, begin maintenance; by keys alone, too."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import anyio
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from tests.page.site import ADMIN, USER, Site, site
from tests.page.window import LIVE_WITHIN_S, PHONE, Window, window

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]
REFUSED = r"Failed to load resource: the server responded with a status of 401 .*/api/v1/session"
SLOW_MS = 1000 * LIVE_WITHIN_S
PACED_MS = 1500  #: longer than the page waits between two questions
#: what the page would send, if its button could be pressed
_PAUSES = """async () => {
  const { csrf } = await (await fetch('/api/v1/session')).json();
  const headers = { 'Content-Type': 'application/json', 'X-HA-CSRF': csrf };
  return (await fetch('/api/v1/pause', { method: 'POST', body: '{"reason": "x"}', headers })).status;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("acting")) as served:
        await served.is_well()
        yield served


async def test_a_wrong_password_is_told_and_the_right_one_shows_the_cloud(cloud: Site, browser: Browser):
    async with window(browser, cloud.url, user=None) as opened:
        opened.expects(REFUSED)
        await expect(opened.page.get_by_label("User", exact=True)).to_be_focused()
        assert await opened.barriers() == []
        await opened.logs_in((ADMIN[0], "not this one"))
        await expect(opened.page.get_by_role("alert")).to_contain_text("does not know this user with this password")
        await expect(opened.page.get_by_label("Password", exact=True)).to_have_value("")
        await expect(opened.page.locator("[data-host]")).to_have_count(0)
        await opened.logs_in(ADMIN)
        await opened.is_live()
        await expect(opened.page.locator("[data-host]")).to_have_count(6)
        await opened.button("Log out").click()
        await expect(opened.button("Log in")).to_be_visible()
        await expect(opened.page.locator("[data-host]")).to_have_count(0)


async def test_who_logs_out_asks_for_nothing_more(cloud: Site, browser: Browser):
    """The session is over before the page is gone, and a browser complains of every request that is refused."""
    is_over, may_go = anyio.Event(), anyio.Event()

    async def answer_late(route: Route) -> None:
        if route.request.method != "DELETE":
            await route.continue_()
            return
        answer = await route.fetch()
        is_over.set()
        await may_go.wait()
        await route.fulfill(response=answer)

    async with window(browser, cloud.url) as opened:
        await opened.page.route("**/api/v1/session", answer_late)
        await opened.button("Log out").click()
        with anyio.fail_after(LIVE_WITHIN_S):
            await is_over.wait()
        asked: list[str] = []
        opened.page.on("request", lambda request: asked.append(request.url))
        await opened.tile("kvm-02").click()  # shows a host, of which the page would ask
        await expect(opened.region("Host kvm-02")).to_be_visible()
        await opened.page.wait_for_timeout(PACED_MS)
        assert asked == []
        may_go.set()
        await expect(opened.button("Log in")).to_be_visible()


async def test_pause_and_resume_are_seen_by_everybody_at_once(cloud: Site, browser: Browser):
    async with (
        window(browser, cloud.url) as admin,
        window(browser, cloud.url, user=USER, scheme="dark", size=PHONE) as viewer,
    ):
        await expect(admin.page.get_by_text("ARMED", exact=True)).to_be_visible()
        await admin.button("Pause all actions").click()
        assert await admin.barriers() == []
        await expect(admin.dialog().get_by_role("button", name="Pause", exact=True)).to_be_disabled()
        await admin.page.keyboard.type("a switch is replaced")
        await admin.page.keyboard.press("Enter")
        for each in (admin, viewer):
            await expect(each.page.get_by_text("PAUSED", exact=True)).to_be_visible()
            await expect(each.region("Verdict")).to_contain_text("a switch is replaced")
        assert (await cloud.reads("status"))["paused"].startswith("oneadmin")
        assert await viewer.barriers() == []
        await admin.button("Resume").click()
        for each in (admin, viewer):
            await expect(each.page.get_by_text("ARMED", exact=True)).to_be_visible()
        assert (await cloud.reads("status"))["paused"] == ""


async def test_a_viewer_sees_everything_and_can_do_nothing(cloud: Site, browser: Browser):
    async with window(browser, cloud.url, user=USER) as viewer:
        await viewer.tile("kvm-02").click()
        await expect(viewer.region("Host kvm-02")).to_contain_text("Fencing")
        assert await usable(viewer) == []
        assert await viewer.barriers() == []
        asked = await viewer.page.evaluate(_PAUSES)
        viewer.expects(r"status of 403 .*/api/v1/pause")
        assert asked == 403


async def usable(opened: Window) -> list[str]:
    """The buttons that change something and can be pressed."""
    acts = r"Pause|Resume|Hold|Release|Approve|Reject|Maintenance|Give back|Read power|seen it is off"
    found = opened.page.get_by_role("button", name=re.compile(acts), disabled=False)
    return await found.all_inner_texts()


async def test_what_if_names_where_each_vm_would_go_and_does_nothing(cloud: Site, browser: Browser):
    async with window(browser, cloud.url) as opened:
        await opened.tile("kvm-02").click()
        await opened.region("Host kvm-02").get_by_role("button", name="What if?").click()
        forecast = opened.dialog().get_by_label("Forecast")
        await expect(forecast).to_contain_text("3 VMs would be started elsewhere", timeout=SLOW_MS)
        await opened.dialog().get_by_label("Add a host").select_option("kvm-03")
        await expect(forecast).to_contain_text("6 VMs would be started elsewhere", timeout=SLOW_MS)
        await expect(forecast).to_contain_text("vm-003")
        assert await opened.barriers() == []
        await opened.page.keyboard.press("Escape")
        await expect(opened.dialog()).to_have_count(0)
    assert all(cloud.orders_off(host.name) == 0 for host in cloud.cloud.hosts)


async def test_maintenance_is_begun_and_ended(cloud: Site, browser: Browser):
    async with window(browser, cloud.url, scheme="dark") as opened:
        await opened.tile("kvm-05").click()
        await opened.button("Maintenance…").click()
        assert await opened.barriers() == []
        await opened.dialog().get_by_label("Reason").fill("DIMM swap")
        await opened.dialog().get_by_label("Duration").select_option("4 hours")
        await opened.dialog().get_by_role("button", name="Begin maintenance").click()
        await opened.becomes("kvm-05", "maintenance")
        assert cloud.cloud.oned.hosts[4].attributes["HA_IGNORE"]
        await expect(opened.region("Trail")).to_contain_text("DIMM swap")
        assert await opened.barriers() == []
        await opened.button("Give back").click()
        await opened.becomes("kvm-05", "ok")


async def test_by_keys_alone(cloud: Site, browser: Browser):
    async with window(browser, cloud.url) as opened:
        keys = opened.page.keyboard
        await keys.press("/")
        await keys.type("kvm-03")
        await expect(opened.page.locator("[data-host]")).to_have_count(1)
        await keys.press("Escape")
        await expect(opened.page.locator("[data-host]")).to_have_count(6)
        await keys.press("?")
        await expect(opened.dialog()).to_contain_text("filter the hosts")
        assert await opened.barriers() == []
        await keys.press("Escape")
        await expect(opened.dialog()).to_have_count(0)
        await opened.tile("kvm-01").focus()
        await keys.press("ArrowRight")
        await expect(opened.tile("kvm-02")).to_be_focused()
        await keys.press("Enter")
        await expect(opened.region("Host kvm-02")).to_be_visible()
        await keys.press("Escape")
        await expect(opened.region("Host kvm-02")).to_have_count(0)
        await expect(opened.tile("kvm-02")).to_be_focused()


async def test_an_alert_links_to_the_hosts_of_a_state(cloud: Site, browser: Browser):
    async with window(browser, cloud.url, path="/?state=failed") as opened:
        await expect(opened.region("Hosts")).to_contain_text("No host fits the filter.")
        assert opened.page.url.endswith("/?state=failed")
        await opened.page.keyboard.press("Escape")
        await expect(opened.page.locator("[data-host]")).to_have_count(6)
        assert opened.page.url.endswith("/")


async def test_a_controller_that_goes_away_is_told_and_that_it_is_back(cloud: Site, browser: Browser):
    """Sessions end with the controller: whoever looks logs in again, and sees what is now."""
    async with window(browser, cloud.url) as opened:
        # what is under way is cut off in many ways; and a controller that has just begun knows no host yet
        opened.expects(REFUSED, r"net::ERR_", r"status of (401|50[34])")
        await cloud.controller.kill()
        await expect(opened.page.get_by_text("reconnecting", exact=True)).to_be_visible(timeout=SLOW_MS)
        await expect(opened.region("Verdict")).to_contain_text("No connection to the controller", timeout=SLOW_MS)
        await expect(opened.page).to_have_title(re.compile("No connection"))
        assert await opened.barriers() == []
        await cloud.restart()
        await expect(opened.button("Log in")).to_be_visible(timeout=SLOW_MS)
        await opened.logs_in(ADMIN)
        await opened.is_live()
        await expect(opened.region("Verdict")).not_to_contain_text("No connection")
        await expect(opened.page.locator("[data-host]")).to_have_count(6)
