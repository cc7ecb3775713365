"""What an order to OpenNebula that failed has done: surely nothing, nothing yet, or perhaps all of it."""

from __future__ import annotations

import pytest
from oned_world import OnedCloud, finish

from ha_controller.adapters.opennebula import (
    BadReply,
    Locked,
    NoAnswer,
    NoSuchObject,
    NotAllowedNow,
    ServerFailed,
    Unauthenticated,
    Unauthorized,
)
from ha_controller.core.effects import HostStep, MoveVm, OrderHost
from ha_controller.core.events import HostOrderReported, OrderResult

MOVE = MoveVm(vm=0, incident=1, attempt=1, source=0, destination=1, not_after=1e12)
NOT_NOW, REFUSED, UNKNOWN = OrderResult.NOT_NOW, OrderResult.REFUSED, OrderResult.UNKNOWN
ERRORS = [
    (Unauthenticated("m", "login expired"), NOT_NOW),
    (NoSuchObject("m", "a follower that does not know it yet"), NOT_NOW),
    (NoAnswer("m", "cannot connect", sent=False), NOT_NOW),
    (NoAnswer("m", "no complete answer", sent=True), UNKNOWN),
    (ServerFailed("m", "replication"), UNKNOWN),
    (BadReply("m", "half a reply"), UNKNOWN),
    (NotAllowedNow("m", "does not fit"), REFUSED),
    (Unauthorized("m", "limit of 3 reached for VMS quota"), REFUSED),
    (Locked("m", "VM is locked"), REFUSED),
]
errors = pytest.mark.parametrize(("error", "result"), ERRORS, ids=lambda value: str(value))


@pytest.fixture
def cloud() -> OnedCloud:
    made = OnedCloud()
    made.put(0, 3, 16)
    return made


def failing(error: Exception):
    async def call(*_: object, **__: object):
        raise error

    return call


@errors
def test_an_order_about_a_vm(cloud, error, result):
    cloud.client.migrate = failing(error)
    assert finish(cloud.recoverer._order_vm(MOVE)) == (result, str(error))


@errors
def test_an_order_before_which_the_vm_could_not_be_looked_at_did_nothing(cloud, error, result):
    del result
    cloud.client.vm = failing(error)
    assert finish(cloud.recoverer._order_vm(MOVE)) == (NOT_NOW, f"not sent: {error}")
    assert cloud.client.calls == []


@errors
def test_of_a_host_order_of_two_calls_that_ends_in_the_middle_it_is_not_said_that_nothing_was_done(
    cloud, error, result
):
    cloud.client.set_host_status = failing(error)
    reports = []
    cloud.recoverer._report = reports.append
    order = OrderHost(host=0, incident=1, step=HostStep.DISABLE, state_before=2, not_after=1e12)
    finish(cloud.recoverer.order_host(order))
    [report] = reports
    assert isinstance(report, HostOrderReported)
    assert report.result is (UNKNOWN if result is NOT_NOW else result)
