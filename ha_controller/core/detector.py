"""From evidence of several channels to a verdict with reasons.

Silence of several channels of one failure domain is one proof. ALIVE anywhere vetoes. UNKNOWN counts for nothing.
Evidence expires: what was not looked at for `evidence_ttl_s` is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ha_controller.core.model import Domain, Reading, Signal
from ha_controller.core.settings import Channel, Settings

LIFE_REMEMBERED_S = 30.0  #: so long a channel that showed life must show silence before an OFF is believed
DUMP_GAP_MAX_S = 30.0  #: fence_kdump_send says every 10 s that the dump is under way
#: A host's own word goes the way of our own probes, and a power device that is silent says nothing of the host.
_MAY_BE_SILENT = (Domain.MANAGEMENT, Domain.ONED, Domain.STORAGE, Domain.VANTAGE)
_ELSEWHERE = (Domain.VANTAGE, Domain.STORAGE)  #: what may see a host that cannot be seen from here
_ALIVE, _SILENT, _OFF = Signal.ALIVE, Signal.SILENT, Signal.OFF  #: each reading is compared with them: looked up once


@dataclass(slots=True)
class ChannelView:
    """What one channel has shown of one host so far."""

    signal: Signal = Signal.UNKNOWN  #: of the last reading that was ALIVE, SILENT or OFF
    sent_at: float = 0.0
    detail: str = ""
    silent_since: float | None = None  #: when the first unanswered question of this silence left
    misses: int = 0
    alive_at: float | None = None
    unknown: bool = False  #: the last reading told neither life nor silence nor off
    powered: bool = False  #: the last reading was ON
    unknown_at: float = 0.0
    unknown_detail: str = ""
    dump_began_at: float = 0.0
    dumping_at: float = 0.0  #: when it last said that it writes a crash dump
    leaving_since: float | None = None  #: when it was first seen to have said so; life ends it

    def note(self, reading: Reading, gap_max_s: float) -> None:
        """Take in a reading. One that was sent before the newest known is late and says nothing new.

        Silence is what was looked at: after more than `gap_max_s` in which nothing was known it begins anew.
        """
        if reading.sent_at < self.sent_at:
            return
        signal = reading.signal
        if signal is not _ALIVE and signal is not _SILENT and signal is not _OFF:
            self._note_unknown(reading)
            return
        self.powered, self.unknown, self.unknown_detail = False, False, ""
        if reading.sent_at - self.sent_at > gap_max_s:
            self.silent_since, self.misses = None, 0
        self.signal, self.sent_at, self.detail = signal, reading.sent_at, reading.detail
        if signal is _ALIVE:
            self.alive_at, self.silent_since, self.misses, self.leaving_since = reading.sent_at, None, 0, None
        elif signal is _SILENT:
            self.misses += 1
            if self.silent_since is None:
                self.silent_since = reading.sent_at

    def _note_unknown(self, reading: Reading) -> None:
        self.powered = reading.signal is Signal.ON
        self.unknown, self.unknown_at, self.unknown_detail = True, reading.sent_at, reading.detail
        if reading.signal is Signal.DUMPING:
            if reading.sent_at - self.dumping_at > DUMP_GAP_MAX_S:
                self.dump_began_at = reading.sent_at
            self.dumping_at = reading.sent_at
        if reading.signal is Signal.LEAVING and self.leaving_since is None:
            self.leaving_since = reading.sent_at

    def doubt_silence(self) -> None:
        """What was silent until now was perhaps not asked: it counts from the next reading on."""
        self.silent_since, self.misses = None, 0

    @property
    def last_word_at(self) -> float:
        """When the newest question left that was answered in any way, also with "cannot tell"."""
        return max(self.sent_at, self.unknown_at)

    def fresh(self, now: float, ttl_s: float) -> bool:
        """Whether the last word of this channel still counts."""
        return now - self.sent_at <= ttl_s


Views = dict[str, ChannelView]


class VerdictKind(StrEnum):
    """What the evidence says about a host."""

    ALIVE = "alive"
    UNCLEAR = "unclear"  #: silent, but not for long enough, or nothing is known
    POWERED_OFF = "powered off"
    DEAD = "dead"
    HUNG = "hung"  #: its kernel answers, and nothing else of it
    ISOLATED = "isolated"  #: alive, but not reachable from here


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A verdict and why."""

    kind: VerdictKind
    reason: str


