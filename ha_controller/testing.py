"""The public conformance suite for fence agents: what every agent must do, whatever its device speaks.

An author writes a `Rig` round a real device or a real protocol server and runs every check against a fresh one:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_conformance(check: Check, my_rig: Rig) -> None:
        await check(my_rig)

A check raises `ConformanceFailure`, an AssertionError whose text says what the agent did wrong. The checks ask the rig,
never the agent, what became of the host. Run them on a *pretended* host: they switch it off again and again.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import anyio

from ha_controller.plugin import AccessDenied, AgentConfig, Capability, FenceAgent, FenceError, PowerState, Rejected

T = TypeVar("T")
Agent = FenceAgent[Any]
Operation = Callable[[], Awaitable[object]]

CALL_WITHIN_S: Final = 10.0  #: longest time for a call to a healthy device, and for a slow one to be off
HANG_DEADLINE_S: Final = 0.5  #: the deadline that is set on calls to a device that hangs
CANCEL_WITHIN_S: Final = 0.3  #: a cancelled call must be over after this time
WATCH_S: Final = 1.0  #: how long a host is watched for an order that comes too late
LOOP_PAUSE_MAX_S: Final = 0.1
_POLL_S: Final = 0.02


class Fault(StrEnum):
    """How a rig makes its device misbehave."""

    STAYS_ON = "stays on"  #: acknowledges a power-off and leaves the power on
    SLOW = "slow"  #: acknowledges a power-off at once and switches a second or two later
    REFUSES = "refuses"  #: answers a power-off with a refusal, in its protocol's own way
    HANGS = "hangs"  #: never answers; what is sent to it is lost for ever
    NONSENSE = "nonsense"  #: answers everything with bytes that make no sense


class Rig(Protocol):
    """A device with its host, as a test sees them. Fresh ones are healthy and the host is on."""

    agent_class: type[Agent]  #: the class under test
    secrets: Sequence[str]  #: every password or key that this rig gives to an agent, the wrong one too
    system_uuid: str | None  #: what `identity` must return; None without IDENTITY, or for a device with a serial only

    def make_agent(self, *, wrong_password: bool = False) -> Agent:
        """Build an agent for the device in its present state. A rig may lead it elsewhere while a fault is set."""

    async def host_is_on(self) -> bool:
        """Look at the host itself, not through the agent."""

    async def set_host_power(self, on: bool) -> None:
        """Switch the host, not through the agent."""

    async def set_fault(self, fault: Fault | None) -> None:
        """Make the device misbehave, or heal it (None)."""


Check = Callable[[Rig], Awaitable[None]]


class ConformanceFailure(AssertionError):
    """The agent breaks the contract; the text says how."""


async def describes_itself(rig: Rig) -> None:
    """Kind, settings model and capabilities are declared, and fit what the class implements."""
    agent_class = rig.agent_class
    kind, capabilities = getattr(agent_class, "kind", ""), getattr(agent_class, "capabilities", None)
    _require(re.fullmatch(r"[a-z][a-z0-9_-]*", kind) is not None, f"kind {kind!r} is no name")
    _require(isinstance(capabilities, Capability), "capabilities is no Capability")
    _require(agent_class.sample_period_s > 0, "sample_period_s must be positive")
    for capability, method in ((Capability.POWER_ON, "power_on"), (Capability.IDENTITY, "identity")):
        implemented = getattr(agent_class, method) is not getattr(FenceAgent, method)
        claimed = capability in agent_class.capabilities
        _require(implemented == claimed, f"{capability.name} and the method {method} must come together")


async def has_strict_settings(rig: Rig) -> None:
    """The settings are an AgentConfig of the declared model, refuse unknown keys and hide secrets."""
    settings = rig.make_agent().config
    _require(issubclass(rig.agent_class.config_model, AgentConfig), "config_model is no AgentConfig")
    _require(isinstance(settings, rig.agent_class.config_model), "the agent's settings are not of its config_model")
    with suppress(ValueError):
        rig.agent_class.config_model.model_validate({**settings.model_dump(), "no_such_key": 1})
        raise ConformanceFailure("the settings take unknown keys")
    _require_no_secret(rig, "the settings show a secret, use SecretStr", repr(settings), settings.model_dump_json())


async def switches_a_running_host_off(rig: Rig) -> None:
    """The power is read as on, goes off when ordered, and is read as off."""
    agent = rig.make_agent()
    _require(await _call(agent.power_state) is PowerState.ON, "power_state is not ON for a running host")
    await _call(agent.power_off)

    async def is_read_as_off() -> bool:
        return await _call(agent.power_state) is PowerState.OFF

    _require(await _becomes_true(is_read_as_off, CALL_WITHIN_S), "power_state never became OFF after a power-off")
    _require(not await rig.host_is_on(), "power_state is OFF, and the host is on")


async def accepts_a_host_that_is_off(rig: Rig) -> None:
    """A power-off is idempotent: with the host off already it returns, or is `Rejected`, and OFF is read."""
    agent = rig.make_agent()
    await rig.set_host_power(False)
    error = await _error_of(agent.power_off)
    _require(error is None or isinstance(error, Rejected), f"power_off of a host that is off raised {error!r}")
    _require(await _call(agent.power_state) is PowerState.OFF, "power_state is not OFF for a host that is off")
    _require(not await rig.host_is_on(), "a power-off switched the host on")


async def never_says_off_too_early(rig: Rig) -> None:
    """With a slow device OFF is said only when the host is off."""
    await rig.set_fault(Fault.SLOW)
    await switches_a_running_host_off(rig)


async def sees_that_a_host_stayed_on(rig: Rig) -> None:
    """When the device acknowledges and does nothing, the truth is read."""
    await rig.set_fault(Fault.STAYS_ON)
    agent = rig.make_agent()
    await _call(agent.power_off)
    _require(await _call(agent.power_state) is PowerState.ON, "power_state is not ON for a host that stayed on")


async def tells_a_refusal(rig: Rig) -> None:
    """A refused power-off is `Rejected`, or a plain `FenceError` where the device's words leave open what it did."""
    await rig.set_fault(Fault.REFUSES)
    error = await _error_of(rig.make_agent().power_off)
    told = isinstance(error, Rejected) or type(error) is FenceError
    _require(told, f"a refused power-off must raise Rejected or FenceError, not {error!r}")


