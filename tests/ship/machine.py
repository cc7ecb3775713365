"""Fresh machines to install on: a Debian made by debootstrap, with a systemd of its own, in namespaces of this machine.

The root is made once and kept (`.peers/roots`); each machine is a layer over it that is thrown away. A machine has its
own network, which leads nowhere: what pip installs comes from a folder that holds exactly the files of
requirements.lock, and the embedded cloud runs in that network. It needs root, debootstrap, util-linux and iproute2.

TRY_ROOT=/ takes the root of this very machine in the place of debootstrap's: CI has no time to make one. Its packages
are there then; what is there of ours is taken away in the layer.

What it is not: a kernel of its own. Whatever depends on the kernel or on devices is that of the real machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".peers"
SUITE = os.environ.get("TRY_SUITE", "bookworm")
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-venv",
    "make",
    "iproute2",
    "procps",
    "ca-certificates",
    "python3-apt",
    "netavark",  # what buildah wants configured, and nobody here uses
    "buildah",
    "crun",
)
OURS = ("opt/ha-controller", "etc/ha-controller", "var/lib/ha-controller", "run/ha-controller")
CGROUPS = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").exists() else Path("/sys/fs/cgroup")
BOOTS_WITHIN_S, WAIT_S = 90.0, 120.0


class TryFailed(Exception):
    """What was tried did not do what is promised."""


def say(text: str) -> None:
    """A line of what is tried."""
    print(f"--- {text}", flush=True)


def eventually(what: str, is_so: Callable[[], bool], within_s: float = WAIT_S) -> None:
    """Wait for a state. Raises TryFailed: it does not come."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TryFailed(f"not within {within_s:g} s: {what}")
        time.sleep(0.5)


def base_root() -> Path:
    """The root below all machines; made when there is none."""
    if chosen := os.environ.get("TRY_ROOT"):
        return Path(chosen)
    root = KEPT / "roots" / SUITE
    complete, packages = root / ".complete", ",".join(PACKAGES)
    if not complete.exists() or complete.read_text() != packages:
        say(f"debootstrap {SUITE}, once")
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        include = f"--include={packages}"
        subprocess.run(["debootstrap", "--variant=minbase", include, SUITE, str(root)], check=True, stdout=sys.stderr)
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
        complete.write_text(packages)
    return root


def wheelhouse() -> Path:
    """The files of requirements.lock, as an index would give them."""
    subprocess.run(["make", "--quiet", ".peers/wheelhouse/.ready"], cwd=ROOT, check=True, stdout=sys.stderr)
    return KEPT / "wheelhouse"


