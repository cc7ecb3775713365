"""`ha-controller support-bundle`: what somebody who helps needs to see, in one file, without a secret."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ha_controller import __version__
from ha_controller.cli import client
from ha_controller.cli.common import config_option, query

if TYPE_CHECKING:
    from ha_controller.app.support import Mask

UNIT = "ha-controller"
LOG_LINES, LOG_MAX_S, LOG_MAX_BYTES = 5000, 30.0, 16 * 2**20
FLIGHTS_MAX, EXPLAINED_MAX = 3, 20
ASKED = {
    "status": "/api/v1/status",
    "hosts": "/api/v1/hosts",
    "incidents": "/api/v1/incidents",
    "pending": "/api/v1/pending",
    "drills": "/api/v1/drills",
    "doctor": "/api/v1/doctor",
    "leader": "/api/v1/leader",
    "notifiers": "/api/v1/notifiers",
    "capacity": "/api/v1/simulate/capacity",
    "config-in-force": "/api/v1/config",
    "events": f"/api/v1/events?{query(limit=1000)}&newest=1",
}
ABOUT = """\
Made by `ha-controller support-bundle`, version {version}.

It has the names of hosts, VMs and people, and addresses. It has no secret: those of the configuration were read and
looked for in every file, and what looks like a password was hidden as well; {hidden} places were. Look through it
before you send it.
{unread}"""


@click.command("support-bundle")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@config_option
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="Where the log is, if not in the journal.")
def support_bundle(file: Path | None, config_path: Path, log_file: Path | None) -> None:
    """Collect what the controller says, its configuration, log and versions in FILE (tar.gz). No secret is in it.

    Without a running controller the rest is collected. FILE is never written over.
    """
    from ha_controller.app.support import Mask, configuration

    target = file or Path(time.strftime("ha-controller-support-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime()))
    mask = Mask()
    parts = {"config.txt": configuration(config_path, mask)}  # first: the mask learns the secrets from it
    parts |= dict(_parts(config_path, log_file))
    masked = {name: mask(text) for name, text in parts.items()}
    masked["README.txt"] = _about(mask)
    try:
        _write(target, masked)
    except OSError as error:
        raise client.Failure(1, f"{target}: {error.strerror}. Nothing was written.") from None
    click.echo(f"{target}: {len(masked)} files, {mask.hidden} places hidden. Look through it before you send it.")
    if mask.unread:
        click.echo(f"{len(mask.unread)} secrets could not be read, so were not looked for: see README.txt", err=True)


def _about(mask: Mask) -> str:
    unread = "".join(f"\nCould not be read, so was not looked for: {each}" for each in mask.unread)
    return ABOUT.format(version=__version__, hidden=mask.hidden, unread=unread)


def _parts(config_path: Path, log_file: Path | None) -> Iterator[tuple[str, str]]:
    yield "versions.json", _told(_versions)
    yield "check-config.txt", _told(lambda: _checked(config_path))
    for name, path in ASKED.items():
        yield f"answers/{name}.json", _told(lambda path=path: _json(client.request("GET", path)))  # type: ignore[misc]
    yield "answers/metrics.txt", _told(lambda: client.fetch("GET", "/metrics"))
    for host in _not_ok():
        yield f"answers/explain-{host}.json", _told(lambda host=host: _explained(host))  # type: ignore[misc]
    for number in _newest_incidents():
        path = f"/api/v1/incidents/{number}/flight"
        yield f"flights/{number}.jsonl", _told(lambda path=path: client.fetch("GET", path))  # type: ignore[misc]
    yield "log.txt", _log(log_file)


def _told(ask: Callable[[], str]) -> str:
    """What it gives, or why it gives nothing: a bundle is made when something does not work."""
    try:
        return ask()
    except client.Failure as failure:
        return f"not to be had: {failure.text}\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _explained(host: str) -> str:
    from urllib.parse import quote

    return _json(client.request("GET", f"/api/v1/hosts/{quote(host, safe='')}/explain"))


def _not_ok() -> list[str]:
    try:
        rows = client.request("GET", "/api/v1/hosts")
    except client.Failure:
        return []
    return [row["name"] for row in rows if row["state"] != "ok" and "/" not in row["name"]][:EXPLAINED_MAX]


def _newest_incidents() -> list[int]:
    try:
        return [row["id"] for row in client.request("GET", "/api/v1/incidents")][:FLIGHTS_MAX]
    except client.Failure:
        return []


def _versions() -> str:
    import platform
    from importlib.metadata import distributions

    from ha_controller.app import list_plugins

    installed = {str(each.metadata["Name"]): each.version for each in distributions()}
    return _json(
        {
            "ha-controller": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "distributions": dict(sorted(installed.items())),
            "plugins": list_plugins(),
        }
    )


def _checked(path: Path) -> str:
    """What `check-config` says."""
    from contextlib import redirect_stderr

    from ha_controller.app import check_config

    said = io.StringIO()
    with redirect_stderr(said):
        code = check_config(path, origin=False)
    return f"{said.getvalue()}(exit {code})\n"


def _log(file: Path | None) -> str:
    """The end of the log."""
    if file is not None:
        try:
            with file.open("rb") as opened:
                opened.seek(max(0, file.stat().st_size - LOG_MAX_BYTES))
                return opened.read(LOG_MAX_BYTES).decode(errors="replace")
        except OSError as error:
            return f"not to be had: {file}: {error.strerror}\n"
    import subprocess

    words = ["journalctl", "--unit", UNIT, "--lines", str(LOG_LINES), "--no-pager", "--output", "short-iso"]
    try:
        done = subprocess.run(words, capture_output=True, check=False, timeout=LOG_MAX_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not to be had: journalctl: {type(error).__name__}\n"
    return (done.stdout or done.stderr)[-LOG_MAX_BYTES:].decode(errors="replace")


def _write(target: Path, parts: dict[str, str]) -> None:
    """A new file, for nobody else to read."""
    import tarfile  # a tenth of what `--help` would cost

    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened, tarfile.open(fileobj=opened, mode="w:gz") as bundle:
        for name, text in sorted(parts.items()):
            content = text.encode(errors="replace")
            member = tarfile.TarInfo(f"{target.name.removesuffix('.tar.gz')}/{name}")
            member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
            bundle.addfile(member, io.BytesIO(content))
