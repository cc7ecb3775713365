"""The public conformance suite for fence agents: what every agent must do, whatever its device speaks.

An author writes a `Rig` round a real device or a real protocol server and runs every check against a fresh one:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_conformance(check: Check, my_rig: Rig) -> None:
        await check(my_rig)

A check raises `ConformanceFailure`, an AssertionError whose text says what the agent did wrong. Run them on a
*pretended* host: they switch it off again and again.
"""

from ha_controller.testing.checks import CHECKS
from ha_controller.testing.rig import Agent, Check, ConformanceFailure, Fault, Rig

__all__ = ["CHECKS", "Agent", "Check", "ConformanceFailure", "Fault", "Rig"]
