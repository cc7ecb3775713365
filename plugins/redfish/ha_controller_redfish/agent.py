"""The Redfish fence agent: asks a BMC for one thing at a time.

It verifies no power-off and sets no deadline: that is the controller's work. The settings come from the controller's
configuration; the password goes into the Authorization header of verified TLS connections only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

import anyio
from pydantic import Field, SecretStr, field_validator, model_validator

from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    Identity,
    PowerState,
    Rejected,
    one_line,
)
from ha_controller_redfish import documents
from ha_controller_redfish.certificate import shown_certificate
from ha_controller_redfish.documents import Document
from ha_controller_redfish.service import (
    Answer,
    Login,
    NotFound,
    Service,
    Trust,
    UntrustedCertificate,
    WantsETag,
    open_service,
    trust_in,
)

ROOT: Final = "/redfish/v1/"
FORCE_OFF, ON = "ForceOff", "On"
TASK_WATCH_S: Final = 2.0  #: so long a task is watched: some BMCs refuse an order only there (Lenovo TSM)
TASK_POLL_S: Final = 0.5
ACCOUNTS_MAX: Final = 32


class RedfishConfig(AgentConfig):
    """Settings of one BMC."""

    address: Annotated[str, Field(min_length=1, pattern=r"^[^/@\s\[\]]+$")]  #: IPv4 or IPv6 literal, or a name
    port: Annotated[int, Field(ge=1, le=65535)] = 443
    username: Annotated[str, Field(min_length=1, pattern=r"^[^:]+$")]  #: basic authentication knows no colon in it
    password: Annotated[SecretStr, Field(min_length=1)]
    system: str | None = None  #: UUID, serial number or Id; needed when the service has several systems
    fingerprint: str | None = None  #: SHA-256 of a self-signed certificate; `fencing check` shows it
    ca_file: Path | None = None  #: CAs to trust in place of the system's

    @field_validator("fingerprint")
    @classmethod
    def _is_sha256(cls, fingerprint: str | None) -> str | None:
        if fingerprint is None:
            return None
        digits = fingerprint.replace(":", "").replace(" ", "").lower()
        if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
            raise ValueError("not a SHA-256 fingerprint: write 64 hexadecimal digits, with or without colons")
        return digits

    @field_validator("ca_file")
    @classmethod
    def _is_a_file(cls, ca_file: Path | None) -> Path | None:
        if ca_file is not None and not ca_file.is_file():
            raise ValueError("no such file")
        return ca_file

    @model_validator(mode="after")
    def _trusts_one_way(self) -> Self:
        if self.fingerprint is not None and self.ca_file is not None:
            raise ValueError("fingerprint and ca_file exclude each other: a pinned certificate needs no CA")
        return self


class RedfishAgent(FenceAgent[RedfishConfig]):
    """Controls a host's power through the Redfish service of its BMC."""

    kind: ClassVar[str] = "redfish"
    config_model: ClassVar[type[AgentConfig]] = RedfishConfig
    capabilities = Capability.READ_POWER | Capability.OUT_OF_BAND | Capability.POWER_ON | Capability.IDENTITY

    def __init__(self, config: RedfishConfig) -> None:
        super().__init__(config)
        self._one_call = anyio.Lock()
        self._system_path: str | None = None  #: where the system was found; looked for anew when it is gone

    async def power_off(self) -> None:
        """Order ForceOff; returns when the BMC accepted it.

        Raises:
            AccessDenied, Rejected: nothing was done.
            FenceError: the outcome is unknown.
        """
        await self._reset(FORCE_OFF)

    async def power_on(self) -> None:
        """Order On; errors as for `power_off`."""
        await self._reset(ON)

    async def power_state(self) -> PowerState:
        """Read the system's PowerState. "PoweringOff" is UNKNOWN.

        Raises:
            FenceError: nothing could be read.
        """
        async with self._service() as service:
            return documents.power_of((await self._system(service)).document)

    async def identity(self) -> Identity | None:
        """Read UUID and serial number of the system.

        Raises:
            FenceError: nothing could be read.
        """
        async with self._service() as service:
            return documents.identity_of((await self._system(service)).document)

    async def check(self) -> CheckReport:
        """Look at certificate, login, system, reset types, role and password age. Changes nothing.

        Raises:
            FenceError: the BMC did not answer, refused the login, or is not trusted.
        """
        try:
            async with self._service() as service:
                system = (await self._system(service)).document
                power = documents.power_of(system)
                if trouble := await self._reset_trouble(service, system):
                    return CheckReport(ok=False, summary=trouble, power=power)
                usable, words = await self._account(service)
        except UntrustedCertificate as error:
            shown = await shown_certificate(self.config.address, self.config.port)
            remedy = f'if the BMC itself shows this fingerprint, set fingerprint = "{shown.fingerprint}"'
            raise AccessDenied(f"{error}; {remedy}") from None
        notes = [words, await self._certificate_note(), f"power {power.value}"]
        return CheckReport(ok=usable, summary="; ".join(note for note in notes if note), power=power)

    # --- the system ---

    async def _system(self, service: Service) -> Answer:
        """Read the one system that is ours.

        Raises:
            Rejected: there are several and none is named, or the named one is not there.
        """
        if self._system_path is not None:
            try:
                answer = await service.get(self._system_path)
            except NotFound:
                self._system_path = None
            else:
                if self.config.system is None or documents.is_called(answer.document, self.config.system):
                    return answer
                self._system_path = None
        return await self._find_system(service)

    async def _find_system(self, service: Service) -> Answer:
        root = await service.get(ROOT)
        collection = await service.get(documents.link(root.document, "Systems"))
        paths = documents.member_paths(collection.document)
        if self.config.system is None:
            if len(paths) != 1:
                raise Rejected(
                    f"the service has {len(paths)} systems: name one by its UUID or serial number, as `system`"
                )
            self._system_path = paths[0]
            return await service.get(paths[0])
        found = {}
        for path in paths:
            answer = await service.get(path)
            if documents.is_called(answer.document, self.config.system):
                found[path] = answer
        if len(found) != 1:
            count = len(found) or "none"
            raise Rejected(
                f"{count} of the service's {len(paths)} systems is called {self.config.system}: name its UUID"
            )
        [(self._system_path, answer)] = found.items()
        return answer

    # --- the order ---

    async def _reset(self, reset_type: str) -> None:
        async with self._service() as service:
            system = await self._system(service)
            action = documents.reset_action(system.document)
            allowed = await self._allowed(service, action)
            if allowed is not None and reset_type not in allowed:
                raise Rejected(f"the BMC offers no {reset_type}, only {', '.join(sorted(allowed))}")
            answer = await self._ordered(service, action.target, reset_type, system.etag)
            if answer.status == 202:
                await self._watch(service, answer)

    async def _allowed(self, service: Service, action: documents.ResetAction) -> frozenset[str] | None:
        """Return the reset types that the BMC lists; None when it lists none, and then an order is simply tried."""
        if action.allowed is not None or action.action_info is None:
            return action.allowed
        try:
            return documents.allowed_reset_types((await service.get(action.action_info)).document)
        except Rejected:
            return None

    async def _ordered(self, service: Service, target: str, reset_type: str, etag: str | None) -> Answer:
        body = {"ResetType": reset_type}
        try:
            return await service.post(target, body)
        except WantsETag:
            return await service.post(target, body, etag or "*")

    async def _watch(self, service: Service, answer: Answer) -> None:
        """Look for a short while whether the task of an accepted order fails.

        Raises:
            FenceError: it failed; whether it did something is unknown.
        """
        task, path = answer.document, answer.document.get("@odata.id") or answer.location
        with anyio.move_on_after(TASK_WATCH_S):
            while documents.is_running(task) or (not task and path):
                await anyio.sleep(TASK_POLL_S)
                try:
                    task = (await service.get(documents.own_path(path, "the task"))).document
                except FenceError:
                    return  # the order was accepted; reading the power decides
        if failure := documents.task_failure(task):
            words = one_line(failure, self.config.password.get_secret_value())
            raise FenceError(f"the BMC accepted the order and its task failed: {words}")

    # --- the check ---

    async def _reset_trouble(self, service: Service, system: Document) -> str:
        allowed = await self._allowed(service, documents.reset_action(system))
        if allowed is not None and FORCE_OFF not in allowed:
            return f"the BMC offers no {FORCE_OFF}, only {', '.join(sorted(allowed))}: it cannot fence"
        return ""

    async def _account(self, service: Service) -> tuple[bool, str]:
        """Return whether our account may fence, in words; an account that cannot be read is told and taken as good."""
        notes: list[str] = []
        try:
            account = await self._own_account(service)
            if account is not None:
                usable, words = documents.password_trouble(account, datetime.now(UTC))
                if not usable:
                    return False, words
                notes.append(words)
                role = (await service.get(documents.link(account, "Links", "Role"))).document
                if documents.may_reset(role) is False:
                    name = one_line(str(role.get("Id")), self.config.password.get_secret_value())
                    return (
                        False,
                        f"the account has the role {name}, which may not switch the power: make it an Operator",
                    )
                return True, "; ".join(["logged in, the account may switch the power", *filter(None, notes)])
        except FenceError:
            pass  # many BMCs show accounts to administrators only
        unknown = "logged in; the rights of the account cannot be read, only a drill shows them"
        return True, "; ".join([unknown, *filter(None, notes)])

    async def _own_account(self, service: Service) -> Document | None:
        root = (await service.get(ROOT)).document
        accounts = (await service.get(documents.link(root, "AccountService"))).document
        collection = (await service.get(documents.link(accounts, "Accounts"))).document
        for path in documents.member_paths(collection)[:ACCOUNTS_MAX]:
            try:
                account = (await service.get(path)).document
            except (Rejected, AccessDenied):
                continue  # not ours: an account that may not manage users sees itself only
            if account.get("UserName") == self.config.username:
                return account
        return None

    async def _certificate_note(self) -> str:
        if self.config.fingerprint is not None:
            return ""  # a pinned certificate is taken whatever its end
        try:
            ends = (await shown_certificate(self.config.address, self.config.port)).ends
        except FenceError:
            return ""  # all else went well
        if ends is None or ends - datetime.now(UTC) > documents.ENDS_SOON:
            return ""
        return f"its certificate expires on {ends:%Y-%m-%d}, and fencing with it: renew it"

    @cached_property
    def _trust(self) -> Trust:
        return trust_in(self.config.ca_file, self.config.fingerprint)

    @asynccontextmanager
    async def _service(self) -> AsyncIterator[Service]:
        login = Login(
            address=self.config.address,
            port=self.config.port,
            username=self.config.username,
            password=self.config.password.get_secret_value(),
        )
        async with self._one_call, open_service(login, self._trust) as service:
            yield service
