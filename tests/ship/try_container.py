"""The real Dockerfile, built by buildah on a Debian made by debootstrap, and run by crun as compose.yaml asks for it.

It needs root, buildah, crun and debootstrap. No registry of images is asked: the base is a build argument. What pip
installs comes from the folder with the files of requirements.lock.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ship.machine import KEPT, ROOT, TryFailed, base_root, eventually, main, say, wheelhouse
from tests.ship.pages import blocks

BASE = "localhost/ha-base"
#: the name that the page gives it
IMAGE = re.findall(r"--tag (\S+)", (ROOT / "docs/container.md").read_text())[0]
#: with a storage of its own, so that nothing of this machine is touched
BUILDAH = (
    "buildah",
    "--root",
    str(KEPT / "buildah/root"),
    "--runroot",
    str(KEPT / "buildah/run"),
    "--storage-driver",
    "vfs",
)
USER = 10001
HEALTHCHECK = ("/opt/ha-controller/bin/python", "/opt/ha-controller/healthcheck.py")
STOPS_WITHIN_S = 60.0
#: opens the two kinds of ICMP socket
PING = """
import socket
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
    try:
        socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
    except OSError as error:
        print(kind.name, type(error).__name__)
    else:
        print(kind.name, "opened")
"""
CONFIG = """
mode = "observe"
[opennebula]
endpoint = "http://127.0.0.1:9/RPC2"
auth = { file = "/etc/ha-controller/secrets/one_auth" }
"""


def buildah(*words: str) -> str:
    """Run it; returns what it printed."""
    done = subprocess.run([*BUILDAH, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TryFailed(f"buildah {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def make_base() -> None:
    """An image with python3 and venv, as python:slim is one."""
    say("a base image out of debootstrap's root")
    made = buildah("from", "scratch")
    buildah("add", "--quiet", made, str(base_root()), "/")
    with tempfile.NamedTemporaryFile("w", prefix="pip-", suffix=".conf") as pip_conf:
        pip_conf.write("[global]\nno-index = true\nfind-links = /srv/wheelhouse\n")
        pip_conf.flush()
        buildah("add", "--quiet", "--chmod", "644", made, pip_conf.name, "/etc/pip.conf")
    buildah("commit", "--quiet", "--rm", made, BASE)


def build() -> dict[str, Any]:
    """Run the page's `docker build` with buildah in Docker's place; returns the image's own settings."""
    [block] = blocks("docs/container.md", "As a container")
    say(f"{block}: {block.text()}")
    how = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false"]
    how += ["--build-arg", f"BASE={BASE}", "--volume", f"{wheelhouse()}:/srv/wheelhouse:ro"]
    with tempfile.TemporaryDirectory() as folder:
        docker = Path(folder, "docker")
        docker.write_text(
            f'#!/bin/sh\n[ "$1" = build ] && shift && exec {shlex.join([*BUILDAH, "build", *how])} "$@"\n'
        )
        docker.chmod(0o755)
        environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-euc", block.text()], cwd=ROOT, env=environ, capture_output=True, text=True)
    if done.returncode != 0:
        raise TryFailed(f"{block}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    made: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    print(json.dumps({key: value for key, value in made.items() if value}, indent=1))
    return made


@contextmanager
def image_root() -> Iterator[Path]:
    """The file system of the image."""
    made = buildah("from", "--pull-never", IMAGE)
    try:
        yield Path(buildah("mount", made))
    finally:
        buildah("rm", made)


def bundle(
    folder: Path, root: Path, words: Sequence[str], capabilities: dict[str, list[str]], ping_group: str = ""
) -> None:
    """What compose.yaml asks for, as crun is told: user, read-only root, no capability, tmpfs, the host's network.

    With `ping_group` it gets a network of its own, where that is net.ipv4.ping_group_range.
    """
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
        {
            "destination": "/run/ha-controller",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", f"uid={USER}", f"gid={USER}", "mode=0750"],
        },
    ]
    for name, where in (("etc", "/etc/ha-controller"), ("state", "/var/lib/ha-controller")):
        options = ["rbind", "ro"] if name == "etc" else ["rbind", "rw"]
        mounts.append({"destination": where, "type": "bind", "source": str(folder / name), "options": options})
    spaces = ["pid", "ipc", "uts", "mount", *(["network"] if ping_group else [])]
    linux: dict[str, Any] = {"namespaces": [{"type": each} for each in spaces]}
    if ping_group:
        linux["sysctl"] = {"net.ipv4.ping_group_range": ping_group}
    asked = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": USER, "gid": USER},
            "args": list(words),
            "env": ["PATH=/opt/ha-controller/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1", "HOME=/nonexistent"],
            "cwd": "/",
            "capabilities": capabilities,
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "linux": linux,
    }
    (folder / "config.json").write_text(json.dumps(asked))


