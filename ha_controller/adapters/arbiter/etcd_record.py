"""What the next leader has to know, in etcd: texts below a prefix, and under `written` how far it goes.

Each write is a transaction: `leader` is the very key that we made, and `written` is what we read or wrote last. So
nobody writes who does not lead, also when he was frozen since he looked, and nobody writes in between. An answer that
was lost is read back: `written` is different after each write.

It must never take a time-out for a write, and never an error or a part of the record for an empty one. Data comes from
the app as texts and goes back to it as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import anyio

from ha_controller.adapters.arbiter.by_host import OF_NONE, by_host, hosts_of
from ha_controller.adapters.arbiter.gateway import Gateway, Refused
from ha_controller.lead import Shared, SharedRecord, incident_of
from ha_controller.plugin import ArbiterUnreachable, NotLeading

VERSION = 1  #: of what the texts mean
OPERATIONS_MAX = 100  #: of one transaction; etcd takes 128
BYTES_MAX = 750_000  #: of one transaction, and a third more as it is sent; etcd takes 1.5 MiB

AGAIN_S = 0.1

Changes = Mapping[str, str | None]
_Values = Mapping[str, tuple[str, int] | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """How far the record goes. Each write makes another one of it."""

    version: int = VERSION
    number: int = 0  #: of writes so far
    term: int = 0  #: the record has all that was ordered up to the end of this one
    cluster: str = ""  #: of etcd, in which that was true: one that was set up from a backup has another number

    @property
    def text(self) -> str:
        """As it stands in etcd; nothing before the first write."""
        return json.dumps(asdict(self)) if self.number else ""


@dataclass(kw_only=True, slots=True)
class _Lead:
    """The term in which we may write."""

    term: int
    value: str  #: of the key `leader`
    written: Written
    whole: bool  #: False until all was written once
    cluster: str
    hosts: dict[int, int] = field(default_factory=dict)  #: of the incidents that are on record, or were in this term


class EtcdRecord(SharedRecord):
    """Kept by a quorum of etcd's members."""

    def __init__(self, gateway: Gateway, prefix: str, leader_key: str) -> None:
        """`prefix` ends with a slash. No I/O."""
        self.written_key = f"{prefix}written"
        self._gateway = gateway
        self._prefix = prefix
        self._leader_key = leader_key
        self._lead: _Lead | None = None
        self._seen = 0  #: the highest number that this process knows to have been written, whatever etcd holds by now
        self._used = 0  #: the highest that it has tried to write

    # --- for the arbiter ---

    async def written(self) -> Written:
        """How far the record goes now.

        Raises:
            ArbiterUnreachable: nothing is known, or a newer version has written it: then it is not ours to lead.
        """
        found = await self._gateway.read(self.written_key)
        if found is None:
            return Written()
        try:
            about = json.loads(found.value)
            version = int(about["version"])
            written = Written(version=version, number=int(about.get("number", 0)), term=int(about.get("term", 0)))
            written = replace(written, cluster=str(about.get("cluster", "")))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ArbiterUnreachable(f"{self.written_key} in etcd is none of ours ({type(error).__name__})") from error
        if version > VERSION:
            raise ArbiterUnreachable(
                f"a newer ha-controller has written the record in etcd (version {version}, this one knows up to "
                f"{VERSION}): this one cannot lead. Install the newer version here, too"
            )
        if written.text != found.value:
            raise ArbiterUnreachable(f"{self.written_key} in etcd is none of ours (it was changed)")
        return written

    def goes_on(self, written: Written, last_term: int, cluster: str) -> bool:
        """Whether the record has all, when `last_term` was the last in which anybody led."""
        is_newest = 0 < written.number >= self._seen
        self._seen = max(self._seen, written.number)
        return is_newest and (written.term, written.cluster) == (last_term, cluster)

    def next(self, written: Written, *, term: int, cluster: str) -> Written:
        """After one more write; no two writes make the same of it, also when etcd's data is put back."""
        self._used = max(self._used, self._seen, written.number) + 1
        return replace(written, number=self._used, term=term, cluster=cluster)

    def expected(self, written: Written) -> dict[str, int | str]:
        """What a transaction asks for, so that nobody has written since."""
        return {self.written_key: written.text or 0}

    def begin(self, term: int, value: str, written: Written, *, whole: bool, cluster: str) -> None:
        """The lead was taken; `value` is that of its key."""
        self._lead = _Lead(term=term, value=value, written=written, whole=whole, cluster=cluster)
        self._seen = max(self._seen, written.number)

    # --- for who leads ---

    async def read(self, term: int) -> Shared:
        """Read all texts. That `written` is ours still shows that they belong together."""
        lead = self._lead_in(term)
        found = {key.removeprefix(self._prefix): kept.value for key, kept in await self._gateway.read_all(self._prefix)}
        if found.pop("written", "") != lead.written.text:
            raise NotLeading(f"somebody else has written into the record in etcd since term {term} began")
        lead.hosts = hosts_of(found)
        return Shared(texts=found, whole=lead.whole, term=lead.written.term)

    async def write(self, term: int, changes: Changes) -> None:
        """Write in as few transactions as etcd's bounds allow. Only the last of the first write makes it whole.

        From then on each of them leaves a record to go on from, as if only what is in it had been decided.
        """
        lead = self._lead_in(term)
        lead.hosts |= hosts_of(changes)
        parts = list(_parts(changes, lead.hosts))
        if not parts and lead.whole:
            return
        for number, part in enumerate(parts or [{}], start=1):
            before = lead.written
            is_whole = lead.whole or number >= len(parts)
            if is_whole:
                after = self.next(before, term=term, cluster=lead.cluster)
            else:
                after = self.next(before, term=before.term, cluster=before.cluster)
            await self._commit(lead, part, after)
            lead.whole = is_whole

    def _lead_in(self, term: int) -> _Lead:
        if self._lead is None or self._lead.term != term:
            raise NotLeading(f"the lead of term {term} is not held")
        return self._lead

    async def _commit(self, lead: _Lead, changes: Changes, after: Written) -> None:
        """One transaction. Without an answer the very same is sent again: of two, only the first can be taken in."""
        expected: dict[str, int | str] = {self._leader_key: lead.value, **self.expected(lead.written)}
        values = {self._prefix + key: None if text is None else (text, 0) for key, text in changes.items()}
        values[self.written_key] = (after.text, 0)
        while True:
            taken = await self._tried(expected, values)
            if taken:
                break
            text = await self._read_back()
            if text == after.text:  # its answer was lost
                break
            if text is not None and (taken is False or text != lead.written.text):
                raise NotLeading(f"the lead of term {lead.term} is over: etcd takes nothing into the record from it")
            await anyio.sleep(AGAIN_S)  # an etcd without a leader has a new one within seconds
        lead.written = after
        self._seen = max(self._seen, after.number)

    async def _read_back(self) -> str | None:
        """What stands under `written` now; None: unknown."""
        try:
            found = await self._gateway.read(self.written_key)
        except Refused:
            raise
        except ArbiterUnreachable:
            return None
        return "" if found is None else found.value

    async def _tried(self, expected: Mapping[str, int | str], values: _Values) -> bool | None:
        """Whether it was taken in; None: unknown.

        Raises:
            ArbiterUnreachable: etcd refused, nothing was written.
        """
        try:
            return await self._gateway.put_if(expected, values)
        except Refused as error:
            if "space exceeded" in error.text:
                raise ArbiterUnreachable(
                    f"{error}. Make room in etcd (etcdctl compact, defrag, alarm disarm), and let it compact by itself"
                ) from error
            raise
        except ArbiterUnreachable:
            return None


