"""The checks of channels. What is at stake: silence that is none gets a healthy host powered off."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Sequence
from typing import Final

import anyio
from pydantic import ValidationError

from ha_controller.plugin import Domain, ProbeConfig, ProbeUnavailable, Reading, Signal, Target
from ha_controller.testing.probe_rig import ProbeCheck, ProbeRig
from ha_controller.testing.probe_tools import (
    CLOSE_WITHIN_S,
    LATE_S,
    TICK_S,
    asking,
    children,
    clock,
    closed,
    opened,
)
from ha_controller.testing.tools import (
    CANCEL_WITHIN_S,
    LOOP_PAUSE_MAX_S,
    WATCH_S,
    captured_log,
    longest_pause_of,
    nothing_left_behind,
    require,
)

RETURNS_WITHIN_S: Final = 0.05
HOLD_S: Final = 0.5  #: an answer is left lying so long before it is collected
STAMP_WITHIN_S: Final = 0.2
OTHERS_WITHIN: Final = 0.8  #: of the time-out: so long living hosts may take beside a dead one
OF_THE_DEAD: Final = frozenset({Signal.SILENT, Signal.OFF, Signal.DUMPING})
OF_THE_LIVING: Final = frozenset({Signal.ALIVE, Signal.ON})


async def describes_itself(rig: ProbeRig) -> None:
    """Kind, domain and settings model are declared, and open says in one line what is in force."""
    probe_class = rig.probe_class
    kind, domain = getattr(probe_class, "kind", ""), getattr(probe_class, "domain", None)
    require(re.fullmatch(r"[a-z][a-z0-9_-]*", kind) is not None, f"kind {kind!r} is no name")
    require(isinstance(domain, Domain), "domain is no Domain: what does this channel fail together with?")
    require(probe_class.watched_every_s >= 0, "watched_every_s must not be negative")
    probe = rig.make_probe()
    try:
        told = await opened(probe)
    finally:
        await closed(probe)
    require(isinstance(told, str) and bool(told.strip()) and "\n" not in told, "open must say one line")


async def has_strict_settings(rig: ProbeRig) -> None:
    """The settings are a ProbeConfig of the declared model, refuse unknown keys and hide secrets."""
    model, settings = rig.probe_class.config_model, rig.make_probe().config
    require(issubclass(model, ProbeConfig), "config_model is no ProbeConfig")
    require(isinstance(settings, model), "the channel's settings are not of its config_model")
    complaints: list[str] = []
    try:
        model.model_validate({**settings.model_dump(by_alias=True), "no_such_key": 1})
    except ValidationError as error:
        complaints = [each["type"] for each in error.errors(include_input=False) if each["loc"] == ("no_such_key",)]
    require(complaints == ["extra_forbidden"], "the settings take unknown keys")
    _require_no_secret(rig, "the settings show a secret, use SecretStr", repr(settings), settings.model_dump_json())


async def tells_the_dead_from_the_living(rig: ProbeRig) -> None:
    """A living host shows life; one that dies does not any more, from then on, and the others still do."""
    first, victim, *_ = targets = rig.targets()
    async with asking(rig) as channel:
        alive = await channel.until_shown(first, rig.shows_life, among=targets)
        alive += await channel.until_shown(victim, rig.shows_life, among=targets)
        await rig.kill(victim.host)
        died_at = clock()
        said = await channel.until_shown(victim, rig.shows_death, among=targets)
        risen = [reading for reading in said if reading.signal in OF_THE_LIVING and reading.sent_at > died_at]
        require(not risen, f"the channel saw life of a dead host: {risen and risen[0].detail}")
        alive += await channel.until_shown(first, rig.shows_life, among=targets)
    wrong = [reading for reading in alive if reading.signal in OF_THE_DEAD]
    require(not wrong, f"the channel calls a living host {wrong and wrong[0].signal}")


async def speaks_only_of_those_that_were_asked_about(rig: ProbeRig) -> None:
    """Answers of one host are never taken for another's, and nobody else is spoken of."""
    asked, victim, *_ = rig.targets()
    await rig.kill(victim.host)
    async with asking(rig) as channel:
        said = await channel.until_shown(asked, rig.shows_life)
        said += await channel.collect_for(WATCH_S, lambda heard: False)
    others = sorted({reading.host for reading in said} - {asked.host})
    require(not others, f"asked about host {asked.host} only, the channel spoke of {others}")


