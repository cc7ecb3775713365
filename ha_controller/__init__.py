"""ha-controller: high availability for OpenNebula clouds."""

__version__ = "0.1.0"
