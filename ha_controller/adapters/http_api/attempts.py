"""Bounds how often passwords are tried."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

from ha_controller.adapters.http_api.problems import Problem

KEYS_MAX: Final = 10_000
WINDOW_S: Final = 60.0
FAILURES_OF_AN_ADDRESS_MAX: Final = 5  #: in the window
FAILURES_OF_A_USER_MAX: Final = 20  #: from all addresses; more, so that nobody locks another out with a few words
LOGINS_OF_AN_ADDRESS_MAX: Final = 30  #: also those that succeed: each is a line in the trail


class Counts:
    """How often something happened lately, by key. The keys that were quiet for longest are forgotten first."""

    def __init__(self, now: Callable[[], float], window_s: float = WINDOW_S) -> None:
        """`now` gives monotonic seconds."""
        self._now = now
        self._window_s = window_s
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def of(self, key: str) -> int:
        """How often in the window until now."""
        times = self._times.get(key, deque())
        while times and self._now() - times[0] >= self._window_s:
            times.popleft()
        if not times:
            self._times.pop(key, None)
        return len(times)

    def count(self, key: str) -> None:
        """It happened."""
        self._times.setdefault(key, deque(maxlen=1000)).append(self._now())
        self._times.move_to_end(key)
        if len(self._times) > KEYS_MAX:
            self._times.popitem(last=False)


class LoginAttempts:
    """Says no before a password is looked at when too many were wrong."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` gives monotonic seconds."""
        self._failures = Counts(now)
        self._logins = Counts(now)

    def admit(self, address: str, user: str) -> None:
        """Count one try.

        Raises:
            Problem: 429.
        """
        network = network_of(address)
        if (
            self._failures.of(f"address {network}") >= FAILURES_OF_AN_ADDRESS_MAX
            or self._failures.of(f"user {user}") >= FAILURES_OF_A_USER_MAX
            or self._logins.of(network) >= LOGINS_OF_AN_ADDRESS_MAX
        ):
            wait = {"Retry-After": f"{WINDOW_S:.0f}"}
            raise Problem(429, f"Too many logins. Try again in {WINDOW_S:.0f} s.", headers=wait)
        self._logins.count(network)

    def failed(self, address: str, user: str) -> None:
        """The password was wrong."""
        self._failures.count(f"address {network_of(address)}")
        self._failures.count(f"user {user}")


def network_of(address: str) -> str:
    """What one person has at most: an IPv4 address, or a /64 of IPv6."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or f"{IPv6Address(int(parsed) >> 64 << 64)}/64")