@contextmanager
def bundles() -> Iterator[Path]:
    """A folder with the configuration, a secret and a state of the container's user."""
    with tempfile.TemporaryDirectory(prefix="try-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for each in ("etc/secrets", "state"):
            (folder / each).mkdir(parents=True)
        (folder / "etc/config.toml").write_text(CONFIG)
        (folder / "etc/secrets/one_auth").write_text("oneadmin:a-password\n")
        (folder / "etc/secrets/one_auth").chmod(0o600)
        for each in folder.rglob("*"):
            os.chown(each, USER, USER)
        yield folder


def crun(*words: str) -> list[str]:
    """The words that call it. It refuses hybrid control groups, so it is shown those of version 2."""
    whole = ["crun", "--root", str(KEPT / "crun"), "--cgroup-manager", "disabled", *words]
    return ["unshare", "--mount", "sh", "-c", 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"', "sh", *whole]


def run(
    folder: Path, root: Path, *words: str, capabilities: dict[str, list[str]] | None = None, ping_group: str = ""
) -> str:
    """Run one command in a container of its own; returns what it printed. Raises TryFailed: another code than 0."""
    bundle(folder, root, words, capabilities or {}, ping_group)
    name = f"try-{os.getpid()}-{time.monotonic_ns()}"
    done = subprocess.run(
        crun("run", "--bundle", str(folder), name), capture_output=True, text=True, check=False, timeout=600
    )
    print(f"# {' '.join(words)[:120]}\n{done.stdout}{done.stderr}", end="", flush=True)
    if done.returncode != 0:
        raise TryFailed(f"{words[0]}: exit code {done.returncode}")
    return done.stdout


def commands(folder: Path, root: Path) -> None:
    """What runs once."""
    run(folder, root, "ha-controller", "version")
    listed = run(folder, root, "ha-controller", "plugins", "list")
    for plugin, there in (("ipmi", True), ("pdu", False)):
        if (plugin in listed) != there:
            raise TryFailed(
                f"plugin {plugin}, which the page's command {'names' if there else 'does not name'}: {not there}"
            )
    run(folder, root, "ha-controller", "check-config")
    refused = "import os\ntry: open('/opt/x', 'w')\nexcept OSError as e: print(e.strerror)\nprint(os.getuid())"
    if run(folder, root, "python3", "-c", refused).split("\n")[:2] != ["Read-only file system", str(USER)]:
        raise TryFailed("the root can be written, or the user is another")


def ping(folder: Path, root: Path) -> None:
    """Which ICMP sockets open: without a right, with cap_add as Docker hands it on, ambient, and by the sysctl."""
    raw = ["CAP_NET_RAW"]
    bounded = {"bounding": raw}
    ambient = dict.fromkeys(("bounding", "permitted", "effective", "inheritable", "ambient"), raw)
    for what, capabilities, opens in (("none", {}, False), ("bounding", bounded, False), ("ambient", ambient, True)):
        say(f"CAP_NET_RAW: {what}")
        if ("SOCK_RAW opened" in run(folder, root, "python3", "-c", PING, capabilities=capabilities)) != opens:
            raise TryFailed(f"a raw socket with CAP_NET_RAW {what}: {not opens}")
    for group, opens in ((f"{USER} {USER}", True), ("1 0", False)):
        say(f"net.ipv4.ping_group_range: {group}")
        if ("SOCK_DGRAM opened" in run(folder, root, "python3", "-c", PING, ping_group=group)) != opens:
            raise TryFailed(f"an ICMP socket with ping_group_range {group}: {not opens}")


def serve(folder: Path, root: Path) -> None:
    """The controller itself: its health, and the stop signal."""
    bundle(folder, root, ["ha-controller", "serve"], {})
    name = f"try-{os.getpid()}-serve"
    process = subprocess.Popen(crun("run", "--bundle", str(folder), name), stdin=subprocess.DEVNULL)

    def is_healthy() -> bool:
        if process.poll() is not None:
            raise TryFailed(f"serve ended with {process.returncode}")
        done = subprocess.run(
            crun("exec", "--user", f"{USER}:{USER}", name, *HEALTHCHECK), capture_output=True, text=True, check=False
        )
        print(f"health check: {done.returncode} {done.stderr.strip()}", flush=True)
        return done.returncode == 0

    try:
        eventually("the health check is content", is_healthy)
        subprocess.run(crun("exec", "--user", f"{USER}:{USER}", name, "ha-controller", "status"), check=False)
        subprocess.run(crun("kill", name, signal.SIGTERM.name), check=True)
        if (code := process.wait(STOPS_WITHIN_S)) != 0:
            raise TryFailed(f"SIGTERM, and it ended with {code}")
        print("SIGTERM: ended with 0")
    finally:
        subprocess.run(crun("delete", "--force", name), check=False, capture_output=True)


def story() -> None:
    """All of it."""
    make_base()
    made = build()
    promised = {"User": "10001:10001", "StopSignal": "SIGTERM", "Entrypoint": ["ha-controller"], "Cmd": ["serve"]}
    for key, value in promised.items():
        if made.get(key) != value:
            raise TryFailed(f"{key} of the image is {made.get(key)}")
    if made["Healthcheck"]["Test"] != ["CMD", *HEALTHCHECK]:
        raise TryFailed(f"the health check is {made['Healthcheck']}")
    with image_root() as root, bundles() as folder:
        listed = json.loads((root / "opt/ha-controller/sbom.cdx.json").read_text())
        print(f"bill of materials: {len(listed['components'])} components")
        commands(folder, root)
        ping(folder, root)
        serve(folder, root)


if __name__ == "__main__":
    sys.argv[0] = __file__
    main(story)
