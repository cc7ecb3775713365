"""Our login to OpenNebula, read anew when it was refused: a password or token may be changed while the controller runs.

It asks nobody: the client says that oned refused the login, and the configuration says where to read it. Never more
often than every few seconds, for a command may be behind it. The secret goes to the account and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import structlog
from pydantic import SecretStr

from ha_controller import threads
from ha_controller.app.audit import Audit
from ha_controller.app.refusals import LooksWhenRefused
from ha_controller.config.secret import COMMAND_DEADLINE_S, SecretProblem
from ha_controller.lead import OpenNebulaAccount

log = structlog.get_logger(__name__)

READ_WITHIN_S = COMMAND_DEADLINE_S + 5.0


class LoginRenewal(LooksWhenRefused):
    """Takes over a login that was changed where the configuration says that it stands."""

    def __init__(
        self,
        account: OpenNebulaAccount,
        read: Callable[[], SecretStr],
        audit: Callable[[], Audit],
    ) -> None:
        """`read`: blocks, raises SecretProblem; `audit`: the trail, which is there once it runs."""
        super().__init__()
        self._account, self._read, self._audit = account, read, audit

    async def _look(self) -> None:
        refused = self._account.auth
        try:
            with anyio.fail_after(READ_WITHIN_S):
                found = await threads.run_sync(self._read, abandon_on_cancel=True)
        except SecretProblem as problem:
            log.warning("the login to OpenNebula cannot be read anew", reason=problem.message, remedy=problem.remedy)
            return
        except TimeoutError:
            log.warning("the login to OpenNebula cannot be read anew", reason=f"not within {READ_WITHIN_S:g} s")
            return
        except KeyError:  # the configuration was made by a program, so it stands nowhere
            return
        if self._account.auth is refused and self.take(found):  # else a reload, which has read later, was faster
            said = "OpenNebula refused the login; the one that stands there now is used"
            await self._audit().note(who="the controller", origin="OpenNebula", what="renew its login", result=said)

    def take(self, found: SecretStr) -> bool:
        """Use this login from the next call on; whether it is another one, and of the form of one."""
        if found == self._account.auth or ":" not in found.get_secret_value():
            return False
        self._account.take(found)
        log.info("the login to OpenNebula was renewed")
        return True
