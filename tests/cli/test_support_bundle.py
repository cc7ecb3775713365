"""A support bundle has what helps, and none of the secrets that were planted wherever one could get in."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ha_controller.app.support import Mask, configuration
from tests.cli.pretended import Commands, Printed, called

FROM_FILE, FROM_VARIABLE, FROM_COMMAND, LITERAL, IN_URL, AS_ARGUMENT, OF_CREDENTIAL, WITH_QUOTES, STRAY = (
    "h0rse-battery", "variable-s3cret", "c0mmand-output", "literal-pa55", "url-pa55word", "argument-t0ken",
    "credential-0ne", 'with"quote\\and', "nobody-knows-1t",
)  # fmt: skip
PLANTED = (
    FROM_FILE, FROM_VARIABLE, FROM_COMMAND, LITERAL, IN_URL, AS_ARGUMENT, OF_CREDENTIAL, WITH_QUOTES,
    json.dumps(WITH_QUOTES)[1:-1], STRAY,
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that has secrets in every way, also where none belongs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BMC_PASSWORD", FROM_VARIABLE)
    monkeypatch.setenv("HA_LEADER__PASSWORD", LITERAL)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    (tmp_path / "conf.d").mkdir()
    for name, text in (
        ("one_auth", f"oneadmin:{FROM_FILE}"),
        ("quotes", WITH_QUOTES),
        ("credentials/pdu", OF_CREDENTIAL),
    ):
        (tmp_path / name).write_text(f"{text}\n")
        (tmp_path / name).chmod(0o600)
    program = tmp_path / "vault"
    program.write_text(f"#!/bin/sh\necho {FROM_COMMAND}\n")
    program.chmod(0o755)
    path = tmp_path / "config.toml"
    path.write_text(f"""
mode = "observe"
[opennebula]
endpoint = "https://oneadmin:{IN_URL}@one.example/RPC2"
auth = {{ file = "{tmp_path}/one_auth" }}
[[fence]]
name = "bmc"
agent = "ipmi"
address = "{{FENCE_IP}}"
password = {{ env = "BMC_PASSWORD" }}
[[fence]]
name = "pdu"
agent = "pdu"
auth_password = "{LITERAL}"
priv_password = {{ command = ["{program}", "--token", "{AS_ARGUMENT}"] }}
""")
    (tmp_path / "conf.d" / "more.toml").write_text(f"""