async def tells_a_wrong_password(rig: Rig) -> None:
    """Every call with a wrong password is `AccessDenied`, and nothing is done."""
    agent = rig.make_agent(wrong_password=True)
    for operation in _operations(agent):
        error = await _error_of(operation)
        _require(isinstance(error, AccessDenied), f"{_name(operation)} with a wrong password raised {error!r}")
    _require(await rig.host_is_on(), "a power-off with a wrong password was carried out")


async def checks_without_changing_anything(rig: Rig) -> None:
    """`check` finds a healthy device ready, and leaves the host alone."""
    report = await _call(rig.make_agent().check)
    _require(report.ok, f"check finds fault with a healthy device: {report.summary}")
    _require(report.summary.strip() != "" and "\n" not in report.summary, "the summary of check must be one line")
    _require(report.power is not PowerState.OFF, "check says OFF for a running host")
    _require(await rig.host_is_on(), "check switched the host off")


async def powers_on_if_it_says_so(rig: Rig) -> None:
    """With POWER_ON the host goes on when ordered."""
    if Capability.POWER_ON not in rig.agent_class.capabilities:
        return
    await rig.set_host_power(False)
    await _call(rig.make_agent().power_on)
    _require(await _becomes_true(rig.host_is_on, CALL_WITHIN_S), "power_on returned, and the host is not on")


async def identifies_the_machine_if_it_says_so(rig: Rig) -> None:
    """With IDENTITY the machine's own UUID is returned, in lower case and the byte order of product_uuid."""
    if Capability.IDENTITY not in rig.agent_class.capabilities:
        return
    identity = await _call(rig.make_agent().identity)
    system_uuid, serial = (identity.system_uuid, identity.serial) if identity else (None, None)
    _require(system_uuid is not None or serial is not None, "identity returned nothing to compare")
    _require(system_uuid == rig.system_uuid, f"identity said {system_uuid}, not {rig.system_uuid}")