def alive_channels(views: Mapping[str, ChannelView], settings: Settings, now: float) -> list[str]:
    """Channels whose last word is a fresh ALIVE, sorted.

    What a host told of itself went the way of our own probes: older than their silence, it says nothing more.
    """
    told_by_itself = {channel.name for channel in settings.by_domain[Domain.SELF]}
    return [
        name
        for name, view in sorted(views.items())
        if view.signal is Signal.ALIVE
        and view.fresh(now, settings.life_counts_s(name))
        and (name not in told_by_itself or view.sent_at > fell_silent_at(views, settings))
    ]


def fell_silent_at(views: Mapping[str, ChannelView], settings: Settings) -> float:
    """When the host last fell silent here, on any channel that is still silent; 0: it did not."""
    asked = [view for _, view in _of_domain(views, settings, Domain.MANAGEMENT)]
    return max((view.silent_since or 0.0 for view in asked), default=0.0)


def last_life(views: Mapping[str, ChannelView]) -> float:
    """When the newest sign of life was asked for, in any channel; 0 if there never was one."""
    return max((view.alive_at or 0.0 for view in views.values()), default=0.0)


def life_since(views: Mapping[str, ChannelView], moment: float) -> str:
    """The channel that saw life in a question sent after `moment`; empty if none did."""
    return next((name for name, view in sorted(views.items()) if (view.alive_at or 0.0) > moment), "")


def silence_confirmed(views: Mapping[str, ChannelView], settings: Settings, moment: float) -> bool:
    """Whether every management channel that has an opinion was asked after `moment` and got no answer."""
    asked = [view for channel, view in _of_domain(views, settings, Domain.MANAGEMENT) if view.sent_at > 0.0]
    return bool(asked) and all(view.signal is Signal.SILENT and view.sent_at > moment for view in asked)


def silence_awaited(views: Mapping[str, ChannelView], settings: Settings, moment: float) -> list[str]:
    """What is still missing, in words, before nothing at all was heard of the host since `moment`; empty: that is so.

    Also every other vantage point, and the storage, must have spoken since; and one of them that showed life shortly
    before, and not clearly earlier than we did, must itself have turned silent: "cannot tell" is not enough then.
    """
    heard_here = max((view.alive_at or 0.0 for _, view in _of_domain(views, settings, Domain.MANAGEMENT)), default=0.0)
    missing = [] if silence_confirmed(views, settings, moment) else ["not all of our own probes have looked since"]
    for domain in _ELSEWHERE:
        for channel, view in _of_domain(views, settings, domain):
            if view.leaving_since is not None:
                continue  # it said that its heart would stop
            if view.last_word_at and view.last_word_at <= moment:
                missing.append(f"{channel.name} has not looked since")
            elif (
                view.signal is Signal.ALIVE
                and moment - view.sent_at <= LIFE_REMEMBERED_S
                and view.sent_at >= heard_here - settings.life_counts_s(channel.name)
            ):
                missing.append(
                    f"{channel.name} saw it alive {moment - view.sent_at:.0f} s before, and cannot tell since"
                )
    return missing


def suspicious(views: Mapping[str, ChannelView], settings: Settings) -> bool:
    """Whether a management channel missed often enough and none of them has a newer sign of life."""
    most_misses = -1
    for name in settings.here:
        view = views.get(name)
        if view is None or view.sent_at <= 0.0:
            continue
        if view.signal is _ALIVE:
            return False
        most_misses = max(most_misses, view.misses)
    return most_misses >= settings.misses


def hung(views: Mapping[str, ChannelView], settings: Settings, now: float) -> str:
    """The reason to call a host hung: its kernel answers, nothing else has for `hung_after_s`; empty if it is not.

    Asked of every host all the time, so what is false of a healthy one comes first.
    """
    if not _silent_for(_of_domain(views, settings, Domain.ONED), settings, now, settings.hung_after_s):
        return ""
    userland = [each for each in _of_domain(views, settings, Domain.MANAGEMENT) if each[0].proves_userland]
    if not _silent_for(userland, settings, now, settings.hung_after_s):
        return ""
    kernel = {channel.name for channel in settings.channels if not channel.proves_userland}
    alive = alive_channels(views, settings, now)
    if not alive or not kernel.issuperset(alive):
        return ""
    return f"its kernel answers ({', '.join(alive)}), but nothing else has for {settings.hung_after_s:g} s"


def power_is_blind(views: Mapping[str, ChannelView], settings: Settings, now: float) -> bool:
    """Whether the host's power device was just asked, and could not be read."""
    return any(
        view.unknown and not view.powered and now - view.unknown_at <= settings.evidence_ttl_s
        for _, view in _of_domain(views, settings, Domain.POWER)
    )