[[notify]]
name = "chat"
notifier = "slack"
url = "https://hooks.example/{LITERAL}"
[[notify]]
name = "script"
notifier = "command"
command = ["/usr/bin/tell", "--key", "{AS_ARGUMENT}"]
credential = {{ credential = "pdu" }}
quotes = {{ file = "{tmp_path}/quotes" }}
""")
    return path


@pytest.fixture
def contents(commands: Commands, config: Path, tmp_path: Path) -> dict[str, str]:
    """The files of a bundle; everything that the controller said had planted secrets in it."""
    commands.pretended.answers["/api/v1/events"][0]["text"] = f"a device said: {' '.join(PLANTED[:8])}"
    commands.pretended.answers["/api/v1/hosts"][0]["note"] = f"login {FROM_FILE} and {WITH_QUOTES}"
    commands.pretended.answers["/metrics"] = f"# {FROM_VARIABLE}"
    commands.pretended.answers["/api/v1/config"]["values"][0]["value"] = FROM_FILE
    del commands.pretended.answers["/api/v1/simulate/capacity"]
    log = tmp_path / "log"
    log.write_text(
        f'error="login oneadmin:{FROM_FILE}" password={STRAY}\n"token": "{STRAY}"\nAuthorization: Bearer {STRAY}\n'
    )
    done = commands("support-bundle", "bundle.tar.gz", "-c", str(config), "--log", str(log))
    assert done.code == 0, done.err
    with tarfile.open(tmp_path / "bundle.tar.gz") as bundle:
        return {
            member.name.partition("/")[2]: bundle.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in bundle.getmembers()
        }


def test_no_secret_is_in_any_file(contents: dict[str, str]):
    found = [(name, secret) for name, text in contents.items() for secret in PLANTED if secret in text]
    assert found == []


def test_what_helps_is_in_it(contents: dict[str, str]):
    assert json.loads(contents["answers/status.json"])["code"] == 1
    assert [host["name"] for host in json.loads(contents["answers/hosts.json"])][:2] == ["kvm-03", "kvm-05"]
    assert json.loads(contents["answers/explain-kvm-03.json"])["state"] == "recovered"
    assert "anyio" in json.loads(contents["versions.json"])["distributions"]
    assert "not to be had" in contents["answers/capacity.json"]
    assert json.loads(contents["answers/config-in-force.json"])["values"][1]["origin"] == "config.toml:7"
    config = contents["config.txt"]
    assert 'fence.0.address = "{FENCE_IP}"' in config
    assert 'fence.0.password = {env = "BMC_PASSWORD"}' in config
    assert 'mode = "observe"' in config
    assert "HA_LEADER__PASSWORD" in config
    assert "config.toml" in contents["check-config.txt"]
    assert "(hidden)" in contents["log.txt"]


def test_only_its_owner_may_read_it_and_nothing_is_written_over(
    contents: dict[str, str], tmp_path: Path, commands: Commands, config: Path
):
    bundle = tmp_path / "bundle.tar.gz"
    assert bundle.stat().st_mode & 0o777 == 0o600
    before = bundle.read_bytes()
    assert commands("support-bundle", str(bundle), "-c", str(config)).code == 1
    assert bundle.read_bytes() == before


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Printed]:
    return lambda *words: called("--socket", "/nowhere", *words, monkeypatch=monkeypatch)


def test_without_a_controller_and_with_a_bad_configuration_the_rest_is_collected(
    alone: Callable[..., Printed], config: Path, tmp_path: Path
):
    config.write_text(f'[opennebula\npassword = "{LITERAL}"')
    (tmp_path / "one_auth").unlink()
    done = alone("support-bundle", "alone.tar.gz", "-c", str(config))
    assert done.code == 0, done.err
    with tarfile.open(tmp_path / "alone.tar.gz") as bundle:
        texts = [bundle.extractfile(member).read().decode() for member in bundle.getmembers()]  # type: ignore[union-attr]
    assert not any(LITERAL in text for text in texts)
    assert any("is not reachable" in text for text in texts)
    assert any("not TOML" in text for text in texts)


def test_a_secret_that_could_not_be_read_is_told(alone: Callable[..., Printed], config: Path, tmp_path: Path):
    (tmp_path / "one_auth").unlink()
    assert "could not be read, so were not looked for" in alone("support-bundle", "x.tar.gz", "-c", str(config)).err


@pytest.mark.parametrize(
    "told",
    [
        "IPMI_PASSWORD=hunter2", '{"FENCE_PASSWORD": "hunter2"}', "access_token=hunter2", 'password="a hunter2,c"',
        'password: "a\\" hunter2"', "Authorization: Bearer hunter2", "bmc-password = hunter2",
    ],
)  # fmt: skip
def test_what_programs_print_of_their_logins_is_hidden(told: str):
    hidden = Mask()(f"before {told} \nafter")
    assert "hunter2" not in hidden
    assert hidden.startswith("before ")
    assert hidden.endswith("after")


def test_of_a_file_that_cannot_be_read_it_is_told_that_its_secrets_are_not_known(tmp_path: Path):
    (tmp_path / "config.toml").write_text('pin = 123456\nX-Api-Key = "hunter2"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "broken.toml").write_text("password = ")
    (tmp_path / "conf.d" / "odd.toml").write_bytes(b"\xff\xfe")
    mask = Mask()
    shown = configuration(tmp_path / "config.toml", mask)
    assert "123456" not in shown
    assert "hunter2" not in shown
    assert ["broken.toml" in mask.unread[0], "odd.toml" in mask.unread[1]] == [True, True]
