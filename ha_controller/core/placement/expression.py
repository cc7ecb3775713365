"""OpenNebula's requirement expressions: read once, evaluated for many hosts.

Follows OpenNebula's own parser and scheduler (src/parsers/expr_bool.y, expr_parser.l, HostXML.h of 7.x), also where
they surprise: `&` and `|` have one precedence and group from the left; an attribute that a host does not have makes
every comparison false, `!=` too; strings are shell patterns. What they would skip in silence or compute from chance is
refused here, because a VM must never start where a guess put it.

The texts are written by the owners of VMs: length and depth are bounded, and no message repeats them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import assert_never

LENGTH_MAX = 16_384
DEPTH_MAX = 50
CURRENT_VMS = "CURRENT_VMS"  #: the VMs of a host; not an attribute
_INT_MAX = 2**31 - 1  #: OpenNebula compares C++ ints

_TOKEN = re.compile(
    r"""[ \t\r\n]*+(?:
        (?P<float>-?[0-9]+\.[0-9]+) | (?P<integer>-?[0-9]+)
      | (?P<word>[A-Za-z][0-9A-Za-z_]*) | "(?P<quoted>[^"]*)"
      | (?P<sign>@>|!=|[=<>&|!()]) | (?P<end>;?[ \t\r\n]*+\Z)
    )""",
    re.VERBOSE,
)
#: A plain attribute, or a member of a vector attribute. Other paths could lead anywhere in OpenNebula's document.
_NAME = re.compile(r"[A-Za-z_][0-9A-Za-z_]*(/[A-Za-z_][0-9A-Za-z_]*)?")
_SECTIONS = frozenset(
    {"TEMPLATE", "HOST_SHARE", "DATASTORES", "MONITORING", "CAPACITY", "SYSTEM", "VMS", "CLUSTER_TEMPLATE",
     "PCI_DEVICES", "NUMA_NODES"}
)  # fmt: skip
_LEADING_INTEGER = re.compile(r"\s*([+-]?[0-9]+)")
_LEADING_FLOAT = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")

Values = Callable[[str], Sequence[str]]  #: all values of an attribute of a host, the decisive one first


class Unreadable(Exception):
    """An expression that this module does not evaluate. The text never repeats the expression."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """An attribute compared with a value."""

    name: str
    sign: str
    operand: int | float | re.Pattern[str] | None  #: None: the empty string, which matches nothing

    def compares(self, found: Sequence[str]) -> bool:
        """Whether the values that a host has of this attribute meet it."""
        if not found or self.operand is None:
            return False
        if self.sign == "@>":
            return any(_equal(self.operand, value) is True for value in found)
        if self.sign in ("=", "!="):
            return _equal(self.operand, found[0]) is (self.sign == "=")
        assert isinstance(self.operand, int | float)  # the reader lets nothing else be ordered
        number = _number(found[0], self.operand)
        if number is None:
            return False
        return number < self.operand if self.sign == "<" else number > self.operand


@dataclass(frozen=True, slots=True)
class _Not:
    term: _Term


@dataclass(frozen=True, slots=True)
class _Chain:
    first: _Term
    rest: tuple[tuple[str, _Term], ...]


_Term = Comparison | _Not | _Chain


@dataclass(frozen=True, slots=True)
class Expression:
    """A requirement that was understood."""

    term: _Term | None  #: None: empty, which every host meets
    names: frozenset[str]  #: the attributes that it looks at

    @property
    def looks_at_vms(self) -> bool:
        """Whether it depends on which VMs a host has."""
        return CURRENT_VMS in self.names

    def holds(self, values: Values, vms: Collection[int]) -> bool:
        """Whether a host with these attributes and VMs meets it."""

        def here(term: Comparison) -> int:
            if term.name == CURRENT_VMS:
                return (term.operand in vms) is (term.sign == "=")
            return term.compares(values(term.name))

        return bool(self.among(here, 1))

    def among(self, where: Callable[[Comparison], int], everywhere: int) -> int:
        """Of many hosts, those that meet it: a bit for each. `where`: those that meet one comparison."""
        return everywhere if self.term is None else _among(self.term, where, everywhere)


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        Unreadable: with the column, and what was expected there.
    """
    if len(text) > LENGTH_MAX:
        raise Unreadable(f"longer than {LENGTH_MAX} characters")
    reader = _Reader(_tokens(text))
    if reader.kind == "end":
        return Expression(None, frozenset())
    term = reader.chain(0)
    if reader.kind != "end":
        raise reader.unexpected("& or |")
    return Expression(term, frozenset(reader.names))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while True:
        match = _TOKEN.match(text, at)
        if match is None:
            column = at + len(text[at:]) - len(text[at:].lstrip())
            raise Unreadable(f"column {column + 1}: a character that is no part of an expression")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], match.start(kind) + (kind != "quoted")))
        if kind == "end":
            return found
        at = match.end()


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._at = tokens, 0
        self.names: set[str] = set()

    @property
    def kind(self) -> str:
        """What the next token is."""
        return self._tokens[self._at].kind

    def unexpected(self, wanted: str) -> Unreadable:
        """What to raise about the next token."""
        return Unreadable(f"column {self._tokens[self._at].column}: expected {wanted}")

    def _take(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _takes(self, *signs: str) -> str:
        token = self._tokens[self._at]
        if token.kind == "sign" and token.text in signs:
            self._at += 1
            return token.text
        return ""

    def chain(self, depth: int) -> _Term:
        """Terms joined by & and |, from the left: `a | b & c` is `(a | b) & c`."""
        first, rest = self._term(depth), []
        while sign := self._takes("&", "|"):
            rest.append((sign, self._term(depth)))
        return _Chain(first, tuple(rest)) if rest else first

    def _term(self, depth: int) -> _Term:
        if depth > DEPTH_MAX:
            raise Unreadable(f"nested deeper than {DEPTH_MAX} levels")
        if self._takes("!"):
            return _Not(self._term(depth + 1))
        if self._takes("("):
            inner = self.chain(depth + 1)
            if not self._takes(")"):
                raise self.unexpected("&, | or a closing parenthesis")
            return inner
        return self._comparison()

    def _comparison(self) -> Comparison:
        if self.kind not in ("word", "quoted"):
            raise self.unexpected("an attribute, ! or an opening parenthesis")
        column = self._tokens[self._at].column
        name = self._take().text
        if not _NAME.fullmatch(name) or name.partition("/")[0] in _SECTIONS:
            raise Unreadable(f"column {column}: a path that is not followed here; name the attribute alone")
        sign = self._takes("=", "!=", "<", ">", "@>")
        if not sign:
            raise self.unexpected("=, !=, <, > or @>")
        self.names.add(name)
        column = self._tokens[self._at].column
        operand = self._operand(ordered=sign in ("<", ">"))
        if name == CURRENT_VMS and not (sign in ("=", "!=") and isinstance(operand, int)):
            raise Unreadable(f"column {column}: {CURRENT_VMS} can only be compared by = or != with the id of a VM")
        return Comparison(name, sign, operand)

    def _operand(self, *, ordered: bool) -> int | float | re.Pattern[str] | None:
        if self.kind == "integer":
            column = self._tokens[self._at].column
            number = int(self._take().text[:20])
            if abs(number) > _INT_MAX:
                raise Unreadable(f"column {column}: a number that OpenNebula cannot hold")
            return number
        if self.kind == "float":
            return float(self._take().text)
        if ordered or self.kind not in ("word", "quoted"):
            raise self.unexpected("a number" if ordered else "a value")
        column, text = self._tokens[self._at].column, self._take().text
        return _pattern(text, column) if text else None


def _pattern(text: str, column: int) -> re.Pattern[str]:
    """A shell pattern as fnmatch(3) understands it: * ? [...] [!...] and the backslash."""
    if "[:" in text or "[." in text or "[=" in text or re.search(r"(?<!\\)(\\\\)*\\\Z", text):
        raise Unreadable(f"column {column}: a pattern that is not understood here")
    plain = re.sub(r"\\(.)", lambda found: f"[{found[1]}]" if found[1] in "*?[" else found[1], text, flags=re.DOTALL)
    return re.compile(fnmatch.translate(plain.replace("[^", "[!")))


# --- evaluating -------------------------------------------------------------------------------------------------------


def _among(term: _Term, where: Callable[[Comparison], int], everywhere: int) -> int:
    match term:
        case Comparison():
            return where(term)
        case _Not():
            return everywhere & ~_among(term.term, where, everywhere)
        case _Chain():
            result = _among(term.first, where, everywhere)
            for sign, each in term.rest:
                other = _among(each, where, everywhere)
                result = result & other if sign == "&" else result | other
            return result
        case _:
            assert_never(term)


def _equal(operand: int | float | re.Pattern[str], value: str) -> bool | None:
    """Whether they are equal; None: the value is no number, so that it is neither equal nor unequal."""
    if isinstance(operand, re.Pattern):
        return operand.match(value) is not None
    number = _number(value, operand)
    return None if number is None else number == operand


def _number(value: str, like: int | float) -> int | float | None:
    """The number at the beginning of a value, as C++ streams read it: an integer to be compared with an integer."""
    if isinstance(like, int):
        found = _LEADING_INTEGER.match(value)
        number = int(found[1][:20]) if found else None
        return number if number is not None and abs(number) <= _INT_MAX else None
    found = _LEADING_FLOAT.match(value)
    return float(found[1]) if found else None