def judge(
    views: Mapping[str, ChannelView], settings: Settings, now: float, *, off_counts: bool, vms: int = 0
) -> Verdict:
    """Judge one host, with so many VMs.

    `off_counts`: the power domain's OFF comes from a device that is known to belong to this host, was seen ON since
    enrolment and is not weak; and the self-check passes.
    """
    alive = alive_channels(views, settings, now)
    silent = {domain: since for domain in _MAY_BE_SILENT if (since := _silent_since(views, settings, domain, now))}
    management = silent.get(Domain.MANAGEMENT)
    lived_on = [domain for domain in silent if _lived_on(views, settings, domain)]
    if why := hung(views, settings, now):
        return Verdict(kind=VerdictKind.HUNG, reason=why)
    if alive and suspicious(views, settings):
        if later := [name for name in alive if views[name].sent_at > fell_silent_at(views, settings)]:
            reason = f"no answer here, but {', '.join(later)} shows life"
            return Verdict(kind=VerdictKind.ISOLATED, reason=reason)
        reason = f"no answer here; {', '.join(alive)} showed life just before"
        return Verdict(kind=VerdictKind.UNCLEAR, reason=reason)
    if alive:
        return Verdict(kind=VerdictKind.ALIVE, reason=f"{', '.join(alive)} answers")
    if off_counts and management and _all_life_is_older(views, settings) and _reads_off(views, settings, now):
        reason = f"its power device says off, and {settings.misses} or more probes in a row were not answered"
        return Verdict(kind=VerdictKind.POWERED_OFF, reason=reason)
    if management and (unheard := _unheard(views, settings, management)):
        reason = f"{', '.join(unheard)} has not said yet what it sees"
        return Verdict(kind=VerdictKind.UNCLEAR, reason=reason)
    for domain in lived_on:
        del silent[domain]
    return _judge_silence(silent, settings, now, settings.patience_s(vms))


def _unheard(views: Mapping[str, ChannelView], settings: Settings, since: float) -> list[str]:
    """Channels elsewhere that have given no word, not even "cannot tell", since the host fell silent here."""
    channels = [channel for domain in _ELSEWHERE for channel in settings.by_domain[domain]]
    return [each.name for each in channels if each.name not in views or views[each.name].last_word_at <= since]


def _lived_on(views: Mapping[str, ChannelView], settings: Settings, domain: Domain) -> bool:
    """Whether the host went on answering here while this domain was silent already: its silence tells nothing then."""
    if domain is Domain.MANAGEMENT:
        return False
    began = [view.silent_since for _, view in _of_domain(views, settings, domain) if view.silent_since is not None]
    lived_at = max((view.alive_at or 0.0 for _, view in _of_domain(views, settings, Domain.MANAGEMENT)), default=0.0)
    return bool(began) and lived_at > max(began) + settings.fail_after_s


def _judge_silence(silent: Mapping[Domain, float], settings: Settings, now: float, patience_s: float) -> Verdict:
    fail_after_s = settings.fail_after_s + patience_s
    long_enough = [domain for domain, since in silent.items() if now - since >= fail_after_s]
    if settings.weight(long_enough) >= settings.need:
        reason = f"{' and '.join(long_enough)} silent for over {fail_after_s:.0f} s"
        return Verdict(kind=VerdictKind.DEAD, reason=reason)
    deciding = [domain for domain in silent if domain in settings.deciding_domains]
    if len(settings.deciding_domains) == 1 and deciding:
        alone_after_s = settings.single_domain_after_s + patience_s
        lasted_s = now - silent[deciding[0]]
        if lasted_s >= alone_after_s:
            reason = f"{deciding[0]}, the only deciding domain, silent for {lasted_s:.0f} s"
            return Verdict(kind=VerdictKind.DEAD, reason=reason)
        reason = f"silent for {lasted_s:.0f} of {alone_after_s:.0f} s"
        return Verdict(kind=VerdictKind.UNCLEAR, reason=reason)
    needed = "two domains" if settings.need == 2 and not settings.weights else f"domains that weigh {settings.need}"
    reason = f"{', '.join(silent) or 'nothing'} silent; {needed} must be for {fail_after_s:.0f} s"
    return Verdict(kind=VerdictKind.UNCLEAR, reason=reason)


def dump_under_way(views: Mapping[str, ChannelView], now: float) -> float | None:
    """Since when the host says that it writes a crash dump; None if it does not say so, or not any more."""
    began = [view.dump_began_at for view in views.values() if now - view.dumping_at <= DUMP_GAP_MAX_S]
    return min(began, default=None)


def leaving_since(views: Mapping[str, ChannelView]) -> float | None:
    """Since when the host is known to be shut down or rebooted on purpose; None if it did not say so."""
    return min((view.leaving_since for view in views.values() if view.leaving_since is not None), default=None)


