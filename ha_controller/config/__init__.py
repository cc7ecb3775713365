"""The configuration: TOML files and variables, checked all at once, with file and line for every problem."""

from ha_controller.config.api import Api
from ha_controller.config.detection import Detect
from ha_controller.config.loader import ConfigError, Problem, load
from ha_controller.config.model import Config, Drills, FenceDevice, describe, differences, in_force
from ha_controller.config.placeholders import MissingAttribute
from ha_controller.config.values import listen_at

__all__ = [
    "Api",
    "Config",
    "ConfigError",
    "Detect",
    "Drills",
    "FenceDevice",
    "MissingAttribute",
    "Problem",
    "describe",
    "differences",
    "in_force",
    "listen_at",
    "load",
]
