"""The Ceph fence agent: puts the addresses of a host on the cluster's blocklist, so that it can write to no disk there.

It isolates from the storage and says nothing about the power, so it joins a level and never proves alone. Entries name
the whole address (port 0, nonce 0: every client there), expire after `expires_s`, and are renewed by the controller
until they are lifted. What counts is the list that the monitors hold, read back each time.

Uses the `ceph` command, whose key lies in a keyring file, never on its command line. Source of its words and statuses:
a running monitor (Ceph 16.2, see tests/peers/test_ceph.py).
"""

from __future__ import annotations

import errno
import ipaddress
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, field_validator

from ha_controller import process
from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    Duration,
    FenceAgent,
    FenceError,
    PowerState,
    Rejected,
    Unreachable,
    duration_field,
    one_line,
)

EXPIRES_MIN_S: Final = 3600.0  #: the controller renews every ten minutes, and must be given time to be repaired
CONNECT_WITHIN_S: Final = 10
LIST_BYTES_MAX: Final = 16 << 20  #: the list grows in an outage: each lock that is broken adds an entry
#: Of the range for documentation (RFC 5737), so nobody's: taking it off the list shows the right and changes nothing.
NOBODY: Final = "192.0.2.255"


class CephConfig(AgentConfig):
    """Which addresses are a host's, and how to reach the cluster."""

    addresses: Annotated[str, Field(min_length=1)]  #: all from which the host talks to Ceph, separated by blanks
    datastores: Annotated[tuple[int, ...], Field(min_length=1)]  #: ids of all OpenNebula datastores in this cluster
    user: Annotated[str, Field(pattern=r"^client\.\S+$")] = "client.ha-controller"
    keyring: Path = Path("/etc/ceph/ceph.client.ha-controller.keyring")
    conf: Path = Path("/etc/ceph/ceph.conf")
    expires_s: Duration = duration_field("24h", key="expires")

    @field_validator("addresses")
    @classmethod
    def _are_literal(cls, written: str) -> str:
        found = []
        for word in written.replace(",", " ").split():
            try:
                address = ipaddress.ip_address(word)
            except ValueError:
                raise ValueError(f"{word} is no IPv4 or IPv6 address") from None
            if address.is_unspecified or address.is_loopback or address.is_multicast:
                raise ValueError(f"{word} is no address of one host")
            found.append(str(address))
        if not found:
            raise ValueError("at least one address is needed")
        return " ".join(sorted(set(found)))

    @field_validator("keyring", "conf")
    @classmethod
    def _is_a_file(cls, path: Path) -> Path:
        if not path.is_file():
            raise ValueError("no such file")
        return path

    @field_validator("expires_s")
    @classmethod
    def _outlives_the_renewals(cls, expires_s: float) -> float:
        if expires_s < EXPIRES_MIN_S:
            raise ValueError("must be 1h at least, so that it does not end before it is renewed")
        return expires_s


