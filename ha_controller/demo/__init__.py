"""`ha-controller demo`: an embedded cloud, the real controller against it, one broken host, one verdict."""

from ha_controller.demo.play import demo_config, run

__all__ = ["demo_config", "run"]
