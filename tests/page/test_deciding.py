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
