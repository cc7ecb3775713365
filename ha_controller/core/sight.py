"""What other controllers see of the hosts. Their word "alive" stops a power-off, voids a proof of OFF, and no more.

It is kept apart from what our own channels show, so that nothing can count it that judges silence, tells when a trouble
began, trusts a device, or readmits a host. Whoever asks here asks whether something speaks against a power-off, a proof
of OFF, or a move. That another controller does not see a host, or says nothing, counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ha_controller.core.model import SeenAlive
from ha_controller.core.settings import Settings

COUNTS_MIN_S = 5.0  #: it is asked for once a second, and may be two seconds old when it comes

#: the newest word of each controller (its name), and apart from that the newest of channels that only kernels answer
SeenBy = dict[tuple[str, bool], SeenAlive]


def kernel_channels(settings: Settings) -> frozenset[str]:
    """Channels whose ALIVE says only that the kernel answers. One that we do not know is none of them."""
    return frozenset(channel.name for channel in settings.channels if not channel.proves_userland)


def note(seen_by: SeenBy, controller: str, seen: SeenAlive, kernel: Collection[str], now: float) -> None:
    """Take in a word. An older one than is known changes nothing; none is from the future."""
    key = (controller, seen.channel in kernel)
    known = seen_by.get(key)
    if known is None or seen.at > known.at:
        seen_by[key] = seen if seen.at <= now else replace(seen, at=now)


def counts_s(settings: Settings) -> float:
    """How long such a word stops a power-off."""
    return max(settings.evidence_ttl_s, COUNTS_MIN_S)


def against(
    seen_by: SeenBy, settings: Settings, now: float, *, is_hung: bool = False, after: float = 0.0
) -> tuple[str, ...]:
    """Who has seen life lately, and after a moment, that speaks against a power-off now.

    `is_hung`: the verdict is that the kernel answers, and nothing else; that another one hears the kernel, too, is no
    news then.
    """
    return tuple(
        dict.fromkeys(
            name
            for (name, of_kernel), seen in _by_name(seen_by)
            if seen.at > after and now - seen.at <= counts_s(settings) and not (is_hung and of_kernel)
        )
    )


def since(seen_by: SeenBy, moment: float) -> str:
    """Who saw life in a question that left after `moment`, in words; empty if nobody did."""
    return next((f"{seen.channel} from {name}" for (name, _), seen in _by_name(seen_by) if seen.at > moment), "")


def describe(seen_by: SeenBy, settings: Settings, now: float) -> tuple[str, ...]:
    """One line for each word that counts."""
    return tuple(
        f"{seen.channel} from {name}: alive {now - seen.at:.1f} s ago"
        for (name, _), seen in _by_name(seen_by)
        if now - seen.at <= counts_s(settings)
    )


def _by_name(seen_by: SeenBy) -> list[tuple[tuple[str, bool], SeenAlive]]:
    return sorted(seen_by.items(), key=lambda each: each[0])
