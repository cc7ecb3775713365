"""What is asked of OpenNebula, and which of its hosts are ours."""

from ha_controller.adapters.recoverer.attributes import AttributeWriter
from ha_controller.adapters.recoverer.names import NameReader
from ha_controller.adapters.recoverer.recoverer import FencePlan, Recoverer
from ha_controller.adapters.recoverer.scope import Scope

__all__ = ["AttributeWriter", "FencePlan", "NameReader", "Recoverer", "Scope"]
