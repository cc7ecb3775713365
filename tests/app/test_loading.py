"""A start imports the plugins that its configuration names, and tells of all that are installed where it names none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ha_controller.app.loading import load_config
from ha_controller.config import ConfigError

PLAIN = '[opennebula]\nauth = { file = "one_auth" }\n'
DEVICE = '[[fence]]\nname = "bmc"\nagent = "AGENT"\ninstructions = "ask the technician"\n'


@pytest.fixture
def written(tmp_path: Path):
    (tmp_path / "one_auth").write_text("oneadmin:password\n")
    (tmp_path / "one_auth").chmod(0o600)

    def write(text: str, *, beside: str = "") -> Path:
        (tmp_path / "config.toml").write_text(PLAIN.replace("one_auth", str(tmp_path / "one_auth")) + text)
        if beside:
            (tmp_path / "conf.d").mkdir()
            (tmp_path / "conf.d" / "more.toml").write_text(beside)
        return tmp_path / "config.toml"

    return write


def test_plugins_that_are_not_named_are_not_imported(written):
    code = (
        "import sys; from pathlib import Path; from ha_controller.app.loading import load_config\n"
        f"load_config(Path({str(written(DEVICE.replace('AGENT', 'manual')))!r}))\n"
        "print(*(name for name in sys.modules if name.startswith('ha_controller_')))\n"
        "print(*sorted({'asyncssh', 'pysnmp', 'pyghmi'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    ours, heavy = done.stdout.splitlines()
    assert {name.split(".")[0] for name in ours.split()} == {"ha_controller_manual"}
    assert heavy == ""


def test_a_kind_is_found_wherever_it_is_named(written, monkeypatch: pytest.MonkeyPatch):
    config, registry = load_config(written("", beside=DEVICE.replace("AGENT", "manual")))
    assert [device.agent for device in config.fence] == ["manual"]
    assert "ipmi" not in registry.agents
    monkeypatch.setenv("HA_ANYTHING", "[ipmi, pdu]")
    _, registry = load_config(written(""))
    assert {"ipmi", "pdu", "manual"} <= set(registry.agents)


def test_where_a_kind_is_misspelt_all_that_are_installed_are_looked_at(written):
    with pytest.raises(ConfigError, match="ipmi"):
        load_config(written(DEVICE.replace("AGENT", "ipmy")))


def test_a_file_that_is_no_toml_is_told_as_ever(written):
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_config(written("= nonsense"))
