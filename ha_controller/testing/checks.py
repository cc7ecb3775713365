"""The checks themselves. They ask the rig, never the agent, what became of the host."""

from __future__ import annotations

import re
import traceback
from typing import Final

import anyio
from pydantic import ValidationError

from ha_controller.plugin import AccessDenied, AgentConfig, Capability, FenceAgent, FenceError, PowerState, Rejected
from ha_controller.testing.rig import Check, Fault, Rig
from ha_controller.testing.tools import (
    CALL_WITHIN_S,
    CANCEL_WITHIN_S,
    HANG_DEADLINE_S,
    LOOP_PAUSE_MAX_S,
    WATCH_S,
    becomes_true,
    call,
    cancel_at,
    captured_log,
    error_of,
    fruitless,
    longest_pause_s,
    name,
    nothing_left_behind,
    operations,
    readings,
    require,
    require_no_secret,
)


async def describes_itself(rig: Rig) -> None:
    """Kind, settings model and capabilities are declared, and fit what the class implements."""
    agent_class = rig.agent_class
    kind, capabilities = getattr(agent_class, "kind", ""), getattr(agent_class, "capabilities", None)
    require(re.fullmatch(r"[a-z][a-z0-9_-]*", kind) is not None, f"kind {kind!r} is no name")
    require(isinstance(capabilities, Capability), "capabilities is no Capability")
    require(agent_class.sample_period_s > 0, "sample_period_s must be positive")
    for capability, method in ((Capability.POWER_ON, "power_on"), (Capability.IDENTITY, "identity")):
        implemented = getattr(agent_class, method) is not getattr(FenceAgent, method)
        said = capability in agent_class.capabilities
        require(implemented == said, f"{capability.name} and the method {method} must come together")
    claimed = agent_class.capabilities
    lifts = Capability.LASTING not in claimed or Capability.POWER_ON in claimed
    require(lifts, "a LASTING order is lifted by power_on: claim POWER_ON")
    knows = Capability.STORAGE not in claimed or rig.make_agent().datastores
    require(bool(knows), "with STORAGE an agent must say from which datastores it cuts a host off")


async def has_strict_settings(rig: Rig) -> None:
    """The settings are an AgentConfig of the declared model, refuse unknown keys and hide secrets."""
    settings = rig.make_agent().config
    require(issubclass(rig.agent_class.config_model, AgentConfig), "config_model is no AgentConfig")
    require(isinstance(settings, rig.agent_class.config_model), "the agent's settings are not of its config_model")
    complaints: list[str] = []
    try:
        rig.agent_class.config_model.model_validate({**settings.model_dump(), "no_such_key": 1})
    except ValidationError as error:
        complaints = [each["type"] for each in error.errors(include_input=False) if each["loc"] == ("no_such_key",)]
    require(complaints == ["extra_forbidden"], "the settings take unknown keys")
    require_no_secret(rig, "the settings show a secret, use SecretStr", repr(settings), settings.model_dump_json())


async def switches_a_running_host_off(rig: Rig) -> None:
    """The power is read as on, goes off when ordered, and is read as off."""
    agent = rig.make_agent()
    on, off = readings(agent)
    require(await call(agent.power_state) is on, f"power_state is not {on} for a running host")
    await call(agent.power_off)

    async def is_read_as_off() -> bool:
        if off is PowerState.UNKNOWN and await rig.host_is_on():
            return False
        return await call(agent.power_state) is off

    require(await becomes_true(is_read_as_off, CALL_WITHIN_S), f"power_state never became {off} after a power-off")
    require(not await rig.host_is_on(), f"power_state is {off}, and the host is on")


async def accepts_a_host_that_is_off(rig: Rig) -> None:
    """A power-off is idempotent: with the host off already it returns, or is `Rejected`, and OFF is read.

    Without OUT_OF_BAND there may be nobody left to take the order.
    """
    agent = rig.make_agent()
    remembers = Capability.SELF_RESET in agent.capabilities  # its proof stands on a host that it saw alive before
    if remembers:
        await call(agent.power_state)
    await rig.set_host_power(False)
    error = await error_of(agent.power_off)
    idle = error is None or isinstance(error, Rejected) or Capability.OUT_OF_BAND not in agent.capabilities
    require(idle, f"power_off of a host that is off raised {error!r}")
    off = readings(agent)[1]

    async def is_read_as_off() -> bool:
        return await call(agent.power_state) is off

    told = await becomes_true(is_read_as_off, CALL_WITHIN_S) if remembers else await is_read_as_off()
    require(told, f"power_state is not {off} for a host that is off")
    require(not await rig.host_is_on(), "a power-off switched the host on")


async def never_says_off_too_early(rig: Rig) -> None:
    """With a slow device OFF is said only when the host is off."""
    await rig.set_fault(Fault.SLOW)
    await switches_a_running_host_off(rig)


async def sees_that_a_host_stayed_on(rig: Rig) -> None:
    """When the device acknowledges and does nothing, the truth is read; an agent that looks itself may say so."""
    await rig.set_fault(Fault.STAYS_ON)
    agent = rig.make_agent()
    await error_of(agent.power_off)
    on = readings(agent)[0]
    require(await call(agent.power_state) is on, f"power_state is not {on} for a host that stayed on")


async def tells_a_refusal(rig: Rig) -> None:
    """A refused power-off is `Rejected`, or a plain `FenceError` where the device's words leave open what it did."""
    await rig.set_fault(Fault.REFUSES)
    error = await error_of(rig.make_agent().power_off)
    told = isinstance(error, Rejected) or type(error) is FenceError
    require(told, f"a refused power-off must raise Rejected or FenceError, not {error!r}")


