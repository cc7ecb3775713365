"""Whose turn it is to be asked: every host once per interval, spread evenly over it, without a timer per host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ha_controller.plugin import Reading, Signal

SLOT_S = 0.02
SLOTS_MAX = 4096
RETURNED_FOR_ROUNDS = 4  #: so long a host that answers again is asked more often than in peace
RETURNED_EVERY_S = 0.5  #: and at most this often


class Turns:
    """A wheel and the time: which hosts are due. A host keeps its place in the interval for as long as it is there."""

    def __init__(self, interval_s: float) -> None:
        self._wheel = Wheel(min(max(1, round(interval_s / SLOT_S)), SLOTS_MAX))
        self._slot_s = interval_s / self._wheel.slots
        self._slot = 0
        self.due = 0.0  #: when the next slot has its turn
        self.rounds = 0  #: how often the wheel has turned

    def begin(self, now: float) -> None:
        """The next slot has its turn now. After a stall the missed ones follow in order, and not all at once."""
        self.due = now

    def assign(self, hosts: Mapping[int, object]) -> None:
        """Replace the hosts."""
        self._wheel.assign(hosts)

    def take(self, now: float) -> list[int]:
        """The hosts of every slot that is due."""
        hosts: list[int] = []
        while self.due <= now:
            hosts.extend(self._wheel.hosts(self._slot))
            self.due += self._slot_s
            self._slot = (self._slot + 1) % self._wheel.slots
            self.rounds += self._slot == 0
        return hosts


class Pace:
    """How often one channel asks, if it is slower than the others.

    In peace each host has a turn every `every_s` (None: whenever the others have it). Under close watch it is asked at
    most every `watched_every_s`, and so it is when it answers again, until the channel has given a word about it: what
    came back may be another boot, and sshd starts later than the kernel answers.
    """

    def __init__(self, *, every_s: float | None, watched_every_s: float) -> None:
        self._every_s = every_s
        self._watched_every_s = watched_every_s
        self._turns = None if every_s is None else Turns(every_s)
        self._asked_at: dict[int, float] = {}
        self._word_at: dict[int, float] = {}  # when the last question left that was answered with more than UNKNOWN
        self._returned_at: dict[int, float] = {}  # hosts about which a word is awaited

    def assign(self, hosts: Mapping[int, object]) -> None:
        """Replace the hosts. Witnesses, below 0, are no hosts: they only show whether we are cut off."""
        if self._turns is not None:
            self._turns.assign({host: None for host in hosts if host >= 0})
        for known in (self._asked_at, self._word_at, self._returned_at):
            for host in known.keys() - hosts.keys():
                del known[host]

    def begin(self, now: float) -> None:
        """As `Turns.begin`."""
        if self._turns is not None:
            self._turns.begin(now)

    def take(self, others: list[int], now: float) -> list[int]:
        """The hosts whose turn it is; `others` have it in other channels."""
        if self._turns is None:
            return others
        due = self._turns.take(now)
        self._asked_at.update((host, now) for host in due)
        return due

    def take_watched(self, hosts: list[int], now: float) -> list[int]:
        """Those of the hosts under close watch that were not asked just now, and those that have returned."""
        if not self._watched_every_s and self._turns is None:
            return hosts
        due = [host for host in hosts if self._is_due(host, now, self._watched_every_s)]
        self._asked_at.update((host, now) for host in due)
        returned = self._returned_due(now)
        self._asked_at.update((host, now) for host in returned)
        return due + returned

    def note_return(self, host: int, now: float) -> None:
        """A host answers again, and is not watched any more."""
        if self._turns is not None and self._word_at.get(host, 0.0) < now - self._watched_every_s:
            self._returned_at[host] = now

    def hear(self, readings: Iterable[Reading]) -> None:
        """Note which hosts the channel has given a word about."""
        if self._turns is None:
            return
        for reading in readings:
            if reading.signal is not Signal.UNKNOWN:
                self._word_at[reading.host] = reading.sent_at
                if reading.sent_at >= self._returned_at.get(reading.host, 0.0) - self._watched_every_s:
                    self._returned_at.pop(reading.host, None)

    def _returned_due(self, now: float) -> list[int]:
        """Ever less often: a host whose sshd does not let us in must not be pestered."""
        if self._every_s is None or not self._returned_at:
            return []
        longest_s = RETURNED_FOR_ROUNDS * self._every_s
        self._returned_at = {host: at for host, at in self._returned_at.items() if now - at < longest_s}
        spacings = {host: (now - at) / RETURNED_FOR_ROUNDS for host, at in self._returned_at.items()}
        least_s = max(self._watched_every_s, RETURNED_EVERY_S)
        return [host for host, spacing_s in spacings.items() if self._is_due(host, now, max(least_s, spacing_s))]

    def _is_due(self, host: int, now: float, spacing_s: float) -> bool:
        return now - self._asked_at.get(host, float("-inf")) >= spacing_s


class Wheel:
    """Spreads hosts evenly over slots; a host keeps its slot for as long as it is there."""

    def __init__(self, slots: int) -> None:
        self._hosts: list[dict[int, None]] = [{} for _ in range(slots)]
        self._slot_of: dict[int, int] = {}
        # Few hosts must not share neighbouring slots: halves first, then quarters, eighths and so on.
        self._order = sorted(range(slots), key=lambda slot: f"{slot * 65536 // slots:016b}"[::-1])

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self._hosts)

    def hosts(self, slot: int) -> list[int]:
        """The hosts of one slot."""
        return list(self._hosts[slot])

    def assign(self, hosts: Mapping[int, object]) -> None:
        """Take out hosts that are gone and put each new one where there are fewest."""
        for host in [host for host in self._slot_of if host not in hosts]:
            del self._hosts[self._slot_of.pop(host)][host]
        fullness = 0
        new = [host for host in hosts if host not in self._slot_of]
        while new:
            for slot in self._order:
                if new and len(self._hosts[slot]) <= fullness:
                    host = new.pop()
                    self._hosts[slot][host] = None
                    self._slot_of[host] = slot
            fullness += 1
