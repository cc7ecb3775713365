"""The command line. Client commands talk to the running controller over its Unix socket and import next to nothing."""

from ha_controller.cli.main import main

__all__ = ["main"]
