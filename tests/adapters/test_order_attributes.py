"""What is written on a VM about the order of starts, read from a document as OpenNebula sends it."""

from __future__ import annotations

import pytest

from ha_controller.adapters.opennebula.documents import VM
from ha_controller.adapters.opennebula.reader import DocumentReader
from ha_controller.adapters.recoverer.vms import startup_of
from ha_controller.core.resources import Startup


def read(**attributes: str) -> Startup:
    written = "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in attributes.items())
    reader = DocumentReader(VM)
    reader.feed(
        f"<VM><ID>7</ID><NAME>app</NAME><STATE>3</STATE><LCM_STATE>3</LCM_STATE>"
        f"<USER_TEMPLATE>{written}</USER_TEMPLATE></VM>"
    )
    return startup_of(reader.close()[0])


def test_all_of_it_is_read():
    startup = read(
        HA_PRIORITY="-7", HA_AFTER="db-1, 12 ,group:shop/db", HA_READY_DELAY="20", SERVICE_ID="4", ROLE_NAME="app"
    )
    assert startup == Startup(
        priority=-7, after=("db-1", "12", "group:shop/db"), ready_delay_s=20.0, service=4, role="app"
    )


def test_nothing_written_is_nothing_read():
    assert read() == Startup()


@pytest.mark.parametrize("written", ["high", "1.5", "", "9" * 5000, "1e3"])
def test_a_typing_error_counts_as_not_written(written):
    startup = read(HA_PRIORITY=written, HA_READY_DELAY=written, HA_AFTER=" , ,")
    assert startup == Startup()


def test_numbers_have_limits():
    assert read(HA_PRIORITY="99999999").priority == 10000
    assert read(HA_READY_DELAY="99999999").ready_delay_s == 3600.0
    assert read(HA_READY_DELAY="-5").ready_delay_s == 0.0
