"""What the author of a channel provides for its checks: hosts, and how they die or talk nonsense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from ha_controller.plugin import Probe, Signal, Target


class ProbeRig(Protocol):
    """Some hosts and a controller, as a test sees them. In a fresh one all hosts live and nothing is broken."""

    probe_class: type[Probe[Any]]  #: the class under test
    secrets: Sequence[str]  #: every password or key that this rig gives to a channel
    shows_life: Signal  #: what the channel says of a living host: mostly ALIVE; UNKNOWN where life tells it nothing
    shows_death: Signal  #: what it says of a dead one: SILENT, OFF, DUMPING; UNKNOWN where death tells it nothing

    def make_probe(self) -> Probe[Any]:
        """Build a channel as the controller would, not open yet. Short time-outs make short tests."""

    def targets(self) -> Sequence[Target]:
        """The hosts, at least three; none of them under close watch."""

    async def kill(self, host: int) -> None:
        """Have a host die as this channel may see it: nothing of it answers any more."""

    async def babble(self, host: int) -> None:
        """Have a host answer with what makes no sense, where the protocol lets it answer at all."""

    async def break_ourselves(self) -> None:
        """Break what the channel needs on the controller's side: its network, its folder, its port."""


ProbeCheck = Callable[[ProbeRig], Awaitable[None]]
