"""OpenNebula's template text as oned 7.4.0 reads it: NAME="value", NAME=value, NAME=[KEY="value",KEY="value"]."""

from __future__ import annotations

import re

Template = dict[str, str | dict[str, str]]
_COMMA = re.compile(r"\s*,")
_NAME = re.compile(r"\s*([A-Za-z0-9_]+)\s*=[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BARE = re.compile(r"[^\n]*")
_BARE_IN_VECTOR = re.compile(r"[^,\]\n]*")


class TemplateError(Exception):
    """oned refuses the text."""


def parse(text: str) -> Template:
    """The attributes. An unclosed quote is taken as part of the value, an unclosed vector raises TemplateError."""
    found: Template = {}
    at = 0
    while name := _NAME.match(text, at):
        at = name.end()
        if text[at : at + 1] == "[":
            found[name[1]], at = _vector(text, at + 1)
        else:
            found[name[1]], at = _value(text, at, _BARE)
    return found


def _vector(text: str, at: int) -> tuple[dict[str, str], int]:
    found: dict[str, str] = {}
    while name := _NAME.match(text, at):
        found[name[1]], at = _value(text, name.end(), _BARE_IN_VECTOR)
        comma = _COMMA.match(text, at)
        at = at if comma is None else comma.end()
    closing = re.compile(r"\s*\]").match(text, at)
    if closing is None:
        raise TemplateError("syntax error, unexpected $end, expecting COMMA or CBRACKET")
    return found, closing.end()


def _value(text: str, at: int, bare: re.Pattern[str]) -> tuple[str, int]:
    if quoted := _QUOTED.match(text, at):
        return re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    plain = bare.match(text, at)
    assert plain is not None  # both patterns match the empty string
    return plain[0].strip(), plain.end()
