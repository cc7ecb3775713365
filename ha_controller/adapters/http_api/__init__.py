"""The HTTP API: what is looked at and ordered from outside, over this machine's own socket and over TCP."""

from ha_controller.adapters.http_api.access import Role
from ha_controller.adapters.http_api.doorkeeper import Doorkeeper, Proxies
from ha_controller.adapters.http_api.people import People
from ha_controller.adapters.http_api.server import HttpApi, Tcp
from ha_controller.adapters.http_api.sources import Sources, Unreadable

__all__ = ["Doorkeeper", "HttpApi", "People", "Proxies", "Role", "Sources", "Tcp", "Unreadable"]
