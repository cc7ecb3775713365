"""The bridge: asks an installed ClusterLabs agent for one action at a time.

It never believes "already off" by itself and never leaves the action to the agent, whose default is a reboot. It
verifies nothing and sets no deadline: that is the controller's work.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Self

import anyio
from pydantic import Field, SecretStr, field_validator, model_validator

from ha_controller import process
from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    PowerState,
    Rejected,
    Setting,
    Unreachable,
    Variant,
    one_line,
)
from ha_controller_fence_agents.metadata import RESERVED, NoMetadata, complaints, installed, metadata_of

#: They take everything that is not "on" for "off", a plug that does not exist too (read in fence-agents 4.12).
WEAK_PROGRAMS: Final = frozenset(
    f"fence_{name}" for name in ("apc_snmp", "tripplite_snmp", "emerson", "ibmblade", "intelmodular", "ipdu")
)
#: PDUs: what they switch feeds the host, and reads ON also when its BMC has switched it off
OUTLET_PROGRAMS: Final = frozenset(
    f"fence_{name}"
    for name in (
        "apc",
        "apc_snmp",
        "cyberpower_ssh",
        "eaton_snmp",
        "eaton_ssh",
        "emerson",
        "eps",
        "ipdu",
        "netio",
        "raritan",
        "raritan_px3",
        "tripplite_snmp",
        "wti",
    )
)
_SAYS_OFF: Final = re.compile(r"^Status: OFF\s*$", re.MULTILINE)
ON, OFF = 0, 2  #: exit status of the action "status"
_NO_POWER: Final = frozenset({"fence_sbd", "fence_evacuate", "fence_compute"})
_SECRET_NAME: Final = re.compile(r"passw|secret|token|community|api_?key")
_SECRET_FROM_ELSEWHERE: Final = re.compile(r"_(script|file)$")
_DENIED: Final = re.compile(
    r"invalid privilege|permission denied|authentication fail|unauthori[sz]ed|403 forbidden|access denied|"
    r"login denied|wrong digest|unknown user",
    re.IGNORECASE,
)
_UNREACHABLE: Final = re.compile(
    r"timed out|timeout|connection lost|connection refused|unable to connect|no route|could not resolve|unreachable",
    re.IGNORECASE,
)


class BridgeConfig(AgentConfig):
    """Which agent, and with which parameters."""

    program: Annotated[str, Field(pattern=r"^fence_[a-z0-9_]+$")]
    parameters: dict[str, str | int | bool] = Field(default_factory=dict)  #: as in the agent's metadata
    secrets: dict[str, SecretStr] = Field(default_factory=dict)  #: parameters whose values are secret
    weak_off: bool = False  #: its "off" may also mean "not there"; set by itself for the agents that are known for it

    @field_validator("parameters")
    @classmethod
    def _are_lines(cls, parameters: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for name, value in parameters.items():
            if isinstance(value, str) and re.search(r"[\n\r\0]", value):
                raise ValueError(f"{name} has more than one line")
            if _SECRET_NAME.search(name) and not _SECRET_FROM_ELSEWHERE.search(name):
                raise ValueError(f"{name} is a secret: write it into the table secrets")
        return parameters

    @field_validator("secrets")
    @classmethod
    def _are_secret_lines(cls, secrets: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in secrets.items():
            if re.search(r"[\n\r\0]", value.get_secret_value()):
                raise ValueError(f"{name} has more than one line")
        return secrets

    @model_validator(mode="after")
    def _suits_the_agent(self) -> Self:
        try:
            metadata = metadata_of(self.program)
        except NoMetadata as error:
            raise ValueError(str(error)) from None
        if "reboot" not in metadata.actions or self.program in _NO_POWER:
            raise ValueError(f"{self.program} does not switch power (storage, fabric, evacuation): it cannot prove off")
        lacking = {"off", "status"} - metadata.actions
        if lacking:
            raise ValueError(f"{self.program} has no action {', '.join(sorted(lacking))}, so it can prove nothing")
        given: dict[str, str | None] = {name: _written(value) for name, value in self.parameters.items()}
        given |= dict.fromkeys(self.secrets)
        if found := complaints(metadata, given):
            raise ValueError(f"{self.program}: {'; '.join(found)}")
        return self


class BridgeAgent(FenceAgent[BridgeConfig]):
    """Uses any installed fence agent of ClusterLabs (fence_ipmilan, fence_vmware_rest, ...)."""

    kind: ClassVar[str] = "fence-agents"
    config_model: ClassVar[type[AgentConfig]] = BridgeConfig
    capabilities = Capability.READ_POWER | Capability.OUT_OF_BAND | Capability.POWER_ON

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        if config.weak_off or config.program in WEAK_PROGRAMS or _takes_missing_for_off(config):
            self.capabilities = self.capabilities | Capability.WEAK_OFF
        if config.program in OUTLET_PROGRAMS:
            self.capabilities = self.capabilities | Capability.OUTLET
        self._one_call = anyio.Lock()

    @classmethod
    def variants(cls) -> tuple[str, ...]:
        """Return the names of the installed agents."""
        return installed()

    @classmethod
    def variant(cls, name: str) -> Variant | None:
        """Return what an installed agent says of itself."""
        try:
            metadata = metadata_of(name)
        except NoMetadata:
            return None
        settings = tuple(
            Setting(
                name=parameter.name,
                type="|".join(parameter.options) if parameter.options else parameter.kind,
                required=parameter.required and not parameter.default,
                default=parameter.default,
                text=parameter.text,
            )
            for parameter in metadata.parameters
            if parameter.name not in RESERVED and not parameter.deprecated
        )
        weak = " Its off is weak evidence." if name in WEAK_PROGRAMS else ""
        return Variant(name=name, summary=f"{metadata.summary}.{weak}", settings=settings)

    async def power_off(self) -> None:
        """Run the action "off".

        Raises:
            FenceError: it failed. What it did is unknown, whatever it says.
        """
        await self._done("off")

    async def power_on(self) -> None:
        """Run the action "on"; errors as for `power_off`."""
        await self._done("on")

    async def power_state(self) -> PowerState:
        """Run the action "status": exit status 0 is on, 2 with the words "Status: OFF" is off, all else unknown.

        The words are needed: shells and Python end with 2 when they cannot read the program.

        Raises:
            FenceError: the agent could not tell.
        """
        ended = await self._run("status")
        if ended.status == ON:
            return PowerState.ON
        if ended.status == OFF and _SAYS_OFF.search(ended.output):
            return PowerState.OFF
        raise self._error("status", ended)

    async def check(self) -> CheckReport:
        """Run "monitor", which looks whether the device answers, and "status", which looks at the plug.

        Raises:
            FenceError: the device did not answer, or the plug cannot be read.
        """
        if "monitor" in metadata_of(self.config.program).actions:  # known since the settings were checked
            await self._done("monitor")
        power = await self.power_state()
        weak = "; its off is weak evidence" if Capability.WEAK_OFF in self.capabilities else ""
        return CheckReport(ok=True, summary=f"{self.config.program} answers; power {power.value}{weak}", power=power)

    async def _done(self, action: str) -> None:
        ended = await self._run(action)
        if ended.status != 0:
            raise self._error(action, ended)

    async def _run(self, action: str) -> process.Ended:
        path = process.find(self.config.program)
        if path is None:
            raise Rejected(f"{self.config.program} is not installed any more")
        lines = [f"action={action}", *(f"{name}={_written(value)}" for name, value in self.config.parameters.items())]
        lines += [f"{name}={_quoted(value.get_secret_value())}" for name, value in self.config.secrets.items()]
        async with self._one_call:
            try:
                return await process.run([path], "\n".join(lines) + "\n")
            except OSError as error:
                raise Rejected(f"{self.config.program} cannot be started: {error.strerror}") from None

    def _error(self, action: str, ended: process.Ended) -> FenceError:
        said = self._scrubbed(f"{ended.errors}\n{ended.output}")
        text = f"{self.config.program} {action}: {said or f'exit status {ended.status}'}"
        if action in ("status", "monitor") and _DENIED.search(said):
            return AccessDenied(text)
        reached = "waiting to power" in said  # it answered, and did not change
        return Unreachable(text) if _UNREACHABLE.search(said) and not reached else FenceError(text)

    def _scrubbed(self, output: str) -> str:
        """Return the agent's last words in one line, without time stamps, warnings of Python and secrets."""
        lines = [line.strip() for line in output.splitlines() if "warning" not in line.lower()]
        told = [re.sub(r"^[\d\-:, ]+ERROR: ", "", line) for line in lines if line]
        secrets = (secret.get_secret_value() for secret in self.config.secrets.values())
        return one_line(" / ".join(dict.fromkeys(told[-3:])), *secrets, characters_max=300)


def _takes_missing_for_off(config: BridgeConfig) -> bool:
    """Whether the agent is told, or tends by itself, to call a plug off that is not there."""
    if "missing_as_off" in config.parameters:
        return _written(config.parameters["missing_as_off"]).lower() not in ("0", "no", "off", "false")
    return config.program == "fence_zvmip"


def _written(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(value: str) -> str:
    """Return the value so that the agents take it as it is: they strip blanks, and one pair of double quotes."""
    return f'"{value}"' if value != value.strip() or (value.startswith('"') and value.endswith('"')) else value
