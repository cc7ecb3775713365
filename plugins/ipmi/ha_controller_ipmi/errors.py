"""Says what a BMC's refusal means in the words of the plugin contract. Pure functions, no I/O.

Two kinds of numbers arrive: completion codes (answers to commands, IPMI 2.0 table 5-2) and RMCP+ status codes (answers
while logging in, table 13-15). A code may only become `Rejected` or `AccessDenied` when it says that nothing was done;
whoever reads those errors relies on it. Codes that leave the outcome open stay plain `FenceError`.
"""

from __future__ import annotations

from typing import Final

from ha_controller.plugin import AccessDenied, FenceError, Rejected


class Busy(Rejected):
    """The BMC refused because it has no room now: nothing was done, a later try can succeed."""

    retryable = True


_SET_SESSION_PRIVILEGE: Final = (0x06, 0x3B)
_PRIVILEGE_REFUSALS: Final = frozenset({0x80, 0x81, 0x82})  #: only as answers to Set Session Privilege Level
_INSUFFICIENT_PRIVILEGE: Final = 0xD4
#: Node busy, and the three kinds of "the firmware is not up".
_BUSY_COMPLETIONS: Final = frozenset({0xC0, 0xD0, 0xD1, 0xD2})
#: Invalid or unsupported command or LUN, wrong lengths and fields, no such sensor or record, illegal, still updating.
_NOTHING_DONE: Final = frozenset({0xC1, 0xC2, *range(0xC4, 0xCE)})

#: Insufficient resources: in general, and at the wanted role. BMCs allow only a handful of sessions.
_BUSY_STATUSES: Final = frozenset({0x01, 0x0B})
#: Role, privilege, name length, name, GUID, integrity check value.
_ACCESS_STATUSES: Final = frozenset({0x09, 0x0A, 0x0C, 0x0D, 0x0E, 0x0F})


def completion_error(netfn: int, command: int, code: int, message: str) -> FenceError:
    """Return the error for a completion code other than 0; `netfn` is the one of the request."""
    if code == _INSUFFICIENT_PRIVILEGE:
        return AccessDenied(message)
    if (netfn, command) == _SET_SESSION_PRIVILEGE and code in _PRIVILEGE_REFUSALS:
        return AccessDenied(message)
    if code in _BUSY_COMPLETIONS:
        return Busy(message)
    if code in _NOTHING_DONE:
        return Rejected(message)
    # what is not known to be harmless may have acted: a time-out inside the BMC (C3), a second request that it calls
    # doubled (CF) or not possible in its present state (D5) while the first one takes effect, and all OEM codes
    return FenceError(message)


def login_error(status: int, message: str) -> FenceError:
    """Return the error for a login that ended at an RMCP+ message with this status.

    Status 0 means that the BMC agreed and *we* found its proof wrong: it does not know our password or our Kg.
    """
    if status == 0 or status in _ACCESS_STATUSES:
        return AccessDenied(message)
    if status in _BUSY_STATUSES:
        return Busy(message)
    return FenceError(message)
