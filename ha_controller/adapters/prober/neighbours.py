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
from typing import Annotated, Final

import anyio
from pydantic import Field

from ha_controller.adapters.prober.channel import AsyncProbe, usable_address
from ha_controller.adapters.prober.login import LoginConfig
from ha_controller.adapters.ssh_login import LoginFailed, run_command
from ha_controller.plugin import Domain, Duration, Reading, Signal, Target, duration_field

#: Bound to the key on every host. Asks all addresses at once, by ping and by a TCP handshake; a refusal is an answer.
FORCED_COMMAND: Final = (
    "set -f; ask() { ping -n -q -c1 -W1 $1 >/dev/null 2>&1; p=$?;"
    " t=$(timeout 1 bash -c ': </dev/tcp/$0/22' $1 2>&1) && p=0;"
    " case $p:$t in 0:*|*refused*) echo $1 alive;; 1:*) echo $1 silent;; *) echo $1 unknown;; esac; };"
    " for a in $SSH_ORIGINAL_COMMAND; do case $a in *[!0-9a-fA-F.:]*) ;; *) ask $a & ;; esac; done; wait"
)
CONTROLS_MAX: Final = 2
OWN_SHARE: Final = 0.8


class NeighboursConfig(LoginConfig):
    """Settings of `[channel.neighbours]`."""

    timeout_s: Duration = duration_field("5s", key="timeout", longest="6s")  #: two rounds within what an ALIVE counts
    ask: Annotated[int, Field(ge=1, le=20)] = 3  #: so many neighbours at most
    need: Annotated[int, Field(ge=1, le=20)] = 2  #: so many must agree on silence


class NeighboursProbe(AsyncProbe[NeighboursConfig]):
    """Asks healthy hosts about suspects."""

    kind = "neighbours"
    config_model = NeighboursConfig
    domain = Domain.VANTAGE
    proves_userland = False  # they ping it and knock at its port
    suspects_only = True
    watched_every_s = 1.0

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
        words = " ".join([suspect.address, *(control.address for control in controls)])
        try:
            said = await run_command(self.config.login, neighbour.address, words, timeout_s=self.config.timeout_s)
        except LoginFailed as error:
            return Signal.UNKNOWN, str(error)
        heard = _parsed(said.text)
        if heard.get(suspect.address) == "alive":
            return Signal.ALIVE, ""
        if not any(heard.get(control.address) == "alive" for control in controls):
            return Signal.UNKNOWN, "reaches no other host either"
        if heard.get(suspect.address) == "silent":
            return Signal.SILENT, ""
        return Signal.UNKNOWN, "gave no answer (is the key bound to the forced command?)"


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
