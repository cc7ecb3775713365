"""What the files for containers say of each other and of the project. Built and run: `make container`."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ship.docker import Container

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "packaging/container"
COMPOSE = ("compose.yaml", "compose.etcd.yaml")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
#: comments away, continued lines joined
DOCKERFILE = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()))


def arguments(instruction: str) -> list[str]:
    return re.findall(rf"(?m)^{instruction} +(.*)$", DOCKERFILE)


def composed(name: str) -> dict[str, Any]:
    """Its variables have their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (CONTAINER / name).read_text())
    assert "${" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def controllers(name: str) -> dict[str, dict[str, Any]]:
    services = composed(name)["services"]
    return {key: each for key, each in services.items() if each["image"].startswith("ha-controller")}


def test_the_dockerfile_copies_what_exists_and_what_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    let_in = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    sources = [word for words in arguments("COPY") if not words.startswith("--from") for word in words.split()[:-1]]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in, source


def test_plugins_that_are_built_by_default_exist():
    named = re.findall(r'(?m)^ARG PLUGINS="(.*)"', DOCKERFILE)[0].split()
    named += composed("compose.yaml")["services"]["ha-controller"]["build"]["args"]["PLUGINS"].split()
    assert named and all((ROOT / "plugins" / each / "pyproject.toml").exists() for each in named)


def test_versions_agree():
    assert re.findall(r"(?m)^ARG VERSION=(.*)$", DOCKERFILE) == [VERSION]
    for name in COMPOSE:
        assert {each["image"] for each in controllers(name).values()} == {f"ha-controller:{VERSION}"}


def test_the_image_runs_as_an_ordinary_user_and_asks_for_its_health_without_a_shell():
    assert arguments("USER") == ["10001:10001"]
    check = json.loads(arguments("HEALTHCHECK")[0].split("CMD", 1)[1])
    copied = [words.split() for words in arguments("COPY") if "healthcheck" in words]
    assert check[1] == copied[0][1]
    assert json.loads(arguments("CMD")[-1]) == ["serve"]


@pytest.mark.parametrize("name", COMPOSE)
def test_controllers_are_locked_in(name: str):
    found = controllers(name)
    assert len(found) == (1 if name == "compose.yaml" else 2)
    for each in found.values():
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"] and "cap_add" not in each and "privileged" not in each
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert each["network_mode"] == "host"
        assert any(line.startswith("/run/ha-controller:uid=10001,gid=10001") for line in each["tmpfs"])


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_name_what_they_define(name: str):
    whole = composed(name)
    states = []
    for each in whole["services"].values():
        assert {use["source"] for use in each.get("configs", [])} <= whole["configs"].keys()
        assert {use["source"] for use in each.get("secrets", [])} <= whole["secrets"].keys()
        states += [volume.split(":")[0] for volume in each["volumes"]]
    assert sorted(states) == sorted(whole["volumes"]), "each volume belongs to one service"


@pytest.mark.parametrize("name", COMPOSE)
def test_secrets_lie_where_the_example_looks_for_them(name: str):
    example = (ROOT / "config.example.toml").read_text()
    for each in controllers(name).values():
        for use in each["secrets"]:
            assert f'"{use["target"]}"' in example


def test_the_variables_of_the_two_controllers_are_settings(tmp_path: Path):
    secret = tmp_path / "one_auth"
    secret.write_text("oneadmin:a-password")
    secret.chmod(0o600)
    config = tmp_path / "config.toml"
    config.write_text(f'[opennebula]\nauth = {{ file = "{secret}" }}\n')
    first, second = (each["environment"] for each in controllers("compose.etcd.yaml").values())
    assert first == second
    words = [sys.executable, "-c", "from ha_controller.cli import main; main()", "check-config", "-c", str(config)]
    environ = {**os.environ, **first}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = subprocess.run(words, env={**environ, "HA_LEADER__ENDPOINTS": "[]"}, capture_output=True, check=False)
    assert wrong.returncode != 0, "the variables are not read"


