"""A first configuration, in mode observe, from what OpenNebula says of its hosts. Changes nothing there."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from pydantic import SecretStr

from ha_controller.adapters.opennebula import Client, OnedHook, OnedHost, OpenNebulaError
from ha_controller.app.surroundings import restarts_vms
from ha_controller.config.positions import as_toml

ROUTES = Path("/proc/net/route")
DOCUMENTATION_ADDRESS = "192.0.2.1"
ADDRESS_ATTRIBUTES = ("FENCE_IP", "BMC_IP", "IPMI_IP", "ILO_IP")  #: FENCE_IP is what OpenNebula's own hook reads


class NotRead(Exception):
    """OpenNebula, or the file with its login, cannot be read. The text says which, and why."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What OpenNebula says."""

    hosts: Sequence[OnedHost]
    hooks: Sequence[OnedHook]

    @property
    def address_attribute(self) -> str:
        """The attribute that holds the BMC's address on most hosts; empty when there is none."""
        counted = Counter(name for host in self.hosts for name in ADDRESS_ATTRIBUTES if host.template.get(name))
        return max(ADDRESS_ATTRIBUTES, key=lambda name: counted[name]) if counted else ""

    def told(self) -> list[str]:
        """What a person should know of it, a line each."""
        clusters = Counter(host.cluster for host in self.hosts)
        lines = [f"{len(self.hosts)} hosts: " + ", ".join(f"{count} in {name}" for name, count in clusters.items())]
        attribute = self.address_attribute or ADDRESS_ATTRIBUTES[0]
        bare = sorted(host.name for host in self.hosts if not host.template.get(attribute))
        if bare:
            more = f" and {len(bare) - 8} more" if len(bare) > 8 else ""
            lines.append(f"without {attribute}, so they could not be powered off: {', '.join(bare[:8])}{more}")
        lines += [
            f"active failure hook: {hook.name} (id {hook.id}). See: ha-controller migrate-from-hook"
            for hook in self.hooks
            if restarts_vms(hook)
        ]
        return lines


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a person answered."""

    endpoint: str
    auth_file: Path
    witnesses: Sequence[str]
    agent: str  #: "ipmi", "redfish", or "none"
    address: str
    username: str
    password_file: Path


def read_site(endpoint: str, auth_file: Path) -> Site:
    """Ask OpenNebula.

    Raises:
        NotRead: it does not answer, or the login cannot be read.
    """
    try:
        session = auth_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise NotRead(f"{auth_file}: {why}") from None
    if ":" not in session:
        raise NotRead(f"{auth_file}: it must hold user:password")
    try:
        return anyio.run(_read, endpoint, session)
    except (OpenNebulaError, ValueError) as error:
        raise NotRead(f"OpenNebula at {endpoint}: {error}") from None


async def _read(endpoint: str, session: str) -> Site:
    async with Client(endpoint, SecretStr(session)) as client:
        return Site(hosts=list(await client.hosts()), hooks=list(await client.hooks()))


def default_gateway(routes: Path = ROUTES) -> str:
    """The address of the gateway that the kernel uses; of the documentation when it has none."""
    try:
        rows = [line.split() for line in routes.read_text().splitlines()[1:]]
    except OSError:
        return DOCUMENTATION_ADDRESS
    for row in rows:
        if len(row) > 2 and row[1] == "00000000" and row[2] != "00000000":
            return str(ipaddress.IPv4Address(bytes.fromhex(row[2])[::-1]))  # little end first, proc(5)
    return DOCUMENTATION_ADDRESS


def first_config(site: Site, answers: Answers) -> str:
    """The configuration as text."""
    witnesses = as_toml(list(answers.witnesses))
    made_up = DOCUMENTATION_ADDRESS in answers.witnesses
    lines = [
        "# Written by `ha-controller init`. Every other setting has its default: docs/settings.md.",
        "# Nothing is switched off until you change `mode`. Check it with: ha-controller check-config",
        "",
        'mode = "observe"                 # observe: decide and tell | approve: ask before each power-off | auto: act',
        "",
        "[opennebula]",
        f"endpoint = {as_toml(answers.endpoint)}",
        f"auth = {{ file = {as_toml(str(answers.auth_file))} }}",
        "",
        "[guard]",
        f"self_check = {witnesses}{'   # SET' if made_up else ''}   # when we cannot reach these, *we* are cut off",
    ]
    if answers.agent != "none":
        lines += [
            "",
            "[[fence]]",
            'name = "bmc"',
            f"agent = {as_toml(answers.agent)}",
            f"address = {as_toml(answers.address)}   # attribute of the host in OpenNebula",
            f"username = {as_toml(answers.username)}",
            f"password = {{ file = {as_toml(str(answers.password_file))} }}",
        ]
    return "\n".join([*lines, ""])
