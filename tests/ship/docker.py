"""In Docker's place where there is none: `docker build` is buildah's, and crun runs what `docker compose` is asked for.

It understands what docs/container.md types, and refuses each key of a compose file that it does not know, so that
nothing is passed over unseen. It runs on a try machine, with the Python of the distribution, and needs buildah, crun
and PyYAML beside it.

What it has not: a daemon (what restarts, rotates logs and asks for the health), an init, seccomp, and a registry. The
base image is made of the Debian packages of the machine, in the place of python:slim.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

HOME = Path("/var/lib/try-docker")
VOLUMES = HOME / "volumes"
BASE = "localhost/base"
BUILDAH = ("buildah", "--root", f"{HOME}/storage", "--runroot", f"{HOME}/run", "--storage-driver", "overlay")
#: with the essential ones, what python:slim has, as far as the Dockerfile and the program use it
PACKAGES = "python3 python3-venv passwd libc-bin ca-certificates tzdata"
#: keys of a service that are for a daemon, for `docker compose build`, or need a right that no try machine may have
PASSED_OVER = {"build", "init", "restart", "logging", "stop_grace_period", "profiles", "oom_score_adj"}
STOPS_WITHIN_S = 30.0


def fail(text: str) -> NoReturn:
    """End with a sentence."""
    sys.exit(f"docker (the one in its place): {text}")


def told(*words: str) -> str:
    """Run it; returns what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def build(words: Sequence[str]) -> int:
    """`docker build`."""
    if subprocess.run([*BUILDAH, "images", "--quiet", BASE], capture_output=True, check=False).returncode != 0:
        make_base()
    how = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false", "--quiet"]
    how += ["--build-arg", f"BASE={BASE}", "--volume", "/srv/wheelhouse:/srv/wheelhouse:ro"]
    return subprocess.run([*BUILDAH, "build", *how, *words], check=False).returncode