def dump_announced(views: Mapping[str, ChannelView], since: float) -> bool:
    """Whether the host has said after `since` that it writes a crash dump."""
    return any(view.dumping_at >= since for view in views.values())


class TroubleKind(StrEnum):
    """What can be wrong with a host that answers. Nothing of it is a reason to power it off."""

    STORAGE_LOST = "storage lost"
    AGENT_TROUBLE = "agent trouble"  #: OpenNebula does not hear of it
    SELF_TROUBLE = "own trouble"  #: it says itself that something on it does not work, such as libvirt


_TROUBLES = (
    (Domain.STORAGE, TroubleKind.STORAGE_LOST),
    (Domain.ONED, TroubleKind.AGENT_TROUBLE),
    (Domain.SELF, TroubleKind.SELF_TROUBLE),
)


def troubles(views: Mapping[str, ChannelView], settings: Settings, now: float) -> dict[TroubleKind, str]:
    """What is wrong with a host that answers here, each with the reason."""
    found = {}
    for domain, kind in _TROUBLES:
        for channel in settings.by_domain[domain]:
            view = views.get(channel.name)
            if view is None or view.silent_since is None or view.unknown:
                continue
            if now - view.silent_since >= settings.fail_after_s and view.fresh(now, settings.gap_max_s(channel)):
                found[kind] = f"{channel.name}: {view.detail or 'silent'}"
    return found


def describe(views: Mapping[str, ChannelView], settings: Settings, now: float) -> tuple[str, ...]:
    """One line for each configured channel: what it shows, for how long, and since when it saw no life."""
    lines = []
    for channel in settings.channels:
        view = views.get(channel.name)
        if view is None or (view.sent_at == 0.0 and not view.unknown):
            lines.append(f"{channel.name}: nothing yet")
            continue
        word = word_of(view, settings, now)
        detail = view.unknown_detail or view.detail
        since = f" for {now - view.silent_since:.1f} s" if view.silent_since and word == "silent" else ""
        last = f", last good {now - view.alive_at:.1f} s ago" if view.alive_at else ""
        lines.append(f"{channel.name}: {word}{since}{f' ({detail})' if detail else ''}{last}")
    return tuple(lines)


def word_of(view: ChannelView, settings: Settings, now: float) -> str:
    """What one channel shows now, as a signal's word."""
    if view.powered:
        return Signal.ON.value
    if now - view.dumping_at <= DUMP_GAP_MAX_S:
        return Signal.DUMPING.value
    if view.leaving_since is not None:
        return Signal.LEAVING.value
    known = view.fresh(now, settings.evidence_ttl_s) and not view.unknown
    return view.signal.value if known else Signal.UNKNOWN.value


def _of_domain(
    views: Mapping[str, ChannelView], settings: Settings, domain: Domain
) -> list[tuple[Channel, ChannelView]]:
    return [(channel, views[channel.name]) for channel in settings.by_domain[domain] if channel.name in views]


def _silent_since(views: Mapping[str, ChannelView], settings: Settings, domain: Domain, now: float) -> float | None:
    """Since when a whole domain is silent: the latest of its channels' silences; None when one is not silent.

    Life in any other channel begins the count anew, also when it is too old to veto by itself.
    """
    since = None
    for channel, view in _of_domain(views, settings, domain):
        if not view.fresh(now, settings.gap_max_s(channel)):
            continue
        if view.signal is Signal.ALIVE:
            return None
        if view.silent_since is not None:
            since = max(since or 0.0, view.silent_since)
    return None if since is None else max(since, last_life(views))


def _all_life_is_older(views: Mapping[str, ChannelView], settings: Settings) -> bool:
    """Whether some management channel missed often enough, and no channel at all saw life since that silence began."""
    asked = [view for _, view in _of_domain(views, settings, Domain.MANAGEMENT)]
    silences = [view.silent_since for view in asked if view.misses >= settings.misses and view.silent_since]
    return bool(silences) and max(silences) >= last_life(views)


def _reads_off(views: Mapping[str, ChannelView], settings: Settings, now: float) -> bool:
    """Only the newest reading decides: ON and "cannot tell" end an OFF."""
    return any(
        view.signal is Signal.OFF and not view.unknown and view.fresh(now, settings.evidence_ttl_s)
        for _, view in _of_domain(views, settings, Domain.POWER)
    )


def _silent_for(asked: list[tuple[Channel, ChannelView]], settings: Settings, now: float, duration_s: float) -> bool:
    """Whether there are such channels, all were asked lately, and none has had an answer for so long."""
    return bool(asked) and all(
        view.silent_since is not None
        and now - view.silent_since >= duration_s
        and view.fresh(now, settings.gap_max_s(channel))
        for channel, view in asked
    )
