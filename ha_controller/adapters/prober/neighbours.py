"""The `neighbours` channel: whether healthy hosts of the same cluster can reach a suspect that we cannot.

A few of them are asked over SSH to ping the suspect and to knock at its SSH port, and to do the same with control
targets: other healthy hosts. What a neighbour that reaches none of these says about the suspect counts for nothing, as
it may be cut off itself. One that reaches the suspect shows life; enough that do not, and reach others, show silence.

Nothing is installed on the hosts: the key is bound to a forced command (`FORCED_COMMAND`, docs/neighbours.md) that
takes addresses and nothing else. Host keys are always verified. Asked only about suspects.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import anyio
import asyncssh
from pydantic import Field, field_validator

from ha_controller.adapters.prober.channel import AsyncProbe, AsyncProbeConfig, usable_address
from ha_controller.plugin import Domain, Duration, ProbeContext, Reading, Signal, Target, duration_field

#: Bound to the key on every host. Asks all addresses at once, by ping and by a TCP handshake; a refusal is an answer.
FORCED_COMMAND: Final = (
    "set -f; ask() { ping -n -q -c1 -W1 $1 >/dev/null 2>&1; p=$?;"
    " t=$(timeout 1 bash -c ': </dev/tcp/$0/22' $1 2>&1) && p=0;"
    " case $p:$t in 0:*|*refused*) echo $1 alive;; 1:*) echo $1 silent;; *) echo $1 unknown;; esac; };"
    " for a in $SSH_ORIGINAL_COMMAND; do case $a in *[!0-9a-fA-F.:]*) ;; *) ask $a & ;; esac; done; wait"
)
OUTPUT_MAX: Final = 4096
CONTROLS_MAX: Final = 2
OWN_SHARE: Final = 0.8
AGAIN_AFTER_S: Final = 1.0  #: a suspect is looked at five times a second, its neighbours are asked once


class NeighboursConfig(AsyncProbeConfig):
    """Settings of `[channel.neighbours]`."""

    timeout_s: Duration = duration_field("5s", key="timeout", longest="6s")  #: two rounds within what an ALIVE counts
    username: Annotated[str, Field(min_length=1)]
    key_file: Path
    known_hosts: Path
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    ask: Annotated[int, Field(ge=1, le=20)] = 3  #: so many neighbours at most
    need: Annotated[int, Field(ge=1, le=20)] = 2  #: so many must agree on silence

    @field_validator("key_file", "known_hosts")
    @classmethod
    def _is_a_file(cls, path: Path) -> Path:
        if not path.is_file():
            raise ValueError("no such file")
        return path


class NeighboursProbe(AsyncProbe[NeighboursConfig]):
    """Asks healthy hosts about suspects."""

    kind = "neighbours"
    config_model = NeighboursConfig
    domain = Domain.VANTAGE
    suspects_only = True

    def __init__(self, config: NeighboursConfig, context: ProbeContext) -> None:
        super().__init__(config, context)
        self._asked_at: dict[int, float] = {}

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Ask about suspects whose neighbours were not asked in the last second."""
        due = [target for target in targets if now - self._asked_at.get(target.host, -AGAIN_AFTER_S) >= AGAIN_AFTER_S]
        self._asked_at = {host: at for host, at in self._asked_at.items() if now - at < AGAIN_AFTER_S}
        self._asked_at.update((target.host, now) for target in due)
        super().launch(due, now)

    async def ask(self, target: Target, now: float) -> Reading:
        """Ask several neighbours at once, each with control targets of its own."""
        known = [replace(each, address=usable_address(each.address)) for each in self.context.neighbours(target.host)]
        healthy = [each for each in known if each.address]
        answers = {each.name: (Signal.UNKNOWN, "no answer in time") for each in healthy[: self.config.ask]}

        async def ask_one(index: int, neighbour: Target) -> None:
            others = healthy[index + 1 :] + healthy[:index]
            with anyio.move_on_after(self.config.timeout_s * OWN_SHARE):  # a hung one must not silence the others
                answers[neighbour.name] = await self._ask_one(neighbour, target, others[:CONTROLS_MAX])
            if answers[neighbour.name][0] is Signal.ALIVE:
                group.cancel_scope.cancel()  # one is enough, and it must not grow old

        async with anyio.create_task_group() as group:
            for index, neighbour in enumerate(healthy[: self.config.ask]):
                group.start_soon(ask_one, index, neighbour)
        return self._judge(target, now, answers)

    def _judge(self, target: Target, now: float, answers: dict[str, tuple[Signal, str]]) -> Reading:
        def reading(signal: Signal, detail: str) -> Reading:
            return Reading(host=target.host, signal=signal, sent_at=now, detail=detail)

        said = {signal: sorted(name for name, (each, _) in answers.items() if each is signal) for signal in Signal}
        if reached := said[Signal.ALIVE]:
            return reading(Signal.ALIVE, f"reached from {', '.join(reached)}")
        if len(said[Signal.SILENT]) >= self.config.need:
            return reading(Signal.SILENT, f"not reached from {', '.join(said[Signal.SILENT])}, which reach others")
        untold = [(name, detail) for name, (each, detail) in sorted(answers.items()) if each is Signal.UNKNOWN]
        why = "; ".join(f"{name}: {detail}" for name, detail in untold)
        counted = f"{len(said[Signal.SILENT])} of {self.config.need} neighbours can tell"
        return reading(Signal.UNKNOWN, f"{counted} ({why})" if why else counted)

    async def _ask_one(self, neighbour: Target, suspect: Target, controls: Sequence[Target]) -> tuple[Signal, str]:
        """What one neighbour says; UNKNOWN unless it reaches a control target in the same round."""
        addresses = [suspect.address, *(control.address for control in controls)]
        try:
            said = await self._run(neighbour, " ".join(addresses))
        except (OSError, ValueError, asyncssh.Error) as error:
            return Signal.UNKNOWN, f"cannot be asked ({type(error).__name__})"
        heard = _parsed(said)
        if heard.get(suspect.address) == "alive":
            return Signal.ALIVE, ""
        if not any(heard.get(control.address) == "alive" for control in controls):
            return Signal.UNKNOWN, "reaches no other host either"
        if heard.get(suspect.address) == "silent":
            return Signal.SILENT, ""
        return Signal.UNKNOWN, "gave no answer (is the key bound to the forced command?)"

    async def _run(self, neighbour: Target, words: str) -> str:
        config = self.config
        connection = await asyncssh.connect(
            neighbour.address,
            config.port,
            username=config.username,
            client_keys=[str(config.key_file)],
            known_hosts=str(config.known_hosts),
            config=None,
            agent_path=None,
            connect_timeout=config.timeout_s,
            login_timeout=config.timeout_s,
        )
        try:
            done = await connection.run(words, check=False, stdin=asyncssh.DEVNULL, timeout=config.timeout_s)
        finally:
            connection.abort()
        return str(done.stdout or "")[:OUTPUT_MAX]


def _parsed(said: str) -> dict[str, str]:
    """Return what was said of each address; addresses in their canonical form."""
    heard = {}
    for line in said.splitlines():
        address, _, word = line.partition(" ")
        try:
            heard[str(ipaddress.ip_address(address))] = word.strip()
        except ValueError:
            continue
    return heard
