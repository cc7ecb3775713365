"""Asks the other controllers of this cloud what they see: `GET /api/v1/sight`, once a second, each by itself.

What one says goes to the core as `SightTold`, and is kept for people. One that is slow, hangs, floods, or says what it
may not, delays nobody and is unknown until it answers again. Redirects are not followed, nothing is unpacked.

Another controller says how long ago it saw life, never when: clocks differ. See `Dating` for how that becomes a moment.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Final

import aiohttp
import anyio
import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ha_controller.core.events import SightTold
from ha_controller.core.model import SeenAlive
from ha_controller.showable import one_line

log = structlog.get_logger(__name__)

ASK_EVERY_S: Final = 1.0
PAUSE_MIN_S: Final = 0.2
ANSWER_MAX_S: Final = 1.0  #: from the first packet to the last
ANSWER_BYTES_MAX: Final = 2 << 20  #: ten thousand hosts need a third of it
WORDS_MAX: Final = 50_000  #: in one answer
AGE_MAX_S: Final = 30.0  #: older life stops nothing
FRESH_S: Final = 3.0  #: what it said last is still so
_MARKS_MAX: Final = 40

_Age = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=300)]


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another controller, and how to ask it."""

    name: str
    url: str
    token: SecretStr
    tls: ssl.SSLContext | None = None  #: None: the system's authorities


Question = Callable[[], Awaitable[bytes]]
Way = Callable[[Other], AbstractAsyncContextManager[Question]]


@asynccontextmanager
async def over_http(other: Other) -> AsyncIterator[Question]:
    """How another controller is asked. A question raises aiohttp.ClientError or OSError, and sets no deadline."""
    connector = aiohttp.TCPConnector(ssl=True if other.tls is None else other.tls, limit=1)
    async with aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        auto_decompress=False,  # a small answer could unpack to any size
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "Authorization": f"Bearer {other.token.get_secret_value()}"},
    ) as session:
        yield partial(_asked, session, f"{other.url}/api/v1/sight")


