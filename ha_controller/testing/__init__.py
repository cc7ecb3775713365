"""The public conformance suites: what every fence agent, and every probe channel, must do, whatever it speaks.

An author writes a `Rig` round a real device or a real protocol server and runs every check against a fresh one:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_conformance(check: Check, my_rig: Rig) -> None:
        await check(my_rig)

A check raises `ConformanceFailure`, an AssertionError whose text says what the agent did wrong. Run them on a
*pretended* host: they switch it off again and again.

For a channel it is the same with a `ProbeRig` and `PROBE_CHECKS`: some hosts that can die, and a way to break what the
channel itself needs.
"""

from ha_controller.testing.checks import CHECKS
from ha_controller.testing.probe_checks import PROBE_CHECKS
from ha_controller.testing.probe_rig import ProbeCheck, ProbeRig
from ha_controller.testing.probe_tools import clock as probe_clock
from ha_controller.testing.rig import Agent, Check, ConformanceFailure, Fault, Rig

__all__ = [
    "CHECKS",
    "PROBE_CHECKS",
    "Agent",
    "Check",
    "ConformanceFailure",
    "Fault",
    "ProbeCheck",
    "ProbeRig",
    "Rig",
    "probe_clock",
]
