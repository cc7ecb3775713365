"""A third party's agent: the skeleton that is written, and the example that is used from its wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ha-controller-acme"


def run(*command: str | Path, cwd: Path | None = None, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [path, ROOT] if path else [ROOT]))}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def commands(*words: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "ha_controller.cli", *words, path=path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The example, built as a wheel and installed from it, nothing else."""
    folder = tmp_path_factory.mktemp("acme")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    built = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, EXAMPLE)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    done = run(*pip, "install", "--no-deps", "--no-index", "--target", site, wheel)
    assert done.returncode == 0, done.stderr
    return site


def test_the_agent_is_found_by_its_entry_point(installed):
    listed = json.loads(commands("plugins", "list", "-o", "json", path=installed).stdout)
    (acme,) = [row for row in listed if row["name"] == "acme"]
    assert (acme["kinds"], acme["distribution"], acme["error"]) == (["acme"], "ha-controller-acme", "")


def test_its_settings_are_shown_with_their_meaning(installed):
    shown = commands("plugins", "show", "acme", path=installed)
    assert shown.returncode == 0
    assert "literal IP address of the device" in shown.stdout
    assert "READ_POWER" in shown.stdout


def test_a_configuration_may_use_it_and_its_mistakes_are_told_with_file_and_line(installed, tmp_path):
    auth = tmp_path / "one_auth"
    auth.write_text("oneadmin:secret")
    auth.chmod(0o600)
    text = (
        f'[opennebula]\nauth = {{ file = "{auth}" }}\n[[fence]]\nname = "box"\nagent = "acme"\n'
        'address = "{FENCE_IP}"\nport = PORT\npassword = "{BOX_PASSWORD}"\n'
    )
    config = tmp_path / "config.toml"
    config.write_text(text.replace("PORT", "7000"))
    good = commands("check-config", "-c", config, path=installed)
    assert good.returncode == 0, good.stderr
    config.write_text(text.replace("PORT", '"x"'))
    bad = commands("check-config", "-c", config, path=installed)
    assert bad.returncode == 78
    assert "config.toml:7" in bad.stderr


def test_without_it_the_configuration_says_which_agents_there_are(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[[fence]]\nname = "box"\nagent = "acme"\naddress = "x"\n')
    told = commands("check-config", "-c", config)
    assert told.returncode == 78
    assert "acme" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", ["the example", "a new skeleton"])
def test_it_passes_its_own_conformance_test(where, tmp_path):
    root = EXAMPLE
    if where == "a new skeleton":
        made = commands("plugins", "new", "my-box", "--directory", tmp_path)
        assert made.returncode == 0, made.stderr
        root = tmp_path / "ha-controller-my-box"
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", cwd=root, path=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 passed" in done.stdout


@pytest.mark.parametrize("name", ["Acme", "a b", "../up", ""])
def test_a_bad_name_for_a_new_plugin_is_refused(name, tmp_path):
    told = commands("plugins", "new", name, "--directory", tmp_path)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert list(tmp_path.iterdir()) == []
