"""An explicit-state checker: every state that can be reached, breadth first, so the first story found is a shortest.

A model gives its first state, the steps from a state, and what a state must never be. A step is its story, the state
after it, and the invariant that it breaks ("" if none).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
Step = tuple[str, S, str]

STUCK = "L1"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was found. `story` leads from the first state to what is broken; empty if nothing is."""

    states: int
    broken: str = ""
    story: tuple[str, ...] = ()
    rules: frozenset[str] = frozenset()  #: stories without their numbers: which rules were used at all


@dataclass(kw_only=True)
class Checker(Generic[S]):
    """Explores one model. `goal`: from every state one must be reachable in which it holds."""

    first: S
    steps: Callable[[S], Iterable[Step[S]]]
    broken: Callable[[S], str]
    goal: Callable[[S], bool]
    _index: dict[S, int] = field(default_factory=dict)
    _states: list[S] = field(default_factory=list)
    _came_from: array[int] = field(default_factory=lambda: array("i"))
    _edges: tuple[array[int], array[int]] = field(default_factory=lambda: (array("i"), array("i")))

    def run(self) -> Result:
        """Look at every state; stop at the first that is broken, and then look for those that lead nowhere."""
        self._add(self.first, -1)
        rules: set[str] = set()
        sources, targets = self._edges
        at = 0
        while at < len(self._states):
            for told, after, breaks in self.steps(self._states[at]):
                rules.add(told)
                if breaks := breaks or self.broken(after):
                    return Result(states=len(self._states), broken=breaks, story=(*self._story(at), told))
                known = self._index.get(after)
                if known is None:
                    known = self._add(after, at)
                sources.append(at)
                targets.append(known)
            at += 1
        stuck = self._first_stuck()
        story = () if stuck is None else self._story(stuck)
        return Result(
            states=len(self._states), broken="" if stuck is None else STUCK, story=story, rules=frozenset(rules)
        )

    def _add(self, state: S, came_from: int) -> int:
        number = self._index[state] = len(self._states)
        self._states.append(state)
        self._came_from.append(came_from)
        return number

    def _story(self, number: int) -> tuple[str, ...]:
        """The steps to a state. They are not kept for each state but found again on the way back."""
        told: list[str] = []
        while (before := self._came_from[number]) >= 0:
            state = self._states[number]
            told.append(next(text for text, after, _ in self.steps(self._states[before]) if after == state))
            number = before
        return tuple(reversed(told))

    def _first_stuck(self) -> int | None:
        """The nearest state from which no goal can be reached: backwards from all goals."""
        sources, targets = self._edges
        begins = array("i", [0]) * (len(self._states) + 1)
        for target in targets:
            begins[target + 1] += 1
        for number in range(len(self._states)):
            begins[number + 1] += begins[number]
        into, filled = array("i", [0]) * len(sources), array("i", begins)
        for source, target in zip(sources, targets, strict=True):
            into[filled[target]] = source
            filled[target] += 1
        is_fine = bytearray(len(self._states))
        todo = [number for number, state in enumerate(self._states) if self.goal(state)]
        for number in todo:
            is_fine[number] = 1
        while todo:
            number = todo.pop()
            for source in into[begins[number] : begins[number + 1]]:
                if not is_fine[source]:
                    is_fine[source] = 1
                    todo.append(source)
        return next((number for number, fine in enumerate(is_fine) if not fine), None)
