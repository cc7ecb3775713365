"""From OpenNebula's own failure hook to a configuration, against the embedded OpenNebula."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import pytest

from ha_controller.app import check_config, migrate_from_hook
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_server import OnedServer

EDITED = """#!/bin/bash
# as an operator has edited it
USERNAME="root"
PASSWORD='hunter2'
RETRIES=5
while [ "$RETRIES" -gt 0 ]; do
    PROGRAM -P --ip=$FENCE_IP --password="${PASSWORD}" --username="${USERNAME}" --action=off && exit 0
done
"""
HOOK = {"NAME": "host_error", "TYPE": "state", "RESOURCE": "HOST", "STATE": "ERROR", "COMMAND": "ft/host_error.rb"}


class Site:
    """A cloud with the stock hook, and the command that replaces it."""

    def __init__(self, folder: Path, endpoint: str, server: OnedServer, cloud: EmbeddedCloud) -> None:
        self.endpoint, self.server, self.hosts = endpoint, server, cloud.oned.hosts
        self.auth, self.script, self.written = folder / "one_auth", folder / "fence_host.sh", folder / "config.toml"
        self.auth.write_text(cloud.session)
        self.auth.chmod(0o600)
        for host in self.hosts.values():
            host.attributes["FENCE_IP"] = "192.0.2.7"

    def install(self, arguments: str = "$TEMPLATE -m -p 5", program: str = "fence_ipmilan") -> None:
        self.server.hooks[3] = {**HOOK, "ARGUMENTS": arguments}
        self.script.write_text(EDITED.replace("PROGRAM", program))

    async def migrate(self, *, only_check: bool = False, to_file: bool = True) -> int:
        return await anyio.to_thread.run_sync(
            lambda: migrate_from_hook(
                endpoint=self.endpoint,
                auth_file=self.auth,
                script=self.script,
                write_to=self.written if to_file else None,
                only_check=only_check,
            )
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    cloud = EmbeddedCloud(hosts=3, vms_per_host=1, network=29)
    server = OnedServer(cloud.oned, session=cloud.session, clock=time.time)
    port = await server.start("127.0.0.1", 0)
    yield Site(tmp_path, f"http://127.0.0.1:{port}/RPC2", server, cloud)
    server.close()


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("fence_ipmilan", ['agent = "ipmi"', 'username = "root"']),
        ("ipmitool -H $FENCE_IP", ['agent = "ipmi"']),
        ("fence_redfish", ['agent = "redfish"']),
        ("fence_ilo5", ['agent = "fence-agents"', 'program = "fence_ilo5"', 'ip = "{FENCE_IP}", username = "root"']),
    ],
)
async def test_what_the_script_did_becomes_a_fence_device(site, capsys, program, lines):
    site.install(program=program)
    assert await site.migrate() == 0
    text = site.written.read_text()
    assert all(line in text for line in lines), text
    assert 'mode = "observe"' in text
    told = capsys.readouterr().err
    assert "line 4 of fence_host.sh" in told
    assert "hunter2" not in told + text


async def test_the_configuration_can_be_checked_as_it_is(site, tmp_path, capsys):
    site.install()
    await site.migrate()
    secret = tmp_path / "bmc"
    secret.write_text("x")
    secret.chmod(0o600)
    site.written.write_text(site.written.read_text().replace("/etc/ha-controller/secrets/bmc", str(secret)))
    assert check_config(site.written, origin=False) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("$TEMPLATE -m -p 5", "waits 300 s"),
        ("$TEMPLATE -m", "waits 120 s"),
        ("$TEMPLATE -r", "lost their disks"),
        ("$TEMPLATE -d", "no VM is ever deleted"),
        ("$TEMPLATE -m -u", "without fencing"),
        ("$TEMPLATE -r -f", "stay where they are"),
    ],
)
async def test_each_switch_of_the_hook_is_explained(site, capsys, arguments, told):
    site.install(arguments)
    await site.migrate()
    assert told in capsys.readouterr().err


async def test_a_hook_that_is_still_active_is_told_and_checked(site, capsys):
    site.install()
    await site.migrate()
    assert "host_error (id 3): onehook delete 3" in capsys.readouterr().err
    assert await site.migrate(only_check=True) == 4
    site.server.hooks.clear()
    assert await site.migrate(only_check=True) == 0


async def test_a_script_that_nobody_edited_has_never_fenced_anybody(site, capsys):
    site.install()
    site.script.write_text(f"#!/bin/bash\nexit 1\n{EDITED}")
    await site.migrate()
    assert "has never fenced anybody" in capsys.readouterr().err


async def test_hosts_without_an_address_are_named(site, capsys):
    site.install()
    del site.hosts[1].attributes["FENCE_IP"]
    await site.migrate()
    assert f"cannot be powered off: {site.hosts[1].name}" in capsys.readouterr().err


async def test_a_configuration_is_never_overwritten(site, capsys):
    site.install()
    site.written.write_text("mine")
    assert await site.migrate() == 1
    assert site.written.read_text() == "mine"
    assert await site.migrate(to_file=False) == 0
    assert 'mode = "observe"' in capsys.readouterr().out


async def test_an_opennebula_that_does_not_answer_is_told(site, capsys):
    site.server.close()
    site.endpoint = "http://127.0.0.1:9/RPC2"
    assert await site.migrate() == 7
    assert "127.0.0.1:9" in capsys.readouterr().err
