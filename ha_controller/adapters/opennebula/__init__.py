"""OpenNebula's XML-RPC, as far as a failover needs it. Everything public is named here.

It reads, gives orders and reports what oned said; it decides nothing and repeats nothing. The data comes from oned and
goes to the adapters that hold a `Client`.
"""

from ha_controller.adapters.opennebula.client import Client, HostStatus
from ha_controller.adapters.opennebula.models import (
    OnedCluster,
    OnedDatastore,
    OnedDisk,
    OnedHook,
    OnedHost,
    OnedStay,
    OnedUser,
    OnedVm,
    OnedZone,
    RaftStatus,
)
from ha_controller.adapters.opennebula.states import (
    LcmState,
    OnedHostState,
    RaftState,
    VmState,
    host_state_name,
)
from ha_controller.adapters.opennebula.states import name as vm_state_name
from ha_controller.adapters.opennebula.transport import Transport
from ha_controller.adapters.opennebula.xmlrpc import (
    BadReply,
    BadRequest,
    EmptyPool,
    Locked,
    NoAnswer,
    NoSuchObject,
    NotAllowedNow,
    OpenNebulaError,
    ServerFailed,
    Unauthenticated,
    Unauthorized,
    Unconfirmed,
    Withheld,
)

__all__ = [
    "BadReply",
    "BadRequest",
    "Client",
    "EmptyPool",
    "HostStatus",
    "LcmState",
    "Locked",
    "NoAnswer",
    "NoSuchObject",
    "NotAllowedNow",
    "OnedCluster",
    "OnedDatastore",
    "OnedDisk",
    "OnedHook",
    "OnedHost",
    "OnedHostState",
    "OnedStay",
    "OnedUser",
    "OnedVm",
    "OnedZone",
    "OpenNebulaError",
    "RaftState",
    "RaftStatus",
    "ServerFailed",
    "Transport",
    "Unauthenticated",
    "Unauthorized",
    "Unconfirmed",
    "VmState",
    "Withheld",
    "host_state_name",
    "vm_state_name",
]