def _parts(changes: Changes, hosts: Mapping[int, int]) -> Iterator[dict[str, str | None]]:
    """As many at a time as one transaction may have; after any of them the next leader may have to go on from there.

    What belongs to one host is never torn apart, unless it fits into none: with a boot that is accounted for and no
    incident its VMs would be forgotten. What belongs to no host comes first: the numbers that incidents have.
    """
    sizes = {key: len(key.encode()) + len((text or "").encode()) + 100 for key, text in changes.items()}

    def fit(keys: Sequence[str]) -> bool:
        return len(keys) <= OPERATIONS_MAX and sum(sizes[key] for key in keys) <= BYTES_MAX

    part: list[str] = []
    for name, group in by_host(changes, hosts).items():
        whole = name != OF_NONE and fit([*group])
        for piece in [[*group]] if whole else _pieces(group, fit):
            if part and not fit([*part, *piece]):
                yield {key: changes[key] for key in part}
                part = []
            part += piece
    if part:
        yield {key: changes[key] for key in part}


def _pieces(group: Changes, fit: Callable[[Sequence[str]], bool]) -> list[list[str]]:
    """What is too much in one piece, in an order of which any beginning may be read.

    All but VMs stays together: which boots are accounted for, and which incidents begin and end. With it go as many VMs
    as fit, the last ones first, since newcomers are counted there. The other VMs come before their incident, so that
    it is never there without them, and those of one that is over go behind it.
    """
    over = {f"{key}/" for key, text in group.items() if text is None and key == f"incident/{incident_of(key)}"}
    behind = [key for key in group if key.startswith(tuple(over))]
    before = [key for key, text in group.items() if text is not None and key.count("/") > 1]
    rest = [key for key in group if key not in {*behind, *before}]
    if not fit(rest):
        boots = [key for key in rest if key.startswith("trust/")]
        return [[key] for key in (*before, *(key for key in rest if key not in boots), *boots, *behind)]
    while before and fit([before[-1], *rest]):
        rest.insert(0, before.pop())
    return [*([key] for key in before), rest, *([key] for key in behind)]