async def stops_at_the_deadline(rig: Rig) -> None:
    """Against a device that hangs, every call is over as soon as its deadline is, and none pretends success."""
    await rig.set_fault(Fault.HANGS)
    for operation in _operations(rig.make_agent()):
        started = anyio.current_time()
        await _fruitless(operation)
        overrun_s = anyio.current_time() - started - HANG_DEADLINE_S
        _require(overrun_s < CANCEL_WITHIN_S, f"{_name(operation)} ended {overrun_s:.1f} s after its deadline")


async def sends_nothing_after_cancellation(rig: Rig) -> None:
    """A power-off that was cancelled because the device hung is not carried out when the device is back."""
    await rig.set_fault(Fault.HANGS)
    await _fruitless(rig.make_agent().power_off)
    await rig.set_fault(None)

    async def is_off() -> bool:
        return not await rig.host_is_on()

    _require(not await _becomes_true(is_off, WATCH_S), "a cancelled power-off was carried out later")


async def can_be_cancelled_at_every_step(rig: Rig) -> None:
    """Cancelled at each of its awaits, a call leaves no task and no file behind, and the next call works."""
    agent = rig.make_agent()
    for operation in _operations(agent):
        await _call(operation)  # pools and caches are filled now
        finished, step = False, 0
        while not finished:
            step += 1
            await rig.set_host_power(True)
            async with _nothing_left_behind(f"{_name(operation)}, cancelled at await {step},"):
                finished = await _cancel_at(operation, step)
            error = await _error_of(agent.power_state)
            _require(error is None, f"after {_name(operation)} was cancelled at await {step}: {error!r}")


async def raises_only_fence_errors(rig: Rig) -> None:
    """Nonsense from the device becomes a `FenceError` or runs into the deadline; it is never taken for success."""
    await rig.set_fault(Fault.NONSENSE)
    for operation in _operations(rig.make_agent()):
        await _fruitless(operation)


async def keeps_its_secrets(rig: Rig) -> None:
    """No secret in the agent's repr, in an error with all its causes, or in a log record."""
    with _captured_log() as log:
        _require_no_secret(rig, "the agent's repr shows a secret", repr(rig.make_agent()))
        errors = [await _error_of(operation) for operation in _operations(rig.make_agent(wrong_password=True))]
        await rig.set_fault(Fault.REFUSES)
        errors.append(await _error_of(rig.make_agent().power_off))
        for fault in (Fault.HANGS, Fault.NONSENSE):
            await rig.set_fault(fault)
            errors += [await _fruitless(operation) for operation in _operations(rig.make_agent())]
    for error in filter(None, errors):
        told = "".join(traceback.format_exception(error))  # with causes and contexts
        _require_no_secret(rig, "an error shows a secret", told, repr(error))
    _require_no_secret(rig, "a log record shows a secret", *map(log.format, log.buffer))


async def does_not_block_the_event_loop(rig: Rig) -> None:
    """No call keeps the event loop busy for long; the best of three tries counts, since machines have bad moments."""
    pauses_s = [await _longest_pause_s(rig) for _ in range(3)]
    _require(min(pauses_s) < LOOP_PAUSE_MAX_S, f"the event loop stood still for {min(pauses_s):.2f} s")


CHECKS: Final[tuple[Check, ...]] = (
    describes_itself, has_strict_settings,
    switches_a_running_host_off, accepts_a_host_that_is_off, never_says_off_too_early, sees_that_a_host_stayed_on,
    tells_a_refusal, tells_a_wrong_password, checks_without_changing_anything,
    powers_on_if_it_says_so, identifies_the_machine_if_it_says_so,
    stops_at_the_deadline, sends_nothing_after_cancellation, can_be_cancelled_at_every_step,
    raises_only_fence_errors, keeps_its_secrets, does_not_block_the_event_loop,
)  # fmt: skip


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ConformanceFailure(complaint)


def _require_no_secret(rig: Rig, complaint: str, *texts: str) -> None:
    _require(not any(secret in text for secret in rig.secrets for text in texts), complaint)


def _operations(agent: Agent) -> tuple[Operation, ...]:
    return (agent.power_state, agent.check, agent.power_off)