async def tells_a_wrong_password(rig: Rig) -> None:
    """Every call with a wrong password is `AccessDenied`, and nothing is done."""
    agent = rig.make_agent(wrong_password=True)
    expected = AccessDenied if getattr(rig, "tells_denials", True) else FenceError
    for operation in operations(agent):
        error = await error_of(operation)
        require(isinstance(error, expected), f"{name(operation)} with a wrong password raised {error!r}")
    require(await rig.host_is_on(), "a power-off with a wrong password was carried out")


async def checks_without_changing_anything(rig: Rig) -> None:
    """`check` finds a healthy device ready, and leaves the host alone."""
    report = await call(rig.make_agent().check)
    require(report.ok, f"check finds fault with a healthy device: {report.summary}")
    require(report.summary.strip() != "" and "\n" not in report.summary, "the summary of check must be one line")
    require(report.power is not PowerState.OFF, "check says OFF for a running host")
    require(await rig.host_is_on(), "check switched the host off")


async def powers_on_if_it_says_so(rig: Rig) -> None:
    """With POWER_ON the host goes on when ordered."""
    if Capability.POWER_ON not in rig.agent_class.capabilities:
        return
    await rig.set_host_power(False)
    await call(rig.make_agent().power_on)
    require(await becomes_true(rig.host_is_on, CALL_WITHIN_S), "power_on returned, and the host is not on")


async def identifies_the_machine_if_it_says_so(rig: Rig) -> None:
    """With IDENTITY the machine's own UUID is returned, in lower case and the byte order of product_uuid."""
    if Capability.IDENTITY not in rig.agent_class.capabilities:
        return
    identity = await call(rig.make_agent().identity)
    system_uuid, serial = (identity.system_uuid, identity.serial) if identity else (None, None)
    require(system_uuid is not None or serial is not None, "identity returned nothing to compare")
    require(system_uuid == rig.system_uuid, f"identity said {system_uuid}, not {rig.system_uuid}")


async def stops_at_the_deadline(rig: Rig) -> None:
    """Against a device that hangs, every call is over as soon as its deadline is, and none pretends success."""
    await rig.set_fault(Fault.HANGS)
    for operation in operations(rig.make_agent()):
        started = anyio.current_time()
        await fruitless(operation)
        overrun_s = anyio.current_time() - started - HANG_DEADLINE_S
        require(overrun_s < CANCEL_WITHIN_S, f"{name(operation)} ended {overrun_s:.1f} s after its deadline")


async def sends_nothing_after_cancellation(rig: Rig) -> None:
    """A power-off that was cancelled because the device hung is not carried out when the device is back."""
    await rig.set_fault(Fault.HANGS)
    await fruitless(rig.make_agent().power_off)
    await rig.set_fault(None)

    async def is_off() -> bool:
        return not await rig.host_is_on()

    require(not await becomes_true(is_off, WATCH_S), "a cancelled power-off was carried out later")


async def can_be_cancelled_at_every_step(rig: Rig) -> None:
    """Cancelled at each of its awaits, a call leaves no task and no file behind, and the next call works."""
    agent = rig.make_agent()
    for operation in operations(agent):
        await call(operation)  # pools and caches are filled now
        finished, step = False, 0
        while not finished:
            step += 1
            await rig.set_host_power(True)
            async with nothing_left_behind(f"{name(operation)}, cancelled at await {step},"):
                finished = await cancel_at(operation, step)
            error = await error_of(agent.power_state)
            require(error is None, f"after {name(operation)} was cancelled at await {step}: {error!r}")


async def raises_only_fence_errors(rig: Rig) -> None:
    """Nonsense from the device becomes a `FenceError` or runs into the deadline; it is never taken for success."""
    await rig.set_fault(Fault.NONSENSE)
    for operation in operations(rig.make_agent()):
        await fruitless(operation)


async def keeps_its_secrets(rig: Rig) -> None:
    """No secret in the agent's repr, in an error with all its causes, or in a log record."""
    with captured_log() as log:
        require_no_secret(rig, "the agent's repr shows a secret", repr(rig.make_agent()))
        errors = [await error_of(operation) for operation in operations(rig.make_agent(wrong_password=True))]
        await rig.set_fault(Fault.REFUSES)
        errors.append(await error_of(rig.make_agent().power_off))
        for fault in (Fault.HANGS, Fault.NONSENSE):
            await rig.set_fault(fault)
            errors += [await fruitless(operation) for operation in operations(rig.make_agent())]
    for error in filter(None, errors):
        told = "".join(traceback.format_exception(error))  # with causes and contexts
        require_no_secret(rig, "an error shows a secret", told, repr(error))
    require_no_secret(rig, "a log record shows a secret", *map(log.format, log.buffer))


async def does_not_block_the_event_loop(rig: Rig) -> None:
    """No call keeps the event loop busy for long; the best of three tries counts, since machines have bad moments."""
    pauses_s = [await longest_pause_s(rig) for _ in range(3)]
    require(min(pauses_s) < LOOP_PAUSE_MAX_S, f"the event loop stood still for {min(pauses_s):.2f} s")


CHECKS: Final[tuple[Check, ...]] = (
    describes_itself, has_strict_settings,
    switches_a_running_host_off, accepts_a_host_that_is_off, never_says_off_too_early, sees_that_a_host_stayed_on,
    tells_a_refusal, tells_a_wrong_password, checks_without_changing_anything,
    powers_on_if_it_says_so, identifies_the_machine_if_it_says_so,
    stops_at_the_deadline, sends_nothing_after_cancellation, can_be_cancelled_at_every_step,
    raises_only_fence_errors, keeps_its_secrets, does_not_block_the_event_loop,
)  # fmt: skip
