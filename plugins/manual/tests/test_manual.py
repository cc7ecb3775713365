"""Manual fencing does nothing and says so."""

from __future__ import annotations

import pytest
from ha_controller_manual import ManualAgent, ManualConfig
from pydantic import ValidationError

from ha_controller.plugin import PowerState, Rejected

AGENT = ManualAgent(ManualConfig(instructions="rack 3, unit 12"))


async def test_a_power_off_is_refused_with_the_instructions():
    with pytest.raises(Rejected, match="rack 3, unit 12"):
        await AGENT.power_off()


async def test_it_knows_nothing_of_the_power_and_is_always_ready():
    assert await AGENT.power_state() is PowerState.UNKNOWN
    report = await AGENT.check()
    assert report.ok
    assert "rack 3, unit 12" in report.summary


def test_instructions_are_needed():
    with pytest.raises(ValidationError):
        ManualConfig.model_validate({"instructions": ""})
