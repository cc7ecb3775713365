"""What is written on a VM about the order of starts, as it is read from OpenNebula's own words."""

from __future__ import annotations

import pytest

from ha_controller.adapters.opennebula.documents import VM
from ha_controller.adapters.opennebula.reader import DocumentReader