class _Said(BaseModel):
    """Of an answer; it may say more."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)


class _Host(_Said):
    host: int
    alive_s_ago: dict[Annotated[str, Field(max_length=64)], _Age]


class _Answer(_Said):
    run: Annotated[str, Field(max_length=64)]
    instance: Annotated[str, Field(max_length=64)]
    clock_s: Annotated[float, Field(allow_inf_nan=False)]
    leads: bool
    paused: bool = False
    runs_on: Annotated[list[int], Field(max_length=20)] = []
    why_unfit: Annotated[list[_Text], Field(max_length=20)]
    hosts: Annotated[list[_Host], Field(max_length=WORDS_MAX)]


@dataclass(slots=True)
class Dating:
    """From ages on another controller's clock to moments on ours, which are never later than they were.

    An age alone is not enough: a virtual machine that was paused, or a cache on the way, says "half a second ago" of
    something that is an hour old. So its clock is compared with ours, by the last answer from before the life: if its
    clock stood still since, the life is older than that. What was before the first answer cannot be dated: no news.
    """

    run: str = ""  #: of its process: another one has another clock
    _marks: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MARKS_MAX))
    _clock_s: float = 0.0
    _offset: float = 0.0

    def take(self, run: str, clock_s: float, sent_at: float) -> None:
        """It says in an answer what its clock shows; the question left at `sent_at` on ours."""
        if run != self.run or (self._marks and clock_s < self._marks[-1][0]):
            self.run = run
            self._marks.clear()
        self._clock_s, self._offset = clock_s, sent_at - clock_s  # its clock showed that at `sent_at` or later
        if not self._marks or clock_s > self._marks[-1][0]:
            self._marks.append((clock_s, self._offset))

    def moment(self, age_s: float) -> float | None:
        """When it was; None: that cannot be told.

        Its clock may have stood still after the life, but not before the last answer that is older; ours may have, too.
        """
        at = self._clock_s - age_s
        before = next((offset for clock_s, offset in reversed(self._marks) if clock_s <= at), None)
        return None if before is None else at + min(before, self._offset)


@dataclass(kw_only=True)
class Sight:
    """What another controller last said, and since when it says nothing."""

    asked_at: float | None = None  #: the last question that was answered
    instance: str = ""
    leads: bool = False
    paused: bool = False  #: by its own record: where that is not shared, it would power nothing off, if it led
    runs_on: frozenset[int] = frozenset()  #: hosts, as far as it knows
    why_unfit: tuple[str, ...] = ()
    alive: frozenset[int] = frozenset()  #: hosts that it saw alive within the last seconds
    trouble: str = "not asked yet"  #: why the last question had no answer

    def is_fresh(self, now: float) -> bool:
        """Whether what it said is still so."""
        return self.asked_at is not None and now - self.asked_at <= FRESH_S

    def is_fit(self, now: float) -> bool:
        """Whether it can tell what is silent."""
        return self.is_fresh(now) and not self.why_unfit


class _Itself(Exception):
    """The one that was asked is the one that asks."""


class Controllers:
    """Asks them all, each in a task of its own."""

    def __init__(
        self,
        others: Sequence[Other],
        *,
        report: Callable[[SightTold], None],
        clock: Callable[[], float],
        ours: tuple[str, str] = ("", ""),
        way: Way = over_http,
    ) -> None:
        """Nothing is asked yet. `clock`: the controller's seconds. `ours`: run and instance, as it tells others."""
        self._ours, self._way = ours, way
        self.sights: dict[str, Sight] = {other.name: Sight() for other in others}
        self._others = others
        self._report = report
        self._clock = clock

    async def run(self) -> None:
        """Ask until cancelled."""
        async with anyio.create_task_group() as group:
            for other in self._others:
                group.start_soon(self._follow, other)

    async def _follow(self, other: Other) -> None:
        dating = Dating()
        async with self._way(other) as question:
            while True:
                began_at = anyio.current_time()
                await self._ask(other, question, dating)
                await anyio.sleep(max(PAUSE_MIN_S, began_at + ASK_EVERY_S - anyio.current_time()))

    async def _ask(self, other: Other, question: Question, dating: Dating) -> None:
        """One question. What goes wrong is told of this one alone."""
        sight, sent_at, trouble = self.sights[other.name], self._clock(), ""
        try:
            with anyio.fail_after(ANSWER_MAX_S):
                raw = await question()
            self._take(other.name, sight, _Answer.model_validate_json(raw), sent_at, dating)
        except TimeoutError:
            trouble = f"no answer within {ANSWER_MAX_S:g} s"
        except (aiohttp.ClientError, OSError) as error:
            trouble = one_line(str(error), other.token.get_secret_value()) or type(error).__name__
        except ValueError:
            trouble = "its answer is none"
        except _Itself:
            trouble = f"{other.url} is this very controller. Give the address of {other.name}, or take its table out"
        except Exception as error:  # a border: whatever another controller makes of an answer is its own trouble
            log.exception("an answer of another controller could not be taken in", controller=other.name)
            trouble = f"its answer could not be taken in ({type(error).__name__})"
        if bool(trouble) is not bool(sight.trouble):
            log.warning("another controller", controller=other.name, trouble=trouble or "none any more")
        sight.trouble = trouble

    def _take(self, name: str, sight: Sight, answer: _Answer, sent_at: float, dating: Dating) -> None:
        if (answer.run, answer.instance) == self._ours:
            raise _Itself
        if sum(len(row.alive_s_ago) for row in answer.hosts) > WORDS_MAX:
            raise ValueError("too many words")
        names = {channel for row in answer.hosts for channel in row.alive_s_ago}
        shown = {channel: one_line(channel, characters_max=64) for channel in names}
        dating.take(answer.run, answer.clock_s, sent_at)
        alive = tuple(
            SeenAlive(host=row.host, channel=shown[channel], at=at)
            for row in answer.hosts
            for channel, age_s in row.alive_s_ago.items()
            if age_s <= AGE_MAX_S and (at := dating.moment(age_s)) is not None
        )
        sight.asked_at, sight.instance, sight.leads = sent_at, answer.instance, answer.leads
        sight.paused, sight.runs_on = answer.paused, frozenset(answer.runs_on)
        sight.why_unfit = tuple(one_line(why) for why in answer.why_unfit)
        sight.alive = frozenset(seen.host for seen in alive if sent_at - seen.at <= FRESH_S)
        self._report(SightTold(controller=name, alive=alive))


async def _asked(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise aiohttp.ClientError(f"HTTP {response.status}")
        found = bytearray()
        while piece := await response.content.read(ANSWER_BYTES_MAX + 1 - len(found)):
            found += piece
            if len(found) > ANSWER_BYTES_MAX:
                raise aiohttp.ClientError("its answer is too long")
        return bytes(found)
