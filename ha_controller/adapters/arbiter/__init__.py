"""Who leads: the arbiters that come with the controller, and the one that keeps the lead."""

from ha_controller.adapters.arbiter.leadership import Leadership, Moment
from ha_controller.adapters.arbiter.single import SingleArbiter, SingleConfig, StateDirectoryUnusable, write_whole

__all__ = ["Leadership", "Moment", "SingleArbiter", "SingleConfig", "StateDirectoryUnusable", "write_whole"]
