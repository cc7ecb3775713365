"""The configuration: TOML files and variables, checked all at once, with file and line for every problem."""

from ha_controller.config.loader import ConfigError, Problem, load
from ha_controller.config.model import Config, FenceDevice, MissingAttribute, describe

__all__ = ["Config", "ConfigError", "FenceDevice", "MissingAttribute", "Problem", "describe", "load"]
