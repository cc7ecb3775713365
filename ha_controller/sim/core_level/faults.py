"""The table of faults: what may go wrong in the pretended world, and how often.

Some come by themselves, at a rate by the hour of one host. The others are aimed: they strike with a probability at the
very moment that a rule protects, such as between an order and its answer.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path


class Per(Enum):
    """What a number in the table counts."""

    HOST_HOUR = auto()  #: so often in an hour of one host
    MOMENT = auto()  #: probability at each such moment


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault."""

    name: str
    usual: float
    per: Per
    text: str


def _by_hour(name: str, usual: float, text: str) -> Fault:
    return Fault(name=name, usual=usual, per=Per.HOST_HOUR, text=text)


def _aimed(name: str, usual: float, text: str) -> Fault:
    return Fault(name=name, usual=usual, per=Per.MOMENT, text=text)


FAULTS: tuple[Fault, ...] = (
    _by_hour("power-loss", 0.012, "a host loses its power, its BMC lives on"),
    _by_hour("cord-pulled", 0.002, "host and BMC lose their power"),
    _by_hour("hang", 0.012, "a kernel stands still, the power is on"),
    _by_hour("userland-hang", 0.003, "a kernel answers pings, and nothing else of its host does"),
    _by_hour("freeze", 0.008, "a host stands still for 5 to 120 s and goes on as if nothing had been"),
    _by_hour("self-reboot", 0.012, "a host reboots by itself, often faster than anybody sees it silent"),
    _by_hour("partition", 0.004, "nobody reaches a host over the network, its VMs write on"),
    _by_hour("half-partition", 0.008, "the controller does not reach a host, its neighbours do"),
    _by_hour("one-way", 0.004, "what is sent to a host is lost; what it sends by itself arrives"),
    _by_hour("packet-loss", 0.008, "between 5 and 40 % of a host's packets are lost for some minutes"),
    _by_hour("rack-switch", 0.002, "the switch of a rack is out; its hosts come back one after the other"),
    _by_hour("site-power", 0.0001, "the site loses its power, with BMCs, OpenNebula and controllers, and it returns"),
    _by_hour("storage-lost", 0.003, "a host that lives does not reach its storage, for some minutes"),
    _by_hour("storage-out", 0.0005, "nobody reaches the storage, for some minutes"),
    _by_hour("bmc-dead", 0.004, "a BMC answers nothing until it is repaired"),
    _by_hour("bmc-slow", 0.004, "a BMC acknowledges at once and acts up to 12 s later"),
    _by_hour("bmc-ignores", 0.003, "a BMC acknowledges, and does nothing"),
    _by_hour("bmc-lies", 0.003, "a BMC reads OFF after an order that it did not carry out"),
    _by_hour("bmc-busy", 0.003, "a BMC refuses sessions for some minutes"),
    _by_hour("wrong-machine", 0.002, "a BMC's address leads to another machine"),
    _by_hour("fabric-blind", 0.003, "a device whose OFF may mean \"not there\" reads OFF, whatever is true"),
    _by_hour("pdu-stuck", 0.002, "one of two outlets does not switch"),
    _by_hour("oned-down", 0.003, "oned answers nothing for up to five minutes"),
    _by_hour("oned-slow", 0.003, "oned answers after 1 to 6 s, for some minutes"),
    _by_hour("oned-restart", 0.002, "oned forgets what its drivers were doing"),
    _by_hour("journal-slow", 0.002, "the disk of the journal needs seconds for each record, for some minutes"),
    _by_hour("journal-fails", 0.001, "the journal takes nothing, for up to two minutes"),
    _by_hour("crash", 0.004, "the controller is killed"),
    _by_hour("pause", 0.004, "the controller's process stands still for 3 to 60 s"),
    _by_hour("clock-back", 0.002, "the controller is killed, and the clock is set back or ahead meanwhile"),
    _by_hour("lead-lost", 0.002, "the lead is taken away; who may have it next leads then"),
    _by_hour("quorum-cut", 0.002, "a controller does not reach its quorum, for up to two minutes"),
    _by_hour("vm-moved", 0.02, "a person migrates a VM between healthy hosts"),
    _by_hour("vm-taken-back", 0.004, "a live migration is taken back, done or not; its source dies or reboots"),
    _by_hour("pause-pressed", 0.002, "a person pauses the controller for some minutes"),
    _by_hour("hold-pressed", 0.004, "a person holds an open incident for some minutes"),
    _by_hour("maintenance", 0.003, "a person takes a host into maintenance for some minutes, and may reboot it"),
    _by_hour("reload", 0.003, "a person changes limits in the configuration and has it read again"),
    _aimed("crash-before-record", 0.002, "killed when a decision is made and not yet on disk"),
    _aimed("crash-after-record", 0.002, "killed when a decision is on disk and no order has left"),
    _aimed("crash-after-order", 0.002, "killed when an order has just left"),
    _aimed("crash-after-effect", 0.004, "killed when a device or oned has just been ordered, and has not answered"),
    _aimed("pause-after-effect", 0.004, "the process stands still when a device or oned has just been ordered"),
    _aimed("pause-before-order", 0.002, "the process stands still between record and order"),
    _aimed("answer-lost", 0.02, "what a device or oned was ordered is done, and the answer is lost"),
    _aimed("oned-forgets", 0.01, "oned says done, and a change of its leader undoes that"),
    _aimed("order-late", 0.01, "oned carries an order out up to 15 s later"),
    _aimed("thaw-at-the-shot", 0.05, "a frozen host goes on just before or after its power-off"),
    _aimed("button", 0.004, "a person powers a host on again after it was read off"),
    _aimed("fence-ordered", 0.05, "a host falls ill, and a person orders it off without waiting for the verdict"),
    _aimed("leftover", 0.03, "a host that is powered on again still has a domain of a VM that runs elsewhere"),
    _aimed("mover-dies", 0.05, "a host from or to which a person migrates a VM loses its power meanwhile"),
    _aimed("destination-dies", 0.01, "the host that a VM was just ordered to loses its power"),
)  # fmt: skip
#: those of the second level come on top
ENGINE_FAULTS: tuple[Fault, ...] = (
    _by_hour("arbiter-down", 0.002, "the engine that says who leads gives no answer for up to two minutes"),
    _by_hour("clock-step", 0.002, "the wall clock is set ahead or back while the controller runs"),
    _by_hour("vantage-cut", 0.004, "one of several controllers does not reach a host, the others do"),
    _by_hour("witness-cut", 0.002, "a controller does not reach another one, for some minutes"),
    _aimed("share-answer-lost", 0.01, "the engine of the lead takes a write in, and its answer is lost"),
    _aimed("share-late", 0.004, "the engine takes a leader's write in up to 12 s later, when its sender has given up"),
    _by_hour("front-end-stops", 0.004, "a front-end of OpenNebula, often the leader, stands still for some time"),
    _by_hour("front-end-cut", 0.004, "one does not hear the others: a leader goes on to say that it leads"),
    _by_hour("followers-stop", 0.002, "all but one stand still for some seconds, and block the leader's writes"),
    _aimed("elected-meanwhile", 0.1, "a controller stands still, and another front-end than its own is elected"),
    _aimed("deposed-at-the-packet", 0.01, "it does as an order leaves for OpenNebula, for less than its lead lasts"),
    _aimed("flicker", 0.004, "a host that was read off is powered on by a person, boots, and loses its power again"),
    _aimed("crash-in-an-order", 0.002, "killed while an order or its answer is on the way"),
    _aimed("pause-in-an-order", 0.002, "the process stands still then, as after the proof of its lead"),
    _aimed("pause-at-the-packet", 0.002, "the process stands still in the very moment in which an order leaves"),
    _aimed("journal-hangs", 0.0005, "the disk of the journal never answers"),
    _aimed("plugin-raises", 0.003, "a fence agent raises what it may not"),
    _aimed("plugin-nonsense", 0.003, "a fence agent answers what is none"),
    _aimed("plugin-hangs", 0.003, "a fence agent never answers"),
    _aimed("plugin-blocks", 0.0005, "a fence agent blocks the event loop for up to 20 s"),
    _aimed("channel-raises", 0.00002, "a channel raises something"),
    _aimed("channel-nonsense", 0.00002, "a channel returns what is no reading"),
)  # fmt: skip
_KNOWN = {fault.name: fault for fault in FAULTS + ENGINE_FAULTS}