def _name(operation: Operation) -> str:
    return str(getattr(operation, "__name__", operation))


async def _call(operation: Callable[[], Awaitable[T]]) -> T:
    """Await a call that should succeed; whatever else happens is a failure."""
    try:
        return await _contained(operation)
    except FenceError as error:
        raise ConformanceFailure(f"{_name(operation)} raised {error!r}") from error


async def _error_of(operation: Operation) -> FenceError | None:
    try:
        await _contained(operation)
    except FenceError as error:
        return error
    return None


async def _fruitless(operation: Operation) -> FenceError | None:
    """Await a call that cannot succeed, with a short deadline; return its error, None when the deadline cut it."""
    with anyio.move_on_after(HANG_DEADLINE_S):
        error = await _error_of(operation)
        _require(error is not None, f"{_name(operation)} claims success, and the device gave no answer")
        return error
    return None


async def _contained(operation: Callable[[], Awaitable[T]]) -> T:
    try:
        with anyio.move_on_after(CALL_WITHIN_S):
            return await operation()
    except FenceError:
        raise
    except Exception as error:  # the border to the agent under test: its bug becomes our complaint
        raise ConformanceFailure(f"{_name(operation)} raised {error!r}; only FenceError is allowed") from error
    raise ConformanceFailure(f"{_name(operation)} was not done after {CALL_WITHIN_S} s")


async def _becomes_true(condition: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    with anyio.move_on_after(within_s):
        while True:
            if await condition():
                return True
            await anyio.sleep(_POLL_S)
    return False


@contextmanager
def _captured_log() -> Iterator[BufferingHandler]:
    tap, root = BufferingHandler(capacity=1_000_000), logging.getLogger()
    level = root.level
    root.addHandler(tap)
    root.setLevel(logging.DEBUG)
    try:
        yield tap
    finally:
        root.removeHandler(tap)
        root.setLevel(level)


async def _longest_pause_s(rig: Rig) -> float:
    longest_s, last = 0.0, anyio.current_time()

    async def beat() -> None:
        nonlocal longest_s, last
        while True:
            await anyio.sleep(_POLL_S)
            longest_s, last = max(longest_s, anyio.current_time() - last - _POLL_S), anyio.current_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        for operation in _operations(rig.make_agent()):
            with suppress(FenceError, ConformanceFailure):  # failing is another check's matter
                await _contained(operation)
            await anyio.sleep(2 * _POLL_S)  # let the beat see the end of it
        tasks.cancel_scope.cancel()
    return longest_s


@asynccontextmanager
async def _nothing_left_behind(culprit: str) -> AsyncIterator[None]:
    tasks, files = set(anyio.get_running_tasks()), _open_files()
    yield

    async def is_clean() -> bool:
        return tasks.issuperset(anyio.get_running_tasks()) and _open_files() <= files

    _require(await _becomes_true(is_clean, CANCEL_WITHIN_S), f"{culprit} left a task running or a file open")


def _open_files() -> int:
    folder = Path("/proc/self/fd")  # Linux only; elsewhere files go unchecked
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


async def _cancel_at(operation: Operation, step: int) -> bool:
    """Run a call and cancel it when it suspends for the `step`-th time; tell whether it finished before that."""
    with anyio.CancelScope() as scope:
        try:
            await _CancelledAt(operation(), step, scope)
        except Exception as error:  # the border to the agent under test, again
            complaint = f"{_name(operation)} raised {error!r} when it was cancelled at await {step}"
            raise ConformanceFailure(complaint) from error
    return not scope.cancel_called


class _CancelledAt(Generator[Any, Any, object]):
    """Awaits something, and cancels a scope when it suspends for the n-th time."""

    def __init__(self, inner: Awaitable[object], step: int, scope: anyio.CancelScope) -> None:
        self._inner = inner.__await__()
        self._steps_left = step
        self._scope = scope

    def __await__(self) -> _CancelledAt:
        return self

    def send(self, value: Any) -> Any:
        suspended_on = self._inner.send(value)
        self._steps_left -= 1
        if self._steps_left == 0:
            self._scope.cancel()
        return suspended_on

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)
