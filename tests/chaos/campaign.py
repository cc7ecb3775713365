"""`make chaos`: real processes are killed, stopped and cut off at random; the VMs' disks are watched for two writers.

    make chaos ARGS="--rounds 100 --seed 1"

Several small clouds play their share of the rounds beside each other, each in namespaces of its own for network, mounts
and processes: what is left over ends with them. One extra round uses a fence agent that lies; there, the watcher must
find two writers, or it would find none anywhere. Needs root, iproute2, nftables, openssh-server and openipmi.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import anyio

from tests.chaos.apart import Say, apart_from_logs, run_apart
from tests.chaos.cloud import LivingCloud
from tests.chaos.controller import Controller
from tests.chaos.faults import Blow, Death
from tests.chaos.rounds import Play, Round
from tests.peers.etcd import Etcd

SCHEMA = "ha-controller/chaos/v1"
PROGRAMS = ("ip", "setpriv", "unshare", "nsenter", "setsid", "mount", "nft", "sshd", "ssh-keygen", "ping", "ipmi_sim")
HOSTS, VMS_PER_HOST = 4, 2
LIE_WITHIN_S = 60.0
#: on hosts that fell silent four times within ten minutes no VM is placed: after more rounds there would be no room
ROUNDS_PER_CLOUD = 4


# --- one cloud --------------------------------------------------------------------------------------------------------


async def _play(folder: Path, name: str, rounds: range, say: Say, *, lies: bool, pair: bool) -> None:
    """Play rounds in one cloud, and tell of each. After one that went wrong, what is left says nothing: it ends."""
    cloud = LivingCloud(folder, hosts=HOSTS, vms_per_host=VMS_PER_HOST)
    async with cloud:
        with cloud.running():
            etcd = Etcd(folder / "etcd").start() if pair else None
            members = etcd.endpoints if etcd else ()
            names = ("controller-1", "controller-2") if pair else ("controller",)
            controllers = [Controller(folder / name, cloud, lies=lies, etcd=members) for name in names]
            async with anyio.create_task_group() as group:
                for controller in controllers:
                    group.start_soon(controller.run)
                play = Play(cloud, controllers, etcd)
                await play.well()
                if lies:
                    say(await _lie(play))
                for number in rounds:
                    told = await play.round(number, f"{name}/{number}")
                    say({"round": asdict(told) | {"problems": told.problems}})
                    if told.stuck or told.double_writers:
                        break
                _write_calls(folder / "opennebula-calls", cloud)
                say(_end(cloud, controllers))
                group.cancel_scope.cancel()


async def _lie(play: Play) -> dict[str, Any]:
    """A host that is cut off lives on; the agent says that it is off; its VMs are started elsewhere. Who notices?"""
    host = next(host for host, known in play.cloud.hardware.machines.items() if known.vms)
    told = Round(number=0, seed="", plan=[])
    await play._strike(Blow(what=Death.SEVERED, host=host), told, 0, 0)
    disks = play.cloud.disks
    with anyio.move_on_after(LIE_WITHIN_S):
        while not (disks.double and disks.lock_taken):
            await anyio.sleep(0.1)
    return {"lie": {"double_writers": disks.double[:3], "lock_taken": disks.lock_taken[:3]}}


def _write_calls(path: Path, cloud: LivingCloud) -> None:
    """What was ordered, for whoever looks for a reason."""
    orders = ("one.host.status", "one.host.update", "one.vm.migrate", "one.vm.action", "one.vm.recover")
    lines = (
        f"{datetime.fromtimestamp(call.at, UTC):%H:%M:%S.%f} {call.method} {call.arguments} {call.result}\n"
        for call in cloud.server.calls
        if call.method in orders
    )
    path.write_text("".join(lines))


def _end(cloud: LivingCloud, controllers: Sequence[Controller]) -> dict[str, Any]:
    outages = [outage.seconds for outage in cloud.disks.outages]
    return {
        "end": {
            "outages_s": [round(seconds, 2) for seconds in outages],
            "records": cloud.disks.records,
            "controller_starts": sum(controller.starts for controller in controllers),
            "power_offs": len(cloud.shots),
        }
    }


# --- all clouds -------------------------------------------------------------------------------------------------------


def why_not() -> str:
    """What is missing on this machine; empty if nothing is."""
    if os.geteuid() != 0:
        return "chaos needs root: it makes namespaces"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"missing: {', '.join(missing)}; see the packages in .ci/run" if missing else ""


class Campaign:
    """Starts the clouds, listens to them, and counts."""

    def __init__(
        self,
        *,
        rounds: int,
        seed: int,
        clouds: int,
        pairs: int,
        folder: Path,
        minutes: float = 60.0,
        quiet: bool = False,
    ) -> None:
        """Nothing is started yet."""
        self.seed, self.asked, self.folder, self._quiet = seed, rounds, folder, quiet
        self.rounds: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.lie: dict[str, Any] | None = None
        self.failures: list[str] = []  #: clouds that did not come to their end
        self._pairs, self._ends_at = pairs, time.monotonic() + 60 * minutes
        self._shares = [len(range(number, rounds, clouds)) for number in range(min(clouds, rounds))]

    async def run(self) -> dict[str, Any]:
        """Play everything; returns the document that is written down."""
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(self._cloud, "lie", range(0))
            for number, share in enumerate(self._shares, start=1):
                group.start_soon(self._clouds, f"{self.seed}/{number}", share, number <= self._pairs)
        return self._document(time.monotonic() - began)

    async def _clouds(self, name: str, share: int, pair: bool) -> None:
        """One after the other, until the share is played."""
        first = 1
        while first <= share and time.monotonic() < self._ends_at:
            rounds = range(first, min(first + ROUNDS_PER_CLOUD, share + 1))
            played = await self._cloud(name, rounds, pair=pair)
            if not played:
                return
            first += played

    async def _cloud(self, name: str, rounds: range, pair: bool = False) -> int:
        """One cloud; returns how many rounds it has played."""
        folder = self.folder / f"{name.replace('/', '-')}-{rounds.start}"
        folder.mkdir()
        words = ["--cloud", name, "--first", str(rounds.start), "--rounds", str(len(rounds)), "--keep", str(folder)]
        words += ["--pair"] * pair
        played = 0

        def hear(document: dict[str, Any]) -> None:
            nonlocal played
            played += "round" in document
            self._hear(name, document)

        if why := await run_apart("tests.chaos.campaign", words, folder, hear):
            self.failures.append(f"cloud {name} broke down: {why}")
        return played

    def _hear(self, name: str, document: dict[str, Any]) -> None:
        if "lie" in document:
            self.lie = document["lie"]
        if "end" in document:
            self.ends.append(document["end"])
        if "round" in document:
            found = document["round"]
            self.rounds.append(found)
            if not self._quiet:
                verdict = "; ".join(found["problems"]) or "well"
                print(
                    f"{found['seed']:>8}  {found['seconds']:5.1f} s  {'; '.join(found['plan'])}: {verdict}", flush=True
                )

    def _document(self, wall_s: float) -> dict[str, Any]:
        counts = {
            kind: sum(len(found[kind]) for found in self.rounds)
            for kind in ("double_writers", "lost_vms", "stuck", "healthy_shot", "controller_trouble")
        }
        delivered: Counter[str] = Counter()
        for found in self.rounds:
            delivered.update(found["delivered"])
        outages = sorted(seconds for end in self.ends for seconds in end["outages_s"])
        lie = self.lie or {}
        detected = bool(lie.get("double_writers")) and bool(lie.get("lock_taken"))
        idle = sum(not (found["verified_fences"] and found["moves"]) for found in self.rounds)
        passed = not (any(counts.values()) or idle or self.failures) and detected and len(self.rounds) == self.asked
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "passed": passed,
            "rounds": {"asked": self.asked, "played": len(self.rounds), "idle": idle},
            "wall_s": round(wall_s, 1),
            "verified_fences": sum(found["verified_fences"] for found in self.rounds),
            "moved_vms": sum(found["moves"] for found in self.rounds),
            "power_offs": sum(found["shots"] for found in self.rounds),
            **counts,
            "lying_agent_detected": detected,
            "disk_records": sum(end["records"] for end in self.ends),
            "controller_starts": sum(end["controller_starts"] for end in self.ends),
            "outage_s": {"median": median(outages), "longest": outages[-1]} if outages else None,
            "faults": dict(sorted(delivered.items())),
            "left_alone_and_told": sum(len(found["left_alone"]) for found in self.rounds),
            "answered_by_a_person": sum(len(found["person"]) for found in self.rounds),
            "questions": dict(Counter(text.partition(":")[0] for found in self.rounds for text in found["person"])),
            "failures": self.failures,
            "violations": [
                {"round": found["seed"], "plan": found["plan"], "problems": found["problems"]}
                for found in self.rounds
                if found["problems"]
            ],
        }


def table(document: dict[str, Any]) -> Iterator[str]:
    """What people read at the end."""
    rows: list[tuple[str, object]] = [
        ("seed", document["seed"]),
        ("rounds played, of", f"{document['rounds']['played']}, {document['rounds']['asked']}"),
        ("idle rounds", document["rounds"]["idle"]),
        ("minutes", round(document["wall_s"] / 60, 1)),
        ("verified power-offs", document["verified_fences"]),
        ("VMs moved", document["moved_vms"]),
        ("double writers", document["double_writers"]),
        ("lost VMs", document["lost_vms"]),
        ("stuck", document["stuck"]),
        ("healthy hosts ordered off", document["healthy_shot"]),
        ("troubles of the controller", document["controller_trouble"]),
        ("two writers found with the lying agent", "yes" if document["lying_agent_detected"] else "NO"),
        ("records on the VMs' disks", document["disk_records"]),
        ("controller started", document["controller_starts"]),
        ("answers by a person", document["answered_by_a_person"]),
        ("VMs left alone with a reason, started by hand", document["left_alone_and_told"]),
        (
            "outage of a VM, median and longest",
            document["outage_s"] and "{median:.1f} s, {longest:.1f} s".format(**document["outage_s"]),
        ),
    ]
    yield from (f"{name:<48}{value}" for name, value in rows)
    yield ""
    yield from (f"{name:<62}{count:>5}" for name, count in document["faults"].items())
    for violation in document["violations"]:
        yield f"VIOLATION in {violation['round']}: {'; '.join(violation['problems'])}"
        yield f"  {'; '.join(violation['plan'])}"
    yield from document["failures"]
    yield "PASSED" if document["passed"] else "FAILED"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time; it is printed")
    parser.add_argument("--clouds", type=int, default=4, help="that play beside each other")
    parser.add_argument("--pairs", type=int, default=0, help="so many of them have two controllers and an etcd")
    parser.add_argument("--minutes", type=float, default=60.0, help="after these no cloud begins its next four rounds")
    parser.add_argument("--json", type=Path, help="write the counts there")
    parser.add_argument("--keep", type=Path, help="keep logs and disks in this new folder")
    parser.add_argument("--cloud", help=argparse.SUPPRESS)  # be one cloud
    parser.add_argument("--pair", action="store_true", help=argparse.SUPPRESS)  # with two controllers
    parser.add_argument("--first", type=int, default=1, help=argparse.SUPPRESS)  # number of its first round
    asked = parser.parse_args(words)
    if asked.cloud is not None:
        rounds = range(asked.first, asked.first + asked.rounds)
        lies = asked.cloud == "lie"
        say = apart_from_logs()
        anyio.run(lambda: _play(asked.keep, asked.cloud, rounds, say, lies=lies, pair=asked.pair))
        return 0
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 2
    seed = int.from_bytes(os.urandom(3)) if asked.seed is None else asked.seed
    print(f"chaos: {asked.rounds} rounds in {asked.clouds} clouds, seed {seed}", flush=True)
    with ExitStack() as stack:
        folder = asked.keep
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(
            rounds=asked.rounds,
            seed=seed,
            clouds=asked.clouds,
            pairs=asked.pairs,
            folder=folder.resolve(),
            minutes=asked.minutes,
        )
        document = anyio.run(campaign.run)
    for line in table(document):
        print(line)
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if document["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
