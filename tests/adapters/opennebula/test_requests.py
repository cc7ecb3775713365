"""What is sent: attributes in oned's template syntax, and values that arrive as they were meant."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ha_controller.adapters.opennebula import BadRequest
from ha_controller.adapters.opennebula.xmlrpc import Unescaper, request_body, template_text

#: oned's lexer in one expression: longest match of a quoted string, in which only \" is an escape
ATTRIBUTE = re.compile(r'\s*([A-Za-z0-9_]+)[ \t]*=[ \t]*"((?:\\"|[^"])*)"')

names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
tricky = st.text(st.sampled_from("\"\\\n\r\t ,=[]#<>&]ab'$é"), max_size=12)
values = st.one_of(tricky, st.text(max_size=20)).filter(lambda value: not value.endswith("\\") and "]]>" not in value)


def parse_as_oned(text: str) -> dict[str, str]:
    found, position = {}, 0
    while position < len(text):
        match = ATTRIBUTE.match(text, position)
        assert match, f"oned cannot parse {text[position:]!r}"
        found[match[1]] = match[2].replace('\\"', '"')
        position = match.end()
    return found


@given(st.dictionaries(names, values, max_size=4))
def test_oned_reads_back_the_attributes_that_were_written(attributes):
    assert parse_as_oned(template_text("one.host.update", attributes)) == attributes


@pytest.mark.parametrize(
    "attributes",
    [
        {"A": "x\\", "B": "y"},
        {"A": "\\"},
        {"A": "]]>"},
        {"A": "<![CDATA[x]]>"},
        {"a": "x"},
        {"A B": "x"},
        {"": "x"},
        {'A="1"\nB': "x"},
        {"1A": "x"},
        {"A\n": "x"},
    ],
)
def test_what_oneds_syntax_cannot_hold_is_refused_here(attributes):
    with pytest.raises(BadRequest, match="nothing was sent") as caught:
        template_text("one.host.update", attributes)
    assert not caught.value.outcome_unknown


async def test_a_value_arrives_whole(serve, client_of, ok):
    peer = await serve({"one.host.update": ok(3), "one.user.update": ok(2)})
    value = 'FENCED 12 "by\\pdu"\n<&> \r é'
    async with client_of(peer) as client:
        await client.update_host(3, {"HA_STATE": value, "HA_NOTE": ""})
        await client.update_user(2, {"HA_BEAT": "17"})
    (_, [_, host, text, kind]), (user_method, user_call) = peer.requests
    assert (host, kind) == (("int", "3"), ("int", "1"))
    assert parse_as_oned(text[1]) == {"HA_STATE": value, "HA_NOTE": ""}
    assert user_method == "one.user.update"
    assert user_call[1:] == [("int", "2"), ("string", 'HA_BEAT="17"'), ("int", "1")]


async def test_a_character_that_xml_cannot_carry_is_refused_before_anything_is_sent(serve, client_of):
    peer = await serve()
    async with client_of(peer) as client:
        for value in ("\x1b[31m", "\x00", "\ufffe", "\ud800"):
            with pytest.raises(BadRequest, match="nothing was sent"):
                await client.update_host(1, {"HA_STATE": value})
    assert peer.requests == []


async def test_each_value_has_the_type_that_oned_wants(serve, client_of, ok):
    peer = await serve({"one.vm.migrate": ok(1)})
    async with client_of(peer) as client:
        await client.migrate(1, 2, enforce=True, live=False, type=2)
    assert peer.requests[0][1][1:] == [
        ("int", "1"),
        ("int", "2"),
        ("boolean", "0"),
        ("boolean", "1"),
        ("int", "-1"),
        ("int", "2"),
    ]


async def test_no_compression_is_asked_for_and_no_cookie_is_kept(serve, client_of, raw_reply, ok):
    async def answer(writer):
        await raw_reply(writer, ok("7.4.0"), extra="Set-Cookie: a=b; Path=/\r\n")

    peer = await serve({"one.system.version": answer})
    async with client_of(peer) as client:
        await client.version()
        await client.version()
    assert all("accept-encoding: identity" in head.lower() for head in peer.heads)
    assert not any("cookie" in head.lower() for head in peer.heads)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_a_request_carries_every_text(text):
    root = ElementTree.fromstring(request_body("one.test", [text]))
    assert (root.findtext(".//string") or "") == text


@given(st.text(st.sampled_from("&<>\"'ab;#x3lté數"), max_size=30), st.integers(1, 5))
def test_unescaping_does_not_depend_on_where_the_text_was_cut(text, size):
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;").encode()
    unescaper = Unescaper()
    pieces = [unescaper.feed(escaped[start : start + size]) for start in range(0, len(escaped), size)]
    assert "".join(pieces) + unescaper.feed(b"", final=True) == text
