"""Fences: orders to devices, reading back, checks and drills."""

from ha_controller.adapters.fencer.drill import Looks
from ha_controller.adapters.fencer.fencer import Fencer
from ha_controller.adapters.fencer.switch import Device, reads_power

__all__ = ["Device", "Fencer", "Looks", "reads_power"]
