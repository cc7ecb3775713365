"""A login that was refused is read anew; what cannot be one changes nothing."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from pydantic import SecretStr

from ha_controller.app.audit import Audit
from ha_controller.app.renewal import LoginRenewal
from ha_controller.config.secret import SecretProblem
from ha_controller.lead import Login, OpenNebulaAccount

OLD, NEW = SecretStr("somebody:old"), SecretStr("somebody:new")


def account(orders: SecretStr = OLD) -> OpenNebulaAccount:
    return OpenNebulaAccount(endpoint="http://127.0.0.1:9/RPC2", auth=OLD, orders=orders)


async def renewed(ours: OpenNebulaAccount, answer: SecretStr | Exception) -> list[str]:
    """What stands on the trail when it was refused once and read once."""
    read, notes = anyio.Event(), []

    def reads() -> SecretStr:
        anyio.from_thread.run_sync(read.set)
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Trail(Audit):
        async def note(self, *, result: str = "", **others: object) -> bool:  # type: ignore[override]
            del others
            notes.append(result)
            return True

    renewal = LoginRenewal(ours, reads, lambda: Trail(lambda: None, lambda: 0.0))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(renewal.run)
            renewal.called("one.hostpool.info", "unauthenticated")
            await read.wait()
            await anyio.wait_all_tasks_blocked()
            while anyio.to_thread.current_default_thread_limiter().borrowed_tokens:
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    return notes


async def test_the_new_login_serves_reads_and_orders():
    ours = account()
    assert len(await renewed(ours, NEW)) == 1
    assert Login(account=ours).get_secret_value() == ours.get_secret_value() == "somebody:new"


@pytest.mark.parametrize("answer", [OLD, SecretStr("no login"), SecretProblem("gone", ""), KeyError("nowhere")])
async def test_what_is_no_other_login_changes_nothing(answer: SecretStr | Exception):
    ours = account()
    assert await renewed(ours, answer) == []
    assert (ours.auth, ours.orders) == (OLD, OLD)


@pytest.mark.parametrize("session", ["somebody:a-token", ""])
async def test_a_session_that_the_arbiter_has_put_in_for_orders_stays(session: str):
    ours = account(SecretStr(session))
    await renewed(ours, NEW)
    assert (ours.auth, ours.get_secret_value()) == (NEW, session)


async def test_a_login_that_a_reload_has_taken_over_meanwhile_stays():
    """A command takes its time to say what was true when it began."""
    ours = account()

    def reads() -> SecretStr:
        ours.take(NEW)
        return SecretStr("somebody:older")

    await LoginRenewal(ours, reads, lambda: Audit(lambda: None, lambda: 0.0))._look()
    assert ours.auth == NEW