class Machine:
    """A machine that runs."""

    def __init__(self, root: Path, name: str) -> None:
        """Use `machine`."""
        self.root, self._name = root, name
        self._cgroup = CGROUPS / f"try-{os.getpid()}-{name}"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def boot(self) -> None:
        """Start its systemd, and wait until it is up. Raises TryFailed."""
        self._cgroup.mkdir(exist_ok=True)
        words = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child"]
        self._process = subprocess.Popen(
            [*words, str(ROOT / "tests/ship/boot"), str(self.root), self._name],
            preexec_fn=lambda: (self._cgroup / "cgroup.procs").write_text(str(os.getpid())) and None,
            stdin=subprocess.DEVNULL,
        )
        eventually("its process 1 runs", lambda: self._found(), 10.0)
        eventually("systemd is up", self._is_up, BOOTS_WITHIN_S)

    def _found(self) -> bool:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._pid = int(children[0]) if children else 0
        return self._pid != 0 and Path(f"/proc/{self._pid}/comm").read_text().strip() == "systemd"

    def _is_up(self) -> bool:
        return self.run("systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def stop(self) -> None:
        """Pull its plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
        for folder in sorted(self._cgroup.glob("**/"), reverse=True):
            deadline = time.monotonic() + 10
            while folder.exists() and time.monotonic() < deadline:
                try:
                    folder.rmdir()
                except OSError:
                    time.sleep(0.1)

    def entered(self, *namespaces: str) -> list[str]:
        """The words that run a program in it, or in some of its namespaces."""
        return ["nsenter", "--target", str(self._pid), *(namespaces or ("-m", "-p", "-u", "-i", "-n", "-C")), "--"]

    def run(self, command: str, *, check: bool = True, shown: bool = False, cwd: str = "/root") -> Any:
        """Run a command as its root would, in bash. Raises TryFailed: it ended with another code than 0."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        words = ["env", "-i", path, "HOME=/root", "LANG=C.UTF-8", "bash", "-euc", f"cd {cwd}; {command}"]
        if shown:
            print(f"# {command}", flush=True)
        done = subprocess.run(
            [*self.entered(), *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=900,
        )
        if shown:
            print("".join(f"    {line}\n" for line in (done.stdout + done.stderr).splitlines()), end="", flush=True)
        if check and done.returncode != 0:
            raise TryFailed(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done


@contextmanager
def machine(name: str, prepare: Callable[[Path], None] = lambda root: None) -> Iterator[Machine]:
    """A fresh machine, booted; `prepare` may put files on its root before."""
    with layer() as root:
        # machines with a network that leads nowhere wait for none
        for each in root.glob("usr/lib/systemd/system/*wait-online*.service"):
            mask = root / "etc/systemd/system" / each.name
            mask.unlink(missing_ok=True)
            mask.symlink_to("/dev/null")
        prepare(root)
        made = Machine(root, name)
        try:
            made.boot()
            yield made
        finally:
            made.stop()


@contextmanager
def layer() -> Iterator[Path]:
    """A root over `base_root`, in memory: what is written there is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="try-") as folder:
        upper, work, root = (Path(folder, each) for each in ("memory/upper", "memory/work", "root"))
        upper.parent.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(upper.parent)], check=True)
        try:
            for each in (upper, work, root):
                each.mkdir()
            how = f"lowerdir={base_root()},upperdir={upper},workdir={work}"
            subprocess.run(["mount", "-t", "overlay", "-o", how, "overlay", str(root)], check=True)
            try:
                for ours in OURS:  # what other tests have left on this very machine
                    shutil.rmtree(root / ours, ignore_errors=True)
                yield root
            finally:
                subprocess.run(["umount", "--lazy", str(root)], check=True)
        finally:
            subprocess.run(["umount", "--lazy", str(upper.parent)], check=True)


def put_checkout(root: Path, where: str = "root/ha-controller") -> None:
    """What git has of this folder, as `git clone` would lay it, and the files of the lock in the place of an index."""
    target = root / where
    target.mkdir(parents=True)
    archive = str(root / "tmp/checkout.tar")
    if (ROOT / ".git").exists():
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
        packing = ["tar", "--create", "--null", "--files-from=-", "--file", archive]
    else:  # an archive of the tree: all but what make has put there, which begins with a dot
        listed, packing = b"", ["tar", "--create", "--exclude=./.*/*", "--exclude=__pycache__", "--file", archive, "."]
    subprocess.run(packing, cwd=ROOT, input=listed, check=True)
    subprocess.run(["tar", "--extract", "--no-same-owner", "--file", archive], cwd=target, check=True)
    shutil.copytree(wheelhouse(), root / "srv/wheelhouse")
    for theirs in ("root/.config/pip", "root/.pip"):
        shutil.rmtree(root / theirs, ignore_errors=True)
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/wheelhouse\n")


class Cloud:
    """The embedded cloud in the network of a machine: hosts with real kernels and sshd, BMCs, OpenNebula."""

    def __init__(self, process: subprocess.Popen[str], facts: dict[str, Any]) -> None:
        """Use `cloud`."""
        self._process, self.facts = process, facts

    def ask(self, *words: object) -> Any:
        """Tell it something; returns what it answers."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def fill_in(self, example: str, **more: str) -> str:
        """What a person does with config.example.toml: fill in what is marked SET, and the ports of this cloud."""
        facts = self.facts
        changes = {
            'endpoint = "http://127.0.0.1:2633/RPC2"': f'endpoint = "{facts["endpoint"]}"',
            'self_check = ["192.0.2.1"]': f'self_check = ["{facts["gateway"]}"]',
            'identity = "unproven"': 'identity = "noted"',
            'username = "fencer"              # SET': f'port = {facts["bmc_port"]}\nusername = "{facts["bmc_user"]}"',
            **more,
        }
        for old, new in changes.items():
            if old not in example:
                raise TryFailed(f"config.example.toml has no {old}")
            example = example.replace(old, new, 1)
        return example

    def configure(self, made: Machine, example: str, **more: str) -> None:
        """Write /etc/ha-controller/config.toml and the two secrets, as the pages say."""
        secrets = made.root / "etc/ha-controller/secrets"
        for name, text in (("one_auth", self.facts["session"]), ("bmc", self.facts["bmc_password"])):
            made.run(f"umask 077; cat > /etc/ha-controller/secrets/{name} <<'END'\n{text}\nEND")
        assert secrets is not None
        made.run(f"cat > /etc/ha-controller/config.toml <<'END'\n{self.fill_in(example, **more)}END")


@contextmanager
def cloud(made: Machine, *, hosts: int = 4) -> Iterator[Cloud]:
    """Start it; it ends with the block."""
    inside = 'mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns; exec "$0" -m tests.ship.cloud "$1"'
    words = [*made.entered("-n"), "unshare", "--mount", "bash", "-c", inside, sys.executable, str(hosts)]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            raise TryFailed("the embedded cloud did not start")
        yield Cloud(process, json.loads(first))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def main(story: Callable[[], None], argv: Sequence[str] = sys.argv) -> None:
    """Run a story, and say in one line how it ended."""
    if os.geteuid() != 0:
        sys.exit("It makes a machine out of namespaces: run it as root.")
    try:
        story()
    except TryFailed as error:
        sys.exit(f"FAILED: {error}")
    print(f"{Path(argv[0]).stem}: all of it was seen.")
