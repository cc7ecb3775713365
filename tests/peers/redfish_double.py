"""A double of a Redfish service, over real TLS, with what sushy-emulator lacks: accounts, ETags, ActionInfo, tasks.

No independent peer with these was found. Its documents follow DMTF's published schemas and mock-ups; it is no evidence
that a maker's BMC behaves so. What it was asked is in `orders`.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.peers.certificates import Certificate

ADDRESS = "127.0.0.1"
USERNAME, PASSWORD = "fencer", "fencer-secret-7"
SYSTEM = "/redfish/v1/Systems/1"
UUID = "4c4c4544-0042-3510-8052-b4c04f564231"
Json = dict[str, Any]
FORBIDDEN: Json = {"error": {"@Message.ExtendedInfo": [{"Message": "There are insufficient privileges."}]}}


@dataclass
class RedfishDouble:
    """Its behaviour; change it while it runs."""

    power: str = "On"
    reset_types: list[str] | None = field(default_factory=lambda: ["On", "ForceOff"])  #: inline; None: not listed
    action_info: list[str] | None = None  #: listed in a ResetActionInfo document
    etag: str | None = None  #: then an order needs If-Match
    task: Json | None = None  #: answer 202 and show this task
    refusal: tuple[int, Json] | None = None  #: answer orders so
    privileges: list[str] = field(default_factory=lambda: ["Login", "ConfigureComponents", "ConfigureSelf"])
    account: Json = field(default_factory=dict)  #: more of our account
    has_accounts: bool = True
    hidden_accounts: int = 0  #: of others, which we may not read
    systems: dict[str, Json] = field(default_factory=dict)  #: more systems
    orders: list[Json] = field(default_factory=list)
    port: int = 0
    address: str = ADDRESS

    def document(self, path: str) -> Json | None:
        """What a GET shows."""
        account, accounts = "/redfish/v1/AccountService/Accounts", [*range(2, 2 + self.hidden_accounts), 1]
        action: Json = {"target": f"{SYSTEM}/Actions/ComputerSystem.Reset"}
        if self.reset_types is not None:
            action["ResetType@Redfish.AllowableValues"] = self.reset_types
        if self.action_info is not None:
            action["@Redfish.ActionInfo"] = f"{SYSTEM}/ResetActionInfo"
        known: dict[str, Json] = {
            "/redfish/v1/": {
                "Systems": {"@odata.id": "/redfish/v1/Systems"},
                **({"AccountService": {"@odata.id": "/redfish/v1/AccountService"}} if self.has_accounts else {}),
            },
            "/redfish/v1/Systems": {"Members": [{"@odata.id": path} for path in (SYSTEM, *self.systems)]},
            SYSTEM: {
                "Id": "1", "UUID": UUID.upper(), "SerialNumber": "SN12345", "PowerState": self.power,
                "Actions": {"#ComputerSystem.Reset": action},
            },
            f"{SYSTEM}/ResetActionInfo": {
                "Parameters": [{"Name": "ResetType", "Required": True, "AllowableValues": self.action_info or []}]
            },
            "/redfish/v1/TaskService/Tasks/1": self.task or {},
            "/redfish/v1/AccountService": {"Accounts": {"@odata.id": account}},
            account: {"Members": [{"@odata.id": f"{account}/{number}"} for number in accounts]},
            f"{account}/1": {
                "UserName": USERNAME, "RoleId": "Ours",
                "Links": {"Role": {"@odata.id": "/redfish/v1/AccountService/Roles/Ours"}}, **self.account,
            },
            "/redfish/v1/AccountService/Roles/Ours": {"Id": "Ours", "AssignedPrivileges": self.privileges},
            **self.systems,
        }  # fmt: skip
        return known.get(path)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        expected = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        if request.path != "/redfish/v1/" and request.headers.get("Authorization") != expected:
            return web.json_response({"error": {"message": "Unauthorized"}}, status=401)
        if request.method == "POST":
            return self._order(request, await request.json())
        if "/Accounts/" in request.path and not request.path.endswith("/1"):
            return web.json_response(FORBIDDEN, status=403)
        document = self.document(request.path)
        if document is None:
            return web.json_response({"error": {"message": "not found"}}, status=404)
        return web.json_response(document, headers={"ETag": self.etag} if self.etag else {})

    def _order(self, request: web.Request, body: Json) -> web.Response:
        if self.etag is not None and request.headers.get("If-Match") != self.etag:
            return web.json_response({"error": {"message": "precondition required"}}, status=428)
        self.orders.append(body)
        if self.refusal is not None:
            return web.json_response(self.refusal[1], status=self.refusal[0])
        if self.task is not None:
            return web.json_response(
                {"@odata.id": "/redfish/v1/TaskService/Tasks/1", "TaskState": "New"},
                status=202,
                headers={"Location": "/redfish/v1/TaskService/Tasks/1/Monitor"},
            )
        self.power = "On" if body["ResetType"] == "On" else "Off"
        return web.Response(status=204)


@asynccontextmanager
async def running(double: RedfishDouble, certificate: Certificate) -> AsyncIterator[RedfishDouble]:
    """Serve it on a free port of loopback."""
    runner = web.ServerRunner(web.Server(double.handle))
    await runner.setup()
    site = web.TCPSite(runner, ADDRESS, 0, ssl_context=certificate.server_context())
    await site.start()
    double.port = runner.addresses[0][1]
    try:
        yield double
    finally:
        await runner.cleanup()
