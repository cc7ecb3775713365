"""From nothing to a configuration, against the embedded OpenNebula."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from ha_controller.app import check_config
from ha_controller.app.first_config import default_gateway
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_server import OnedServer
from tests.cli.pretended import called
from tests.cli.terminal import terminal

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb"}
PROGRAM = [sys.executable, "-m", "ha_controller.cli"]


class Site:
    """An OpenNebula, and the files that a first configuration speaks of."""

    def __init__(
        self, folder: Path, port: int, cloud: EmbeddedCloud, server: OnedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._monkeypatch = monkeypatch
        self.cloud, self.server, self.folder = cloud, server, folder
        self.endpoint = f"http://127.0.0.1:{port}/RPC2"
        self.auth, self.bmc, self.config = folder / "one_auth", folder / "bmc", folder / "new" / "config.toml"
        for path, text in ((self.auth, cloud.session), (self.bmc, "hunter2")):
            path.write_text(text)
            path.chmod(0o600)
        for host in cloud.oned.hosts.values():
            host.attributes["FENCE_IP"] = "192.0.2.7"

    @property
    def words(self) -> list[str]:
        return ["init", "--endpoint", self.endpoint, "--auth", str(self.auth), "-o", str(self.config)]

    async def run(self, *words: str) -> tuple[int, str, str]:
        done = await anyio.to_thread.run_sync(lambda: called(*self.words, *words, monkeypatch=self._monkeypatch))
        return done.code, done.out, done.err


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    cloud = EmbeddedCloud(hosts=3, vms_per_host=1, network=31)
    server = OnedServer(cloud.oned, session=cloud.session, clock=time.time)
    yield Site(tmp_path, await server.start("127.0.0.1", 0), cloud, server, monkeypatch)
    server.close()


async def test_without_questions_a_good_configuration_in_mode_observe_is_written(site: Site):
    code, _, told = await site.run("--self-check", "192.0.2.9", "--password-file", str(site.bmc))
    assert code == 0, told
    assert "3 hosts: 3 in default" in told
    text = site.config.read_text()
    assert 'mode = "observe"' in text
    assert 'address = "{FENCE_IP}"' in text
    assert "hunter2" not in text + told
    assert site.cloud.session not in text + told
    assert await anyio.to_thread.run_sync(lambda: check_config(site.config, origin=False)) == 0


async def test_a_file_that_is_there_is_never_written_over(site: Site):
    site.config.parent.mkdir()
    site.config.write_text("mine")
    code, _, told = await site.run("--self-check", "192.0.2.9", "--password-file", str(site.bmc))
    assert (code, site.config.read_text()) == (1, "mine")
    assert "Nothing was written" in told


async def test_what_is_not_there_yet_is_told_with_the_line_that_names_it(site: Site):
    site.bmc.unlink()
    code, _, told = await site.run("--self-check", "192.0.2.9", "--password-file", str(site.bmc))
    assert code == 78
    assert "config.toml:" in told
    assert str(site.bmc) in told


async def test_hosts_that_could_not_be_powered_off_and_hooks_are_told(site: Site):
    next(iter(site.cloud.oned.hosts.values())).attributes.pop("FENCE_IP")
    site.server.hooks[3] = {
        "NAME": "host_error", "TYPE": "state", "RESOURCE": "HOST", "STATE": "ERROR", "COMMAND": "ft/host_error.rb",
    }  # fmt: skip
    code, text, told = await site.run("-o", "-", "--self-check", "192.0.2.9")
    assert code == 0
    assert "without FENCE_IP, so they could not be powered off: kvm-" in told
    assert "migrate-from-hook" in told
    assert 'agent = "ipmi"' in text


async def test_without_opennebula_nothing_is_written(site: Site):
    site.server.close()
    code, _, told = await site.run()
    assert code == 7
    assert "Nothing was written" in told
    assert not site.config.parent.exists()


async def test_at_a_terminal_six_questions_are_asked(site: Site):
    def type_answers() -> None:
        with terminal([*PROGRAM, "init"], {**ENVIRONMENT, "ONE_XMLRPC": "", "ONE_AUTH": ""}) as screen:
            for question, answer in (
                ("XML-RPC", site.endpoint), ("user:password", str(site.auth)), ("Gateway", "192.0.2.9, 192.0.2.10"),
                ("powered off (", "redfish"), ("User name", "fencer"), ("their password", str(site.bmc)),
                ("Where to write", str(site.config)),
            ):  # fmt: skip
                screen.wait_for(question)
                screen.type(f"{answer}\n")
            assert screen.process.wait(timeout=60) == 0

    await anyio.to_thread.run_sync(type_answers)
    text = site.config.read_text()
    assert 'self_check = ["192.0.2.9", "192.0.2.10"]' in text
    assert 'agent = "redfish"' in text


def test_the_gateway_is_the_kernels(tmp_path: Path):
    routes = tmp_path / "route"
    routes.write_text(
        "Iface\tDestination\tGateway\tFlags\neth0\t0002A8C0\t00000000\t0001\neth0\t00000000\t0102A8C0\t3\n"
    )
    assert default_gateway(routes) == "192.168.2.1"
    assert default_gateway(tmp_path / "none") == "192.0.2.1"
