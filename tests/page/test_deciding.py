"""What waits for a person: saying yes and no to a power-off, and that a host was seen off. Names are hostile here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault
from tests.page.site import USER, Site, site
from tests.page.window import PHONE, STATE_WITHIN_S, window

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]
SLOW_MS = 1000 * STATE_WITHIN_S
ASKED, DENIED, HOSTILE = 1, 2, 3
#: as a host, and as its VM, whose owner is anybody
HOST = "<img src=x onerror=complain('host')></b>\"'&amp;/../\u202ekvm"
SHOWN = HOST.replace("\u202e", "?")
VM = "</script><script>complain('vm')</script>{{7*7}}${7*7}"


def hostile(cloud: EmbeddedCloud) -> None:
    cloud.oned.hosts[HOSTILE].name = HOST
    for vm in range(HOSTILE * cloud.vms_per_host, (HOSTILE + 1) * cloud.vms_per_host):
        cloud.oned.vms[vm].name = VM


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Site]:
    edits = {'mode = "auto"': 'mode = "approve"', 'identity = "noted"\n': 'identity = "noted"\ntimeout = "9s"\n'}
    async with site(tmp_path_factory.mktemp("deciding"), prepare=hostile, edits=edits, users="operator") as served:
        await served.is_well()
        yield served


async def test_a_person_says_yes_and_no_and_that_a_host_was_seen_off(cloud: Site, browser: Browser):
    """Three hosts are dead, one of them with its BMC and with a name that would be markup."""
    async with window(browser, cloud.url) as desk, window(browser, cloud.url, user=USER, size=PHONE) as phone:
        waiting = desk.region("Waiting for you")
        await expect(waiting).to_contain_text("Nothing waits")
        cloud.cloud.break_host(ASKED, Fault.POWER_LOSS)
        cloud.cloud.break_host(HOSTILE, Fault.BMC_DEAD)
        await desk.is_asked("kvm-02")
        assert await phone.barriers() == []
        assert cloud.orders_off("kvm-02") == 0

        await desk.item("Waiting for you", "kvm-02").get_by_role("button", name="Approve").click()
        await expect(desk.dialog()).to_contain_text("kvm-02")
        assert await desk.barriers() == []
        await desk.dialog().get_by_label("Reason (optional)").fill("its rack has burnt down")
        await desk.dialog().get_by_role("button", name="Approve").click()
        await expect(desk.region("Answer")).to_contain_text("Approved: kvm-02")
        await desk.becomes("kvm-02", "failed")

        # an operator may say yes, too, and may not say that a host is off: that is for admins
        await phone.is_asked(SHOWN)
        await phone.item("Waiting for you", SHOWN).get_by_role("button", name="Approve").click()
        await phone.dialog().get_by_role("button", name="Approve").click()
        await phone.becomes(HOST, "failed")
        await phone.tile(HOST).click()
        await expect(phone.page.get_by_role("button", name="I have seen it is off")).to_be_disabled()

        await desk.tile(HOST).click()
        await expect(desk.region("Incident")).to_contain_text("fence attempts exhausted", timeout=SLOW_MS)
        await desk.page.get_by_role("button", name="I have seen it is off").click()
        assert await desk.barriers() == []
        off = desk.dialog().get_by_role("button", name="It is off")
        await expect(off).to_be_disabled()
        await desk.dialog().get_by_label("Type the host's name").fill("kvm-04")
        await desk.dialog().get_by_text("I pulled its power cords").click()
        await expect(off).to_be_disabled()
        await desk.dialog().get_by_label("Type the host's name").fill(SHOWN)
        await off.click()
        await expect(desk.region("Answer")).to_contain_text("Its VMs are started elsewhere")
        await desk.becomes(HOST, "recovered")
        await expect(desk.region("Incident")).to_contain_text(VM, timeout=SLOW_MS)
        await desk.becomes("kvm-02", "recovered")
    assert cloud.orders_off("kvm-02") == 1
    assert cloud.cloud.check(vms_must_wait=False) == []
    acts = await cloud.reads("events?kind=operator&limit=1000")
    told = {(line["data"]["who"], line["data"].get("verb")): line["data"] for line in acts}
    assert told["oneadmin", "approve"]["reason"] == "its rack has burnt down"
    assert told["oneadmin", "confirm-off"]["reason"] == "I pulled its power cords"
    assert ("ursula", "approve") in told


async def test_a_person_says_no(cloud: Site, browser: Browser):
    async with window(browser, cloud.url) as desk:
        cloud.cloud.break_host(DENIED, Fault.HANG)
        await desk.is_asked("kvm-03")
        await desk.item("Waiting for you", "kvm-03").get_by_role("button", name="Reject").click()
        await desk.dialog().get_by_role("button", name="Reject").click()
        await expect(desk.region("Answer")).to_contain_text("kvm-03")
        await expect(desk.region("Waiting for you").get_by_role("button", name="Approve")).to_have_count(0)
        await expect(desk.tile("kvm-03")).to_have_attribute("data-state", "suspect")
    assert cloud.orders_off("kvm-03") == 0
