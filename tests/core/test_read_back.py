"""What was acknowledged before a restart is read back, and not sent again."""

from __future__ import annotations

from world import Cloud

from ha_controller.core.controller import Controller
from ha_controller.core.effects import Fence
from ha_controller.core.events import FenceAccepted, LeadChanged


def test_an_acknowledged_power_off_is_read_back_only_when_the_lead_is_held():
    """Found by the simulator: OpenNebula was read before the lead was taken, and nobody may carry such an order out."""
    cloud = Cloud()
    cloud.run(6)
    cloud.kill(2, "off")
    cloud.deaf = {Fence}
    cloud.run(4)
    order = cloud.ordered(Fence)[-1]
    cloud.feed(FenceAccepted(host=2, incident=order.incident, attempt=order.attempt))
    records = [incident for incident in cloud.incidents.values() if incident.open]
    cloud.controller = Controller(cloud.settings, cloud.now)
    cloud.controller.restore(records, cloud.cloud, cloud.now, cloud.trusts.values())
    cloud.controller.resume(cloud.now)
    cloud.effects.clear()
    cloud.inventory()
    cloud.run(1)
    assert cloud.ordered(Fence) == []
    cloud.feed(LeadChanged(term=2))
    cloud.run(1)
    assert [(again.send, again.term) for again in cloud.ordered(Fence)] == [(False, 2)]