def test_three_members_of_etcd_know_each_other():
    members = {key: each for key, each in composed("compose.etcd.yaml")["services"].items() if key.startswith("etcd-")}
    assert len(members) == 3
    clusters, peers, clients = set(), set(), set()
    for key, each in members.items():
        flags = dict(word.removeprefix("--").split("=", 1) for word in each["command"][1:])
        assert each["profiles"] == [flags["name"]] == [key.removeprefix("etcd-")]
        assert flags["listen-client-urls"] == flags["advertise-client-urls"]
        assert flags["listen-peer-urls"] == flags["initial-advertise-peer-urls"]
        assert each["volumes"] == [f"{key}:{flags['data-dir']}"]
        clusters.add(flags["initial-cluster"])
        peers.add(f"{flags['name']}={flags['listen-peer-urls']}")
        clients.add(flags["listen-client-urls"])
    assert len(clusters) == 1 and set(clusters.pop().split(",")) == peers
    for each in controllers("compose.etcd.yaml").values():
        assert set(json.loads(each["environment"]["HA_LEADER__ENDPOINTS"])) == clients


@pytest.mark.parametrize(("answer", "code"), [("200 OK", 0), ("503 Service Unavailable", 1), ("", 1), (None, 1)])
def test_the_health_check_ends_with_0_for_a_controller_that_decides_only(tmp_path: Path, answer: str | None, code: int):
    place = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        if answer is not None:
            listening.bind(str(place))
            listening.listen()

            def serve() -> None:
                connection, _ = listening.accept()
                with connection:
                    assert connection.recv(1024).startswith(b"GET /livez ")
                    connection.sendall(f"HTTP/1.0 {answer}\r\n\r\n".encode() if answer else b"")

            threading.Thread(target=serve, daemon=True).start()
        words = [sys.executable, "-I", str(CONTAINER / "healthcheck.py")]
        done = subprocess.run(words, env={"HA_API__SOCKET": str(place)}, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert (done.stderr == "") == (code == 0)


def test_the_bill_of_materials_lists_what_is_installed_with_licences():
    words = [sys.executable, str(ROOT / "packaging/sbom.py")]
    listed = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    assert listed["metadata"]["component"]["version"] == VERSION
    components = {each["name"]: each for each in listed["components"]}
    assert components["lxml"]["purl"].startswith("pkg:pypi/lxml@")
    assert components["aiohttp"]["licenses"][0]["expression"].startswith("Apache-2.0")
    references = {each["bom-ref"] for each in [listed["metadata"]["component"], *listed["components"]]}
    depends = {each["ref"]: each["dependsOn"] for each in listed["dependencies"]}
    assert depends.keys() == references and {each for needed in depends.values() for each in needed} <= references
    assert components["lxml"]["bom-ref"] in depends[listed["metadata"]["component"]["bom-ref"]]


#: the image's own settings, as far as they are used
IMAGE = {"Entrypoint": arguments("ENTRYPOINT")[0].strip('[]"').split(), "User": "10001:10001", "Env": ["PATH=/bin"]}


@pytest.mark.parametrize("name", COMPOSE)
def test_all_that_a_compose_file_asks_of_a_controller_is_handed_to_crun(name: str, tmp_path: Path):
    whole = composed(name)
    for key, service in controllers(name).items():
        made = Container(whole, key, IMAGE).bundle(tmp_path)
        process, mounts = made["process"], {each["destination"]: each for each in made["mounts"]}
        assert (process["args"], process["user"]) == (["ha-controller", "serve"], {"uid": 10001, "gid": 10001})
        assert (process["capabilities"], process["noNewPrivileges"], made["root"]["readonly"]) == ({}, True, True)
        assert not any(each["type"] == "network" for each in made["linux"]["namespaces"])
        for use in [*service["configs"], *service["secrets"]]:
            assert mounts[use["target"]]["options"] == ["bind", "ro"]
        assert "rw" in mounts["/var/lib/ha-controller"]["options"]
        assert "uid=10001" in mounts["/run/ha-controller"]["options"]
        assert {f"{each}={value}" for each, value in service.get("environment", {}).items()} <= set(process["env"])


@pytest.mark.parametrize(("key", "value"), [("privileged", True), ("network_mode", "bridge"), ("cap_drop", [])])
def test_what_the_stand_in_for_docker_does_not_know_is_refused(key: str, value: object, tmp_path: Path):
    whole = composed("compose.yaml")
    whole["services"]["ha-controller"][key] = value
    with pytest.raises(SystemExit, match=r"not known of a service|not to be had"):
        Container(whole, "ha-controller", IMAGE).bundle(tmp_path)
