"""Doors to people: the configuration, orders at the local socket, flight records that somebody sent."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from pydantic import Field, SecretStr, ValidationError

from ha_controller.adapters.arbiter.etcd import EtcdConfig
from ha_controller.adapters.arbiter.single import SingleConfig
from ha_controller.adapters.http_api.problems import of_validation
from ha_controller.adapters.http_api.questions import EventsQuery, MaintenanceBody, UnfenceBody
from ha_controller.cli import show
from ha_controller.config import Config, ConfigError, load
from ha_controller.config import secret as secrets_of
from ha_controller.flight.text import BadRecord, read
from ha_controller.plugin import AgentConfig, NotifierConfig, ProbeConfig

from .target import Feed, Target, demand, is_one_line

SECRET = "kept-from-everybody-5"
EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


class BmcConfig(AgentConfig):
    """Shaped like an agent's settings."""

    address: str
    port: int = Field(623, ge=1, le=65535)
    username: str
    password: SecretStr


AGENTS = {"ipmi": BmcConfig, "redfish": BmcConfig}
CHANNELS = dict.fromkeys(("icmp", "ssh", "bmc", "oned", "tcp"), ProbeConfig)
ARBITERS = {"single": SingleConfig, "etcd": EtcdConfig}
NOTIFIERS = {"log": NotifierConfig}


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    atexit.register(shutil.rmtree, folder)
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    return folder


def _never(*words: object) -> bytes:
    """In the place of running what the input names."""
    return SECRET.encode()


def configuration(data: bytes) -> None:
    """Any text as the configuration: a Config, or problems with file, path and remedy, without a secret."""
    path = _folder() / "config.toml"
    path.write_bytes(data.replace(b"SECRETFILE", str(_folder() / "secret").encode()))
    with mock.patch.object(secrets_of, "_from_command", _never):
        try:
            config = load(path, environ={}, agents=AGENTS, channels=CHANNELS, arbiters=ARBITERS, notifiers=NOTIFIERS)
        except ConfigError as error:
            judge_problems(error, len(data.splitlines()) + 2)
        else:
            demand(isinstance(config, Config) and SECRET not in repr(config), "a configuration that shows a secret")


def judge_problems(error: ConfigError, lines: int) -> None:
    """What every problem must say."""
    demand(bool(error.problems), "refused without a reason")
    for problem in error.problems:
        told = str(problem)
        demand(problem.file == "config.toml" and bool(problem.message), "a problem without its file or message")
        demand(problem.line is None or 1 <= problem.line <= lines, "a line that is not there")
        demand(is_one_line(told) and SECRET not in told, "a problem that cannot be shown")


def orders(data: bytes) -> None:
    """Any body and query at the API."""
    feed = Feed(data)
    kind, text = feed.number(3), feed.rest()
    written = text.decode("utf-8", "replace")
    try:
        if kind == 2:
            asked = EventsQuery.model_validate({"after": written, "before": written})
            demand(0 <= asked.after < 2**63, "a number that no database takes")
            demand(asked.before is None or abs(asked.before) < 1e15, "a moment that is none")
            return
        body = (MaintenanceBody, UnfenceBody)[kind].model_validate_json(text)
    except ValidationError as error:
        answer = of_validation(error, "body").response()
        demand(answer.status == 400 and len(answer.body or b"") < 100_000, "a refusal without an end")
        return
    demand(len(body.reason) <= 500 and is_one_line(body.reason), "a reason that cannot be shown")


def flight_record(data: bytes) -> None:
    """Any text as a flight record: a record, or BadRecord."""
    try:
        record = read(data.decode("utf-8", "replace").splitlines())
    except BadRecord as error:
        demand(len(str(error)) < 600, "an error without an end")
        return
    show.clock(record.beginning.at)
    show.clock(record.ends_at)
    demand(all(1 <= run.count < 10**9 for run in record.runs), "a run without an end")


def _record() -> bytes:
    from ha_controller.core.controller import Controller
    from ha_controller.core.settings import Settings
    from ha_controller.flight.recorder import Recorder
    from ha_controller.flight.text import written

    recorder = Recorder(Controller(Settings(channels=()), 1000.0), 1000.0)
    return b"".join(written(recorder.cut((1,), 1001.0, "it goes on").record()))


TARGETS = (
    Target(
        name="configuration",
        run=configuration,
        seeds=(
            EXAMPLE.read_bytes(),
            b'mode = "auto"\n[opennebula]\nauth = { file = "SECRETFILE" }\n[guard]\nself_check = ["192.0.2.1"]\n'
            b"[[fence]]\n"
            b'name = "bmc"\nagent = "ipmi"\naddress = "{FENCE_IP}"\nusername = "a"\n'
            b'password = { file = "SECRETFILE" }\n',
            b'[detect]\ninterval = "1s"\nchannels = ["icmp"]\n[cluster.edge]\nneed = 3\n[leader]\nkind = "etcd"\n',
        ),
        bytes_max=16_000,
    ),
    Target(
        name="orders",
        run=orders,
        seeds=(
            b"\x00" + json.dumps({"reason": "new disks", "for_s": 3600}).encode(),
            b"\x01" + json.dumps({"reason": "repaired", "force": True, "repaired": False}).encode(),
            b"\x01" + json.dumps({"reason": "work", "force": True}).encode(),
            b"\x02" + b"1785000000.5",
            b"\x02" + b"200",
        ),
    ),
    Target(name="flight-record", run=flight_record, seeds=(_record(),), bytes_max=16_000),
)
