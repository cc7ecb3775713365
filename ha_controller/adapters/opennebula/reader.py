"""Reads XML that comes piece by piece, and builds models from it while it arrives.

It must never trust a text: VM owners write names and attributes, so these stay data and can neither end an element nor
start one. Document types and entities are refused. The text comes from `xmlrpc.py`; what an element means is told by
`documents.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from sys import intern
from typing import Generic, Protocol, TypeVar

from lxml import etree

from ha_controller.adapters.opennebula.xmlrpc import one_line

SHORT = 64  #: characters
ITEM_MAX = 16 << 20  #: characters of one item: oned's database holds no more
TAGS_MAX = 200_000  #: of one item; each costs a hundred bytes, and the largest hosts have some thousands
_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")  #: what 64 bits hold, so that nothing that comes later overflows

_NUMBERS = re.compile(rf"{_NUMBER.pattern}(\0{_NUMBER.pattern})*")  #: joined by what no document can hold


class BadDocument(Exception):
    """A document that cannot be read. The text holds names of elements at most, never their contents."""


class Numbered(Protocol):
    """Everything in OpenNebula has an id."""

    @property
    def id(self) -> int:
        """OpenNebula's number for it."""


Model = TypeVar("Model", bound=Numbered)


class Fields:
    """The children of an element by name. The first of equal names wins, as oned itself looks attributes up."""

    def __init__(self, element: etree._Element | None, *wanted: str) -> None:
        """Index the children; of nothing, there are none. `wanted`: only these names, where there are many others."""
        self._element = element
        # from the last to the first: of equal names the first remains
        self._children: dict[str, etree._Element] = {}
        if element is not None:
            children = element.iterchildren(*wanted, reversed=True)
            self._children = {str(child.tag): child for child in children}

    def __contains__(self, name: str) -> bool:
        """Whether there is such a child."""
        return name in self._children

    def below(self, name: str) -> Fields:
        """Go down to a child, which need not be there."""
        return Fields(self._children.get(name))

    def every(self, name: str, *wanted: str) -> list[Fields]:
        """Return all children of this name, in their order; of each only the `wanted` children, if any are named."""
        return (
            [Fields(child, *wanted) for child in self._element.iterchildren(name)] if self._element is not None else []
        )

    def text(self, name: str) -> str:
        """Return a child's text; empty when it is missing."""
        child = self._children.get(name)
        return "" if child is None else child.text or ""

    def line(self, name: str) -> str:
        """Return a text that is shown to people: one line, no terminal escapes. Many are equal, and kept once."""
        return intern(one_line(self.text(name)))

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a number, the default when oned sent none. Raises BadDocument when there is neither."""
        text = self.text(name)
        if not text and default is not None:
            return default
        return _whole(text, f"{name} is not a number")

    def wished(self, name: str, default: int, unreadable: int) -> int:
        """Return a number that a VM's owner wrote and oned did not check: it must not make a whole pool unreadable."""
        text = self.text(name)
        return default if not text else int(text) if _NUMBER.fullmatch(text) else unreadable

    def optional(self, name: str) -> int | None:
        """Return a number, None when oned sent none. Raises BadDocument when it is not a number."""
        return self.integer(name) if self.text(name) else None

    def ids(self, name: str) -> tuple[int, ...]:
        """Return the ids that are listed in a child. Raises BadDocument when one is not a number."""
        listed = self._children[name].iterchildren("ID") if name in self._children else ()
        texts = [identifier.text or "" for identifier in listed]
        if texts and not _NUMBERS.fullmatch("\0".join(texts)):
            raise BadDocument(f"an ID in {name} is not a number")
        return tuple(map(int, texts))

    def attributes(self) -> dict[str, str]:
        """Return all texts below, a vector's members as "NAME/MEMBER"."""
        found: dict[str, str] = {}
        for name, child in self._children.items():
            if len(child) == 0:
                found[intern(name)] = _shared(child.text)
            found.update({intern(f"{name}/{member.tag!s}"): _shared(member.text) for member in child})
        return found

    def repeated(self) -> dict[str, tuple[str, ...]]:
        """Return all texts of children that are there several times, by their name."""
        if self._element is None or len(self._element) == len(self._children):
            return {}
        found: dict[str, tuple[str, ...]] = {}
        for child in self._element:
            if len(child) == 0:
                found[str(child.tag)] = (*found.get(str(child.tag), ()), child.text or "")
        return {name: values for name, values in found.items() if len(values) > 1}

    def some(self, *names: str) -> dict[str, str]:
        """Return the texts of those children that are there."""
        return {name: self._children[name].text or "" for name in names if name in self._children}


def _whole(text: str, problem: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadDocument(problem)
    return int(text)


def _shared(text: str | None) -> str:
    """A text, kept once if it is short: most hosts have the same."""
    return "" if text is None else intern(text) if len(text) <= SHORT else text


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind(Generic[Model]):
    """How one kind of document is read: `item` elements directly below `root`, or the root itself if they are equal."""

    root: str
    item: str
    build: Callable[[Fields], Model]


class DocumentReader(Generic[Model]):
    """Builds models from a document while it arrives, and keeps nothing else of it."""

    def __init__(self, kind: Kind[Model]) -> None:
        """Prepare for one document."""
        self._kind = kind
        self._start = ""
        self._begun = False
        self._unfinished = self._tags = 0  # since the last item
        self._models: dict[int, Model] = {}
        self._parser = etree.XMLPullParser(
            events=("end",),
            tag=kind.item,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )

    def feed(self, text: str) -> None:
        """Take the next piece of text.

        Raises:
            BadDocument: this is not the document that was asked for.
        """
        if not self._begun:
            self._start += text
            opening = f"<{self._kind.root}"
            if len(self._start) <= len(opening):
                return
            # The root must come first, so there can be no document type and hence no entity.
            if not self._start.startswith(opening) or self._start[len(opening)] not in ">/ ":
                raise BadDocument(f"it does not begin with {self._kind.root}")
            text, self._start, self._begun = self._start, "", True
        self._unfinished += len(text)
        self._tags += text.count("<")
        if self._unfinished > ITEM_MAX or self._tags > TAGS_MAX:
            raise BadDocument("it is too long for one item")
        try:
            self._parser.feed(text.encode())
            for _, element in self._parser.read_events():
                self._take(element)
        except etree.XMLSyntaxError as error:
            raise BadDocument(str(error)) from error

    def close(self) -> list[Model]:
        """Return the models, ascending by id. Of an id that came twice (pools shift while pages are read) the last.

        Raises:
            BadDocument: the document is not complete.
        """
        try:
            self._parser.close()
        except etree.XMLSyntaxError as error:
            raise BadDocument(str(error)) from error
        return [self._models[number] for number in sorted(self._models)]

    def _take(self, element: etree._Element) -> None:
        parent = element.getparent()
        pool = None if parent is None else parent.getparent()
        if pool is not None or (parent is None) != (self._kind.root == self._kind.item):
            return  # an element of the same name deeper down is somebody's attribute
        model = self._kind.build(Fields(element))
        self._models[model.id] = model
        self._unfinished = self._tags = 0
        if parent is not None:
            del parent[: parent.index(element) + 1]  # with whatever else stood before it