def make_base() -> None:
    """Python, its venv and Debian's tools, each file that their packages have here."""
    rows = told("dpkg-query", "--show", "--showformat", "${Package}\t${Depends},${Pre-Depends}\t.${Essential}\n")
    needs, taken, left = dict[str, list[str]](), set[str](), PACKAGES.split()
    for name, depends, essential in (row.split("\t") for row in rows.split("\n")):
        needs[name] = re.findall(r"[a-z0-9][a-z0-9+.-]+", depends)
        left += [name] if essential == ".yes" else []
    while left:
        if (name := left.pop()) in needs and name not in taken:
            taken.add(name)
            left += needs[name]
    files = set[str]()
    for line in told("dpkg-query", "--listfiles", *sorted(taken)).split("\n"):
        path = Path(line)
        if line.startswith("/") and not line.startswith("/usr/share/doc/") and (path.is_symlink() or path.is_file()):
            files.add(str(path.parent.resolve() / path.name))
    files |= {
        each
        for each in (
            "/bin",
            "/sbin",
            "/lib",
            "/lib64",
            "/etc/ld.so.cache",
            "/etc/pip.conf",
            "/etc/ssl/certs/ca-certificates.crt",
        )
        if os.path.lexists(each)
    }
    made = told(*BUILDAH, "from", "scratch")
    root = told(*BUILDAH, "mount", made)
    packed = subprocess.Popen(
        ["tar", "-C", "/", "-c", "--null", "-T", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert packed.stdin is not None and packed.stdout is not None
    unpacked = subprocess.Popen(["tar", "-C", root, "-x", "-p"], stdin=packed.stdout)
    packed.stdin.write(b"\0".join(each[1:].encode() for each in sorted(files)))
    packed.stdin.close()
    if packed.wait() or unpacked.wait():
        fail("no base image")
    for each in ("tmp", "var/tmp", "run", "proc", "sys", "dev", "root", "home"):
        Path(root, each).mkdir(parents=True, exist_ok=True)
    Path(root, "tmp").chmod(0o1777)
    for name in ("passwd", "group"):
        Path(root, "etc", name).write_bytes(Path(root, f"usr/share/base-passwd/{name}.master").read_bytes())
    told(*BUILDAH, "commit", "--quiet", "--rm", made, BASE)


def compose(words: Sequence[str]) -> int:
    """`docker compose -f FILE up --detach | run --rm SERVICE ... | exec SERVICE ... | restart`."""
    match words:
        case ["-f", file, *rest]:
            import yaml

            whole = yaml.safe_load(with_variables(Path(file).read_text(), os.environ))
        case _:
            fail(f"not understood: {words}")
    match rest:
        case ["up", "--detach"]:
            return max(container(whole, name).start() for name in whole["services"])
        case ["run", "--rm", str(name), *command]:
            return container(whole, name).once(command)
        case ["exec", str(name), *command]:
            return container(whole, name).execute(command)
        case ["restart"]:
            return max(container(whole, name).stop() or container(whole, name).start() for name in whole["services"])
        case _:
            fail(f"not understood: {rest}")


def with_variables(text: str, environ: Mapping[str, str]) -> str:
    """A compose file with its ${NAME:-default}."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environ.get(found[1]) or found[2], text)


def container(whole: dict[str, Any], name: str) -> Container:
    """One service of a compose file, with its image. Raises KeyError: there is no such service."""
    image = told(*BUILDAH, "inspect", "--type", "image", whole["services"][name]["image"])
    return Container(whole, name, json.loads(image)["Docker"]["config"])


class Container:
    """One service of a compose file."""

    def __init__(self, whole: dict[str, Any], name: str, image: dict[str, Any]) -> None:
        """`image`: the image's own settings."""
        self._whole, self._asked, self._image = whole, dict(whole["services"][name]), image
        self.name = f"{whole['name']}-{name}-1"

    def start(self) -> int:
        """In the background; what it prints goes into a file."""
        with (HOME / f"{self.name}.log").open("ab") as log:
            words = ["crun", "run", "--detach", "--bundle", str(self._bundle(self.name, None)), self.name]
            return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode

    def once(self, command: Sequence[str]) -> int:
        """Another container of it, until its command ends."""
        name = f"{self.name}-run-{os.getpid()}"
        return subprocess.run(
            ["crun", "run", "--bundle", str(self._bundle(name, command)), name], check=False
        ).returncode

    def execute(self, command: Sequence[str]) -> int:
        """Beside it."""
        return subprocess.run(
            ["crun", "exec", "--user", self._image["User"], self.name, *command], check=False
        ).returncode

    def stop(self) -> int:
        """By the signal of the image."""
        told("crun", "kill", self.name, self._image["StopSignal"])
        deadline = time.monotonic() + STOPS_WITHIN_S
        while json.loads(told("crun", "state", self.name))["status"] != "stopped":
            if time.monotonic() > deadline:
                fail(f"{self.name} does not stop")
            time.sleep(0.1)
        told("crun", "delete", self.name)
        return 0

    def _bundle(self, name: str, command: Sequence[str] | None) -> Path:
        root = Path(told(*BUILDAH, "mount", told(*BUILDAH, "from", "--pull-never", self._asked["image"])))
        for each in self._asked.get("volumes", []):
            volume, where = each.split(":")
            make_volume(VOLUMES / volume, root / where[1:])
        folder = HOME / "bundles" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.bundle(root, command), indent=1))
        return folder

    def bundle(self, root: Path, command: Sequence[str] | None = None) -> dict[str, Any]:
        """What the file asks for, as crun is told."""
        taken = {key: value for key, value in self._asked.items() if key not in PASSED_OVER and key != "image"}
        words = [*self._image["Entrypoint"], *(taken.pop("command") if command is None else command)]
        taken.pop("command", None)
        user, group = map(int, self._image["User"].split(":"))
        if taken.pop("network_mode") != "host" or taken.pop("cap_drop") != ["ALL"]:
            fail("another network than the host's, or rights, are not to be had here")
        variables = [*self._image["Env"], *(f"{key}={value}" for key, value in taken.pop("environment", {}).items())]
        asked = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": words,
                "env": variables,
                "cwd": "/",
                "capabilities": {},
                "noNewPrivileges": taken.pop("security_opt", []) == ["no-new-privileges:true"],
                "rlimits": [limit(key, value) for key, value in taken.pop("ulimits", {}).items()],
            },
            "root": {"path": str(root), "readonly": taken.pop("read_only", False)},
            "mounts": list(self._mounts(taken)),
            "linux": {"namespaces": [{"type": each} for each in ("pid", "ipc", "uts", "mount")]},
        }
        if taken:
            fail(f"not known of a service: {', '.join(taken)}")
        return asked

    def _mounts(self, taken: dict[str, Any]) -> Iterable[dict[str, Any]]:
        yield {"destination": "/proc", "type": "proc", "source": "proc"}
        yield {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}
        for each in taken.pop("tmpfs", []):
            where, _, options = each.partition(":")
            yield {
                "destination": where,
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["noexec", "nosuid", "nodev", *options.split(",")],
            }
        for kind in ("configs", "secrets"):  # compose without a swarm mounts the very files
            for use in taken.pop(kind, []):
                source = self._whole[kind][use["source"]]["file"]
                yield {"destination": use["target"], "type": "bind", "source": source, "options": ["bind", "ro"]}
        for each in taken.pop("volumes", []):
            volume, where = each.split(":")
            source = str(VOLUMES / volume)
            yield {"destination": where, "type": "bind", "source": source, "options": ["rbind", "rw"]}


def make_volume(folder: Path, like: Path) -> None:
    """A volume that is new has the owner and the mode of the image's folder."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
        found = like.stat()
        os.chown(folder, found.st_uid, found.st_gid)
        folder.chmod(found.st_mode & 0o7777)


def limit(name: str, wanted: int) -> dict[str, Any]:
    """As asked for, as far as this machine lets its root go."""
    allowed = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    given = wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)
    return {"type": f"RLIMIT_{name.upper()}", "soft": given, "hard": given}


def main(words: Sequence[str]) -> int:
    """The words behind `docker`."""
    match words:
        case ["build", *rest]:
            return build(rest)
        case ["compose", *rest]:
            return compose(rest)
        case _:
            fail(f"not understood: {words}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