async def answers_every_question_once(rig: ProbeRig) -> None:
    """Each question comes back exactly once, within the time-out, whatever became of the host."""
    targets = rig.targets()
    await rig.kill(targets[0].host)
    async with asking(rig) as channel:
        said = await channel.ask(targets)
        missing = {target.host for target in targets} - {reading.host for reading in said}
        require(
            not missing, f"no word about host {sorted(missing)} {channel.timeout_s + LATE_S:g} s after the question"
        )
        said += await channel.collect_for(WATCH_S, lambda heard: False)
        twice = sorted(host for host, count in Counter(reading.host for reading in said).items() if count > 1)
        require(not twice, f"one question about host {twice} was answered more than once")
        again = await channel.ask(targets)
        require({each.host for each in again} == {each.host for each in targets}, "a second question was not answered")


async def returns_at_once(rig: ProbeRig) -> None:
    """Neither launch nor collect waits for anybody; the best of three tries counts."""
    targets = rig.targets()
    await rig.kill(targets[0].host)
    async with asking(rig) as channel:
        took_s: list[tuple[float, float]] = []
        for _ in range(3):
            channel.collect_took_s = 0.0
            await channel.ask(targets)
            took_s.append((channel.launch_took_s, channel.collect_took_s))
    launch_s, collect_s = min(each[0] for each in took_s), min(each[1] for each in took_s)
    require(launch_s < RETURNS_WITHIN_S, f"launch took {launch_s:.2f} s: it must only send, or put in line")
    require(collect_s < RETURNS_WITHIN_S, f"collect took {collect_s:.2f} s: it must only take what is there")


async def is_not_delayed_by_a_dead_host(rig: ProbeRig) -> None:
    """The living answer long before a dead host's time-out, also when it was asked first."""
    dead, *living = rig.targets()
    await rig.kill(dead.host)
    async with asking(rig) as channel:
        channel.launch([dead, *living])
        within_s = OTHERS_WITHIN * channel.timeout_s or LATE_S
        wanted = {target.host for target in living}
        said = await channel.collect_for(within_s, lambda heard: wanted <= {each.host for each in heard})
    late = sorted(wanted - {reading.host for reading in said})
    require(not late, f"beside a dead host there was no word about host {late} within {within_s:.1f} s")


async def calls_its_own_faults_unknown(rig: ProbeRig) -> None:
    """When the trouble is on our side nothing is said of any host but UNKNOWN, with the reason."""
    await rig.break_ourselves()
    said: list[Reading] = []
    try:
        async with asking(rig) as channel:
            for _ in range(3):
                said += await channel.ask(rig.targets())
    except ProbeUnavailable as error:
        require(bool(str(error).strip()), "ProbeUnavailable must say why, and what helps")
    wrong = [reading for reading in said if reading.signal is not Signal.UNKNOWN]
    require(not wrong, f"with a fault of our own the channel says {wrong and wrong[0].signal} of a host")
    mute = [reading for reading in said if not reading.detail.strip() or "\n" in reading.detail]
    require(not mute, "an UNKNOWN must say why, in one line")


async def survives_nonsense(rig: ProbeRig) -> None:
    """A host that answers nonsense harms nobody, and is not called dead."""
    babbler, *others = rig.targets()
    await rig.babble(babbler.host)
    async with asking(rig) as channel:
        for _ in range(3):
            said = await channel.ask([babbler, *others])
            heard = {reading.host for reading in said}
            require(heard >= {target.host for target in others}, "a host that answers nonsense silences others")
            require(babbler.host in heard, "there is no word about a host that answers nonsense")
            of_it = [reading for reading in said if reading.host == babbler.host and reading.signal in OF_THE_DEAD]
            require(not of_it, f"a host that answers nonsense is called {of_it and of_it[0].signal}")


