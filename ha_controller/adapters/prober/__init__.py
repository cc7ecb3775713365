"""Watches hosts through many channels at once; see `scheduler` for the loop and one module per channel."""

from ha_controller.adapters.prober.scheduler import Prober

__all__ = ["Prober"]