class CephAgent(FenceAgent[CephConfig]):
    """Cuts a host off from its disks in a Ceph cluster (osd blocklist)."""

    kind: ClassVar[str] = "ceph"
    config_model: ClassVar[type[AgentConfig]] = CephConfig
    capabilities = (
        Capability.READ_POWER | Capability.OUT_OF_BAND | Capability.STORAGE | Capability.LASTING | Capability.POWER_ON
    )

    def __init__(self, config: CephConfig) -> None:
        super().__init__(config)
        self.datastores = config.datastores
        self.acts_on = tuple(f"Ceph address {address}" for address in config.addresses.split())

    async def power_off(self) -> None:
        """Put all addresses of the host on the blocklist, or see to it that they stay there for long enough.

        Raises:
            AccessDenied, Rejected: nothing was done.
            FenceError: the outcome is unknown, or only some addresses are cut off.
        """
        listed, done = await self._listed(), list[str]()
        for address in self._addresses:
            for words in self._orders(address, listed.get(_entry(address))):
                try:
                    await self._ceph("blocklist", *words)
                except (AccessDenied, Rejected) as error:
                    if done:
                        raise FenceError(f"{error}; done before that: {', '.join(done)}") from None
                    raise
                done.append(" ".join(words[:-1] if words[-1] == self._expires else words))

    def _orders(self, address: str, until: datetime | None) -> list[tuple[str, ...]]:
        """What makes an entry, or replaces one that ends before half of its time.

        Adding an entry anew is acknowledged with the new end, and changes nothing (Ceph 16.2, seen on a monitor). So an
        old one is taken off and put on again, under the cover of a range of one address.
        """
        if until is None:
            return [("add", address, self._expires)]
        if until - datetime.now(UTC) >= timedelta(seconds=self.config.expires_s / 2):
            return []
        cover = _range(address)
        return [
            ("range", "add", cover, self._expires),
            ("rm", address),
            ("add", address, self._expires),
            ("range", "rm", cover),
        ]

    @property
    def _expires(self) -> str:
        return f"{self.config.expires_s:.0f}"

    async def power_on(self) -> None:
        """Take all addresses of the host off the blocklist. Errors as for `power_off`."""
        for address in self._addresses:
            await self._ceph("blocklist", "rm", address)
            if _range_entry(address) in await self._listed():
                await self._ceph("blocklist", "range", "rm", _range(address))

    async def power_state(self) -> PowerState:
        """Read the list: OFF when every address is on it, ON when none is, and UNKNOWN in between.

        Raises:
            FenceError: the list could not be read.
        """
        listed = await self._listed()
        found = [address for address in self._addresses if {_entry(address), _range_entry(address)} & listed.keys()]
        if not found:
            return PowerState.ON
        now = datetime.now(UTC)  # the list is kept by the monitors' clocks, which must be about right
        holds = all(
            any(listed[name] > now for name in (_entry(address), _range_entry(address)) if name in listed)
            for address in self._addresses
        )
        return PowerState.OFF if holds else PowerState.UNKNOWN

    async def check(self) -> CheckReport:
        """Read the list, and take an address off that is nobody's: the user then has the right to change it.

        Raises:
            FenceError: the cluster did not answer, or refused the login or the right.
        """
        power = await self.power_state()
        await self._ceph("blocklist", "rm", NOBODY)
        cut_off = {PowerState.OFF: "cut off", PowerState.UNKNOWN: "partly cut off"}.get(power, "not cut off")
        text = f"logged in as {self.config.user}, may change the blocklist; {self.config.addresses} {cut_off}"
        return CheckReport(ok=True, summary=text, power=power)

    @property
    def _addresses(self) -> list[str]:
        return self.config.addresses.split()

    async def _listed(self) -> dict[str, datetime]:
        """Return the entries of the list, of addresses and of ranges, and when each ends."""
        ended = await self._ceph("blocklist", "ls", "--format", "json")
        try:
            return {
                str(entry.get("addr") or entry["range"]): datetime.strptime(entry["until"], "%Y-%m-%dT%H:%M:%S.%f%z")
                for entry in _entries(ended.output)
            }
        except (ValueError, TypeError, KeyError, AttributeError):
            raise FenceError(f"{self._name}: the blocklist cannot be understood") from None

    async def _ceph(self, *words: str) -> process.Ended:
        """Run one `ceph osd` command to its end; a cancelled one is killed."""
        ceph = process.find("ceph")
        if ceph is None:
            raise Rejected("the program ceph is not installed. Debian: apt install ceph-common")
        config = self.config
        login = ["--conf", str(config.conf), "--name", config.user, "--keyring", str(config.keyring)]
        try:
            command = [ceph, *login, "--connect-timeout", str(CONNECT_WITHIN_S), "osd", *words]
            ended = await process.run(command, output_bytes_max=LIST_BYTES_MAX)
        except OSError as error:
            raise Rejected(f"ceph cannot be started: {error.strerror}") from None
        if ended.status != 0:
            raise self._error(ended)
        return ended

    def _error(self, ended: process.Ended) -> FenceError:
        """Tell apart what went wrong: the exit status is an errno, or 1 without a session."""
        lines = [line for line in ended.errors.splitlines() if line.strip()]
        said = one_line(lines[-1] if lines else f"exit status {ended.status}")
        text = f"{self._name}: {said}"
        if "timed out" in said.lower():
            return Unreachable(f"{text}: no monitor answers")
        if "object not found" in said.lower():
            return AccessDenied(f"{text}: the keyring {self.config.keyring} has no usable key of {self.config.user}")
        if ended.status == errno.EACCES or "permission denied" in said.lower():
            return AccessDenied(f"{text} (as {self.config.user})")
        if "error connecting" in said.lower():
            return Unreachable(text)
        return Rejected(text) if ended.status == errno.EINVAL else FenceError(text)

    @property
    def _name(self) -> str:
        return f"Ceph ({self.config.conf})"


def _entries(output: str) -> list[dict[str, Any]]:
    """Return the entries of all lists that were printed: that of addresses, and after it that of ranges."""
    decoder, found, rest = json.JSONDecoder(), list[dict[str, Any]](), output.strip()
    while rest:
        entries, end = decoder.raw_decode(rest)
        found += entries
        rest = rest[end:].strip()
    return found


def _entry(address: str) -> str:
    """Return the entry of a whole address as the list has it: every port, every client (nonce 0)."""
    return f"[{address}]:0/0" if ":" in address else f"{address}:0/0"


def _range(address: str) -> str:
    return f"{address}/128" if ":" in address else f"{address}/32"


def _range_entry(address: str) -> str:
    """Return the entry of a range of one address as the list has it."""
    return f"[{address}]:0/128" if ":" in address else f"{address}:0/32"
