"""oned's event publisher: over a real ZeroMQ socket, in the topics and bodies that a running oned 7.4.0 sends.

Each change of a host's or a VM's state is published twice, as there, and nothing is ever repeated. Needs pyzmq.
"""

from __future__ import annotations

import base64

import zmq

from ha_controller.sim import oned_model as one
from ha_controller.sim import oned_xml as xml
from ha_controller.sim.oned_state import Oned

HOST_STATES = {0: "INIT", 2: "MONITORED", 3: "ERROR", 4: "DISABLED", 8: "OFFLINE"}


class EventPublisher:
    """Compares what oned believes with what it believed at the last look, and publishes the difference."""

    def __init__(self, oned: Oned, address: str = "tcp://127.0.0.1") -> None:
        """Opens a port of its own, unless `address` names one."""
        self._oned = oned
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.linger = 0
        if address.count(":") > 1:
            self._socket.bind(address)
            self.address = address
        else:
            self.address = f"{address}:{self._socket.bind_to_random_port(address)}"
        self._before = self._states()

    def close(self) -> None:
        """Close the port."""
        self._context.destroy(linger=0)

    def look(self) -> None:
        """Publish what has changed."""
        now = self._states()
        for thing, state in now.items():
            if self._before.get(thing) != state:
                self._publish(*thing, *state)
        self._before = now

    def _states(self) -> dict[tuple[str, int], tuple[str, str]]:
        found = {("HOST", host.id): (HOST_STATES[host.state], "") for host in self._oned.hosts.values()}
        for vm in self._oned.vms.values():
            state = "ACTIVE" if vm.state == one.ACTIVE else one.STATE_NAMES[vm.state]
            found["VM", vm.id] = (state, one.LCM_NAMES[vm.lcm_state])
        return found

    def _publish(self, kind: str, number: int, state: str, lcm_state: str) -> None:
        if kind == "HOST":
            document, at = xml.host(self._oned, self._oned.hosts[number]), number
        else:
            document, at = xml.vm(self._oned, self._oned.vms[number], all_history=True), self._oned.vms[number].host
        body = base64.b64encode(
            f"<HOOK_MESSAGE><HOOK_TYPE>STATE</HOOK_TYPE><HOOK_OBJECT>{kind}</HOOK_OBJECT><STATE>{state}</STATE>"
            f"<LCM_STATE>{lcm_state}</LCM_STATE><RESOURCE_ID>{number}</RESOURCE_ID>"
            f"<REMOTE_HOST>{self._oned.hosts[at].name}</REMOTE_HOST>{document}</HOOK_MESSAGE>".encode()
        )
        for topic in (
            f"EVENT STATE {kind}/{state}/{lcm_state}/{number} ",
            f"EVENT {kind} {number}/{state}/{lcm_state} ",
        ):
            self._socket.send_multipart([topic.encode(), body], zmq.NOBLOCK)