async def stamps_the_moment_of_sending(rig: ProbeRig) -> None:
    """`sent_at` is when the question left, on the caller's clock: never when the answer came or was collected.

    Life may be dated earlier, where the channel cannot tell better; silence may not.
    """
    first, victim, *_ = targets = rig.targets()
    async with asking(rig) as channel:
        await channel.until_shown(victim, rig.shows_life, among=targets)
        await rig.kill(victim.host)
        await channel.until_shown(victim, rig.shows_death, among=targets)
        for target in (first, victim):
            asked_at = channel.launch([target])
            await anyio.sleep(HOLD_S)
            said = await channel.collect_for(channel.timeout_s + LATE_S, bool)
            for reading in said:
                late_s = reading.sent_at - asked_at
                require(late_s < STAMP_WITHIN_S, f"a question is dated {late_s:.1f} s after it was asked")
                exact = reading.signal is not Signal.SILENT or late_s > -STAMP_WITHIN_S
                require(exact, f"a silence is dated {-late_s:.1f} s before it was asked for")


async def keeps_its_secrets(rig: ProbeRig) -> None:
    """No secret in the channel's repr, in a detail, or in a log record, whatever goes wrong."""
    first, second, third, *_ = rig.targets()
    with captured_log() as log:
        _require_no_secret(rig, "the channel's repr shows a secret", repr(rig.make_probe()))
        await rig.kill(first.host)
        await rig.babble(second.host)
        said = await _said_by_a_new_channel(rig, [first, second, third])
        await rig.break_ourselves()
        said += await _said_by_a_new_channel(rig, [first, second, third])
    _require_no_secret(rig, "a detail shows a secret", *said)
    _require_no_secret(rig, "a log record shows a secret", *map(log.format, log.buffer))


async def leaves_nothing_behind(rig: ProbeRig) -> None:
    """Closed with questions under way it leaves no task, file, socket or process, takes no time, and opens again."""
    targets = rig.targets()
    await _said_by_a_new_channel(rig, targets)  # caches are filled now
    await rig.kill(targets[0].host)
    processes, probe = children(), rig.make_probe()
    for _ in range(2):
        async with nothing_left_behind("the channel"), asking(rig, probe) as channel:
            await channel.ask(targets[1:])
            channel.launch(targets)
            await anyio.sleep(TICK_S)
            ended_at = anyio.current_time()
        took_s = anyio.current_time() - ended_at
        require(took_s < CLOSE_WITHIN_S + CANCEL_WITHIN_S, f"the end of the channel took {took_s:.1f} s")
        require(children() <= processes, "the channel left a process running")
    async with asking(rig, probe) as channel:
        await channel.until_shown(targets[1], rig.shows_life)


async def does_not_block_the_event_loop(rig: ProbeRig) -> None:
    """Asking keeps the event loop busy for no long time; the best of three tries counts."""
    targets = rig.targets()
    await rig.kill(targets[0].host)

    async def ask() -> None:
        async with asking(rig) as channel:
            await channel.ask(targets)

    await ask()
    pauses_s = [await longest_pause_of(ask) for _ in range(3)]
    require(min(pauses_s) < LOOP_PAUSE_MAX_S, f"the event loop stood still for {min(pauses_s):.2f} s")


async def _said_by_a_new_channel(rig: ProbeRig, targets: Sequence[Target]) -> list[str]:
    """What a channel says of hosts, or why it cannot work."""
    try:
        async with asking(rig) as channel:
            return [repr(reading) for reading in await channel.ask(targets)]
    except ProbeUnavailable as error:
        return ["".join(traceback.format_exception(error))]


def _require_no_secret(rig: ProbeRig, complaint: str, *texts: str) -> None:
    require(not any(secret in text for secret in rig.secrets for text in texts), complaint)


PROBE_CHECKS: Final[tuple[ProbeCheck, ...]] = (
    describes_itself, has_strict_settings, tells_the_dead_from_the_living, speaks_only_of_those_that_were_asked_about,
    answers_every_question_once, returns_at_once, is_not_delayed_by_a_dead_host, calls_its_own_faults_unknown,
    survives_nonsense, stamps_the_moment_of_sending, keeps_its_secrets, leaves_nothing_behind,
    does_not_block_the_event_loop,
)  # fmt: skip
