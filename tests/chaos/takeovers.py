"""`make takeovers`: the lead is hit in the middle of incidents, on a real etcd; one controller acts, and finishes them.

    make takeovers ARGS="--rounds 50 --seed 1"

Each cloud is that of `make chaos`, with two controllers and three members of etcd, each in a network namespace of its
own. A round is one fault in one phase of an incident. Needs root, iproute2, nftables, openssh-server, openipmi, etcd.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import anyio

from tests.chaos import network, takeover_faults
from tests.chaos.apart import Say, apart_from_logs, run_apart
from tests.chaos.campaign import HOSTS, PROGRAMS, _write_calls
from tests.chaos.cloud import LivingCloud
from tests.chaos.controller import Controller
from tests.chaos.takeover_faults import Fault, Phase, Strike
from tests.chaos.takeover_round import Places, TakeoverPlay
from tests.peers.etcd import Etcd

SCHEMA = "ha-controller/takeovers/v1"
NEEDED = (*PROGRAMS, "etcd")
VMS_PER_HOST = 3
NAMES = ("controller-1", "controller-2")
#: as in `campaign`: later there would be no room on hosts that fell silent too often
ROUNDS_PER_CLOUD = 4
#: one VM after the other, so that half of them can have moved
EDITS = {"[recover]\n": "[recover]\nparallel = 1\n"}
PROBLEMS = (
    "double_writers", "double_orders", "old_acts", "late", "stuck", "lost_vms", "healthy_shot", "controller_trouble",
    "missed", "numbers",
)  # fmt: skip


# --- one cloud --------------------------------------------------------------------------------------------------------


async def _play(folder: Path, name: str, strikes: Sequence[Strike], say: Say) -> None:
    """Play rounds in one cloud, and tell of each; after one that went wrong it ends."""
    cloud = LivingCloud(folder, hosts=HOSTS, vms_per_host=VMS_PER_HOST)
    network.reach_bmcs(cloud)
    machines = network.build([*NAMES, "etcd-0", "etcd-1", "etcd-2"])
    doors = network.Doors(cloud)
    places = Places(machines[: len(NAMES)], machines[len(NAMES) :], doors)
    async with cloud:
        with cloud.running():
            etcd = Etcd(folder / "etcd", places=[(each.address, each.inside) for each in places.members]).start()
            controllers = []
            for place in places.controllers:
                port = places.ports[place.name] = await doors.open(place.name)
                edits = {**EDITS, cloud.endpoint: f"http://{network.NEAR}:{port}/RPC2"}
                controllers.append(
                    Controller(folder / place.name, cloud, etcd=etcd.endpoints, inside=place.inside, edits=edits)
                )
            async with anyio.create_task_group() as group:
                for controller in controllers:
                    group.start_soon(controller.run)
                play = TakeoverPlay(cloud, controllers, etcd, places)
                for number, strike in enumerate(strikes, start=1):
                    told = await play.take_over(number, f"{name}/{number}", strike)
                    say({"round": asdict(told) | {"problems": told.problems}})
                    if told.problems:
                        break
                _write_calls(folder / "opennebula-calls", cloud)
                say(
                    {
                        "end": {
                            "records": cloud.disks.records,
                            "outages_s": [each.seconds for each in cloud.disks.outages],
                        }
                    }
                )
                group.cancel_scope.cancel()
            doors.close()
            etcd.stop()


# --- all clouds -------------------------------------------------------------------------------------------------------


def why_not() -> str:
    """What is missing on this machine; empty if nothing is."""
    if os.geteuid() != 0:
        return "take-overs need root: they make namespaces"
    missing = [program for program in NEEDED if shutil.which(program) is None]
    return f"missing: {', '.join(missing)}; see the packages in .ci/run" if missing else ""


class Takeovers:
    """Starts the clouds, listens to them, and counts."""

    def __init__(self, strikes: Sequence[Strike], *, clouds: int, folder: Path, quiet: bool = False) -> None:
        """Nothing is started yet."""
        self._strikes, self._clouds, self.folder, self._quiet = list(strikes), clouds, folder, quiet
        self.asked = len(self._strikes)
        self.rounds: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.failures: list[str] = []

    async def run(self) -> dict[str, Any]:
        """Play everything; returns the document that is written down."""
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            for number in range(1, self._clouds + 1):
                group.start_soon(self._one_after_the_other, number)
        return self._document(time.monotonic() - began)

    async def _one_after_the_other(self, number: int) -> None:
        """Clouds, until no strike is left."""
        generation = 0
        while self._strikes:
            generation += 1
            share = -(-len(self._strikes) // self._clouds)
            strikes = [self._strikes.pop(0) for _ in range(min(ROUNDS_PER_CLOUD, share))]
            name = f"{number}.{generation}"
            folder = self.folder / name
            folder.mkdir()
            words = [
                *(f"--strike={json.dumps(asdict(each))}" for each in strikes),
                "--cloud",
                name,
                "--keep",
                str(folder),
            ]
            if why := await run_apart("tests.chaos.takeovers", words, folder, self._hear):
                self.failures.append(f"cloud {name} broke down: {why}")
            played = sum(found["seed"].startswith(f"{name}/") for found in self.rounds)
            self._strikes += strikes[max(played, 1) :]  # what a cloud that went wrong has left is played by another one

    def _hear(self, document: dict[str, Any]) -> None:
        if "end" in document:
            self.ends.append(document["end"])
        if "round" in document:
            found = document["round"]
            self.rounds.append(found)
            if not self._quiet:
                took = "the lead stays" if found["took_s"] is None else f"led again after {found['took_s']:.1f} s"
                verdict = "; ".join(found["problems"]) or "well"
                print(
                    f"{found['seed']:>7}  {found['seconds']:5.1f} s  {found['plan'][0]}: {took}; {verdict}", flush=True
                )

    def _document(self, wall_s: float) -> dict[str, Any]:
        counts = {kind: sum(len(found[kind]) for found in self.rounds) for kind in PROBLEMS}
        bad = [found for found in self.rounds if found["problems"]]
        passed = not (bad or self.failures) and len(self.rounds) == self.asked
        took = sorted(found["took_s"] for found in self.rounds if found["took_s"] is not None)
        outages = sorted(seconds for end in self.ends for seconds in end["outages_s"])
        return {
            "schema": SCHEMA,
            "passed": passed,
            "rounds": {"asked": self.asked, "played": len(self.rounds)},
            "wall_s": round(wall_s, 1),
            **counts,
            "took_s": {"median": median(took), "longest": took[-1]} if took else None,
            "outage_s": {"median": median(outages), "longest": outages[-1]} if outages else None,
            "moved_vms": sum(found["moves"] for found in self.rounds),
            "power_offs": sum(found["shots"] for found in self.rounds),
            "verified_fences": sum(found["verified_fences"] for found in self.rounds),
            "disk_records": sum(end["records"] for end in self.ends),
            "answered_by_a_person": [text for found in self.rounds for text in found["person"]],
            "left_alone_and_told": [text for found in self.rounds for text in found["left_alone"]],
            "failures": self.failures,
            "played": self.rounds,
        }


def table(document: dict[str, Any]) -> Iterator[str]:
    """What people read at the end: a line for each fault, and how often it came in each phase."""
    phases = list(Phase)
    yield "phases: " + ", ".join(f"{number} {phase}" for number, phase in enumerate(phases, start=1))
    head = " ".join(f"{number:>2}" for number in range(1, len(phases) + 1))
    yield f"{'fault':<42}{head}   led again after     twice moved  two writers  unfinished"
    for fault in Fault:
        found = [each for each in document["played"] if each["fault"] == fault]
        counts = " ".join(f"{sum(each['phase'] == phase for each in found) or '.':>2}" for phase in phases)
        took = [each["took_s"] for each in found if each["took_s"] is not None]
        times = f"{median(took):.1f} s, at most {max(took):.1f} s" if took else "the lead stays" if found else ""
        sums = [sum(len(each[kind]) for each in found) for kind in ("double_orders", "double_writers", "stuck")]
        yield f"{fault:<42}{counts}   {times:<22}{sums[0]:>9}{sums[1]:>13}{sums[2]:>12}"
    yield ""
    for name, value in document.items():
        if name not in ("played", "failures", "schema"):
            yield f"{name.replace('_', ' '):<28}{value}"
    for found in document["played"]:
        if found["problems"]:
            yield f"VIOLATION in {found['seed']} ({found['plan'][0]}): {'; '.join(found['problems'])}"
    yield from document["failures"]
    yield "PASSED" if document["passed"] else "FAILED"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make takeovers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time; it is printed")
    parser.add_argument("--clouds", type=int, default=3, help="that play beside each other")
    parser.add_argument("--fault", choices=[fault.name for fault in Fault], help="only this one")
    parser.add_argument("--phase", choices=[phase.name for phase in Phase], help="only this one")
    parser.add_argument("--json", type=Path, help="write all that was seen there")
    parser.add_argument("--keep", type=Path, help="keep logs and disks in this new folder")
    parser.add_argument("--cloud", help=argparse.SUPPRESS)  # be one cloud
    parser.add_argument("--strike", action="append", default=[], help=argparse.SUPPRESS)  # its rounds
    asked = parser.parse_args(words)
    if asked.cloud is not None:
        strikes, say = [takeover_faults.from_json(each) for each in asked.strike], apart_from_logs()
        anyio.run(_play, asked.keep, asked.cloud, strikes, say)
        return 0
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 2
    seed = random.SystemRandom().randrange(1 << 24) if asked.seed is None else asked.seed
    wanted = (
        each
        for each in takeover_faults.draw(seed)
        if asked.fault in (None, each.fault.name) and asked.phase in (None, each.phase.name)
    )
    print(f"take-overs: {asked.rounds} rounds in {asked.clouds} clouds, seed {seed}", flush=True)
    with ExitStack() as stack:
        folder = asked.keep
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="takeovers-")))
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Takeovers(list(islice(wanted, asked.rounds)), clouds=asked.clouds, folder=folder.resolve())
        document = anyio.run(campaign.run) | {"seed": seed}
    for line in table(document):
        print(line)
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if document["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