class BadFaults(Exception):
    """A file of faults is not understood; in words for the person who wrote it."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How often what happens."""

    rates: Mapping[str, float] = field(default_factory=lambda: {name: fault.usual for name, fault in _KNOWN.items()})

    def of(self, name: str) -> float:
        """By host-hour, or as a probability."""
        return self.rates[name]

    def times(self, by_hour: float, aimed: float = 1.0) -> Rates:
        """The same, more or less often."""
        factors = {Per.HOST_HOUR: by_hour, Per.MOMENT: aimed}
        changed = {name: rate * factors[_KNOWN[name].per] for name, rate in self.rates.items()}
        return Rates(rates={name: _within(name, rate) for name, rate in changed.items()})

    def only(self, *names: str) -> Rates:
        """Nothing but these."""
        return Rates(rates={name: rate if name in names else 0.0 for name, rate in self.rates.items()})

    def with_rates(self, changed: Mapping[str, float]) -> Rates:
        """The same with some rates changed."""
        return Rates(rates={**self.rates, **changed})


def _within(name: str, rate: float) -> float:
    return min(rate, 1.0) if _KNOWN[name].per is Per.MOMENT else rate


def load(path: Path) -> Rates:
    """A file of faults: TOML, `name = rate`. What is not named stays as it is; `others = 0` switches that off.

    Raises:
        BadFaults: it cannot be read, or names what is not known; all at once.
    """
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFaults(f"{path}: {error}") from None
    others = written.pop("others", None)
    wrong = [f"{name} is no fault" for name in written if name not in _KNOWN]
    wrong += [f"{name} = {rate!r}: {why}" for name, rate in written.items() if (why := _why_wrong(name, rate))]
    wrong += ["others may only be 0"] if others not in (None, 0) else []
    if wrong:
        raise BadFaults(f"{path}: {'; '.join(wrong)}. Known: {', '.join(_KNOWN)}")
    begin = Rates() if others is None else Rates(rates=dict.fromkeys(_KNOWN, 0.0))
    return begin.with_rates({name: float(rate) for name, rate in written.items()})


def _why_wrong(name: str, rate: object) -> str:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate >= 0:
        return "a number from 0 on is needed"
    is_probability = name in _KNOWN and _KNOWN[name].per is Per.MOMENT
    return "a probability is at most 1" if is_probability and rate > 1 else ""
