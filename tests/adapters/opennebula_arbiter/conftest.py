"""A zone of three front-ends, and a controller beside each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from zone_controllers import Beside, Controller
from zones import Zone, zone_of_three


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    async with zone_of_three() as made:
        await made.elected()
        yield made


@pytest.fixture
async def beside(zone: Zone) -> AsyncIterator[Beside]:
    """Makes the controller beside a front-end."""
    made: list[Controller] = []

    def make(machine: int, **settings: Any) -> Controller:
        made.append(Controller(zone, machine, **settings))
        return made[-1]

    yield make
    for each in made:
        await each.arbiter.close()


@pytest.fixture
def controllers(beside: Beside) -> list[Controller]:
    return [beside(machine) for machine in range(3)]
