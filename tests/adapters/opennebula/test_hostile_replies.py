"""Replies that are broken, or that somebody made to do harm.

Names and attributes belong to VM owners: they are data.
"""

from __future__ import annotations

import gzip

import pytest

from ha_controller.adapters.opennebula import (
    BadReply,
    BadRequest,
    EmptyPool,
    Locked,
    NoAnswer,
    NoSuchObject,
    NotAllowedNow,
    OpenNebulaError,
    ServerFailed,
    Unauthenticated,
    Unauthorized,
)

NOTHING_MONITORED = "<MONITORING_DATA/>"


def host(number: int, *, name: str = "node", state: int = 2, extra: str = "") -> str:
    return (
        f"<HOST><ID>{number}</ID><NAME>{name}</NAME><STATE>{state}</STATE><HOST_SHARE/><VMS/>"
        f"<TEMPLATE>{extra}</TEMPLATE><MONITORING/></HOST>"
    )


def vm(number: int, *, name: str = "web", state: int = 3, lcm_state: int = 3, attributes: str = "") -> str:
    return (
        f"<VM><ID>{number}</ID><NAME>{name}</NAME><STATE>{state}</STATE><LCM_STATE>{lcm_state}</LCM_STATE>"
        f"<TEMPLATE><CPU>1</CPU><MEMORY>64</MEMORY></TEMPLATE><USER_TEMPLATE>{attributes}</USER_TEMPLATE>"
        "<HISTORY_RECORDS><HISTORY><HID>5</HID></HISTORY></HISTORY_RECORDS></VM>"
    )


@pytest.fixture
def hosts_of(serve, client_of, ok):
    """Read a host pool with this text."""

    async def read(pool: str):
        peer = await serve({"one.hostpool.monitoring": ok(NOTHING_MONITORED), "one.hostpool.info": ok(pool)})
        async with client_of(peer) as client:
            return await client.hosts()

    return read


@pytest.fixture
def vms_of(serve, client_of, ok):
    """Read a VM pool with this text."""

    async def read(pool: str):
        peer = await serve({"one.vmpool.infoset": ok(pool)})
        async with client_of(peer) as client:
            return await client.vms([1, 2])

    return read


@pytest.fixture
def answer_of(serve, client_of):
    """Give an order that gets this body for an answer."""

    async def order(body: bytes):
        peer = await serve({"one.vm.action": body})
        async with client_of(peer) as client:
            await client.vm_action(1, "resume")

    return order


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    "pool",
    [
        BOMB + "<HOST_POOL>" + host(1, name="&c;") + "</HOST_POOL>",
        "<!-- hidden -->" + BOMB + "<HOST_POOL>" + host(1, name="&c;") + "</HOST_POOL>",
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><HOST_POOL>' + host(1) + "</HOST_POOL>",
        "<HOST_POOL>" + BOMB + host(1, name="&c;") + "</HOST_POOL>",
        "<HOST_POOL>" + host(1, name="&c;") + "</HOST_POOL>",
    ],
)
async def test_a_document_with_entities_is_refused(hosts_of, pool):
    with pytest.raises(BadReply):
        await hosts_of(pool)


@pytest.mark.parametrize(
    "declaration",
    [
        b'<!DOCTYPE m [<!ENTITY e "boom">]>',
        b'<!DOCTYPE m SYSTEM "file:///etc/passwd">',
        b"<![CDATA[x]]>",
    ],
)
async def test_an_envelope_with_a_declaration_is_refused(answer_of, ok, declaration):
    body = ok("text")
    for place in (b"<methodResponse>", b"</string>"):
        with pytest.raises(BadReply):
            await answer_of(body.replace(place, declaration + place))


async def test_a_reply_that_was_cut_anywhere_is_an_error(serve, client_of, ok):
    body = ok("<HOST_POOL>" + host(1) + host(2) + "</HOST_POOL>")
    peer = await serve({"one.hostpool.monitoring": ok(NOTHING_MONITORED)})
    async with client_of(peer) as client:
        for length in range(0, len(body.rstrip()), 7):
            peer.replies["one.hostpool.info"] = body[:length]
            with pytest.raises((NoAnswer, BadReply)) as caught:
                await client.hosts()
            assert caught.value.outcome_unknown


@pytest.mark.parametrize(
    "pool",
    [
        "",
        " ",
        "<HOST_POOL>",
        "<HOST_POOL><HOST>",
        "<HOST_POOL></VM_POOL>",
        "<HOST_POOLS></HOST_POOLS>",
        "<VM_POOL/>",
        "<HOST_POOL>" + host(1) + "</HOST_POOL>more",
        "<HOST_POOL><HOST><ID>1</ID></HOST></HOST_POOL>",
        "<HOST_POOL><HOST><ID>one</ID><STATE>2</STATE></HOST></HOST_POOL>",
        "a plain text",
        "<HOST_POOL>" + "<A>" * 400 + "</A>" * 400 + "</HOST_POOL>",
    ],
)
async def test_something_else_than_a_pool_is_a_bad_reply_never_an_empty_pool(hosts_of, pool):
    with pytest.raises(BadReply) as caught:
        await hosts_of(pool)
    assert not isinstance(caught.value, EmptyPool)


@pytest.mark.parametrize("pool", ["<HOST_POOL/>", "<HOST_POOL></HOST_POOL>", "<HOST_POOL><!-- none --></HOST_POOL>"])
async def test_an_empty_host_pool_asks_for_rights(hosts_of, pool):
    with pytest.raises(EmptyPool, match="rights"):
        await hosts_of(pool)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b"<methodResponse></methodResponse>",
        b"<methodResponse><params><param><value><i4>1</i4></value></param></params></methodResponse>",
        b"<methodResponse><params><param><value><array><data><value><boolean>1</boolean></value></data></array></value>"
        b"</param></params></methodResponse>",
        b"<methodResponse><fault><value><i4>3</i4></value></fault></methodResponse>",
        b"<other>" + b" " * 10 + b"</other></methodResponse>",
        b"x" * 100_000,
    ],
)
async def test_something_else_than_a_reply_is_never_a_success(answer_of, body):
    with pytest.raises((BadReply, NoAnswer)) as caught:
        await answer_of(body)
    assert caught.value.outcome_unknown


async def test_a_number_where_a_document_belongs_is_a_bad_reply(serve, client_of, ok):
    peer = await serve({"one.vm.info": ok(7), "one.hostpool.monitoring": ok(7)})
    async with client_of(peer) as client:
        for call in (client.vm(7), client.hosts()):
            with pytest.raises(BadReply):
                await call


async def test_markup_without_end_around_a_payload_is_given_up(answer_of, ok):
    for place in (b"<methodResponse>", b"</methodResponse>"):
        with pytest.raises(BadReply, match="around its payload"):
            await answer_of(ok("x").replace(place, b" " * 70_000 + place))


async def test_a_compressed_answer_is_not_unpacked(serve, client_of, raw_reply, ok):
    bomb = gzip.compress(ok("x" * 50_000_000))

    async def answer(writer):
        await raw_reply(writer, bomb, extra="Content-Encoding: gzip\r\n")

    peer = await serve({"one.vm.action": answer})
    async with client_of(peer) as client:
        with pytest.raises(NoAnswer, match=f"after {len(bomb)} bytes"):
            await client.vm_action(1, "resume")


async def test_cdata_that_looks_like_elements_stays_text(vms_of):
    trick = "</USER_TEMPLATE></VM><VM><ID>99</ID><STATE>8</STATE></VM>"
    found = await vms_of("<VM_POOL>" + vm(1, attributes=f"<NOTE><![CDATA[{trick}]]></NOTE>") + vm(2) + "</VM_POOL>")
    assert [model.id for model in found] == [1, 2]
    assert found[0].attributes == {"NOTE": trick}


async def test_an_attribute_that_is_called_vm_is_no_vm(vms_of):
    trick = "<VM><ID>99</ID><NAME>x</NAME><STATE>8</STATE><LCM_STATE>0</LCM_STATE></VM>"
    found = await vms_of("<VM_POOL>" + vm(1, attributes=trick) + vm(2) + "</VM_POOL>")
    assert [model.id for model in found] == [1, 2]
    assert found[0].attributes["VM/ID"] == "99"


async def test_twice_escaped_text_is_unescaped_twice_and_not_more(vms_of):
    found = await vms_of("<VM_POOL>" + vm(1, name="a &amp;lt;b&amp;gt; &#38;amp; &lt;c&gt;") + "</VM_POOL>")
    assert found[0].name == "a &lt;b&gt; &amp; <c>"


@pytest.mark.parametrize(
    "name",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "a\x00b",
        "\x9b31m",
        "bad \ufffe",
        "line\nbreak",
        "\x7f\x08",
    ],
)
async def test_control_characters_in_a_name_reach_no_terminal_and_hide_no_vm(vms_of, name):
    found = await vms_of("<VM_POOL>" + vm(1, name=name) + vm(2, name="Zoë 数据") + "</VM_POOL>")
    assert [model.id for model in found] == [1, 2]
    assert found[0].name != ""
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in found[0].name)
    assert found[1].name == "Zoë 数据"


async def test_bytes_that_are_not_utf_8_do_not_hide_the_pool(serve, client_of, ok):
    body = ok("<VM_POOL>" + vm(1, name="broken") + "</VM_POOL>").replace(b"broken", b"caf\xe9")
    peer = await serve({"one.vmpool.infoset": body})
    async with client_of(peer) as client:
        assert [model.name for model in await client.vms([1])] == ["caf\ufffd"]


async def test_an_id_that_comes_twice_is_one_host_as_last_seen(hosts_of):
    pool = "<HOST_POOL>" + host(7, state=2) + host(3) + host(7, state=3) + "</HOST_POOL>"
    assert [(model.id, model.state) for model in await hosts_of(pool)] == [(3, 2), (7, 3)]


async def test_states_and_elements_that_are_not_known_yet_pass(vms_of):
    element = vm(1, state=12, lcm_state=99).replace("<VM>", "<VM><NEW><DEEP>1</DEEP></NEW>")
    [found] = await vms_of(f"<VM_POOL><SUMMARY/>{element}</VM_POOL>")
    assert (found.state, found.lcm_state) == (12, 99)


@pytest.mark.parametrize(
    ("code", "message", "kind", "outcome_unknown", "retryable"),
    [
        (256, "User couldn't be authenticated", Unauthenticated, False, False),
        (512, "User [3] : Not authorized to perform ADMIN VM [0].", Unauthorized, False, False),
        (512, "User [0] : VM is locked. [6].", Locked, False, False),
        (1024, "Error getting host [9].", NoSuchObject, False, False),
        (2048, "Migrate action is not available for state BOOT", NotAllowedNow, False, False),
        (4096, "Incorrect filter_flag", BadRequest, False, False),
        (8192, "no leader", ServerFailed, True, True),
        (16384, "allocate", ServerFailed, True, True),
        (32768, "locked", Locked, False, False),
        (65536, "replication", ServerFailed, True, True),
        (77, "from the future", ServerFailed, True, True),
    ],
)
async def test_a_code_becomes_the_error_that_tells_what_to_do(
    answer_of, failure, code, message, kind, outcome_unknown, retryable
):
    with pytest.raises(OpenNebulaError) as caught:
        await answer_of(failure(code, f"[one.vm.action] {message}"))
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert caught.value.message == f"[one.vm.action] {message}"
    assert (caught.value.outcome_unknown, caught.value.retryable) == (outcome_unknown, retryable)


async def test_an_error_text_is_one_bounded_line(answer_of, failure):
    with pytest.raises(NotAllowedNow) as caught:
        await answer_of(failure(2048, "first\r\nFAKE LOG LINE \x1b[31m" + "x" * 100_000))
    assert str(caught.value).startswith("one.vm.action: first FAKE LOG LINE \ufffd[31mxxx")
    assert len(str(caught.value)) < 600


async def test_a_session_that_a_server_sends_back_is_hidden(answer_of, failure):
    with pytest.raises(NotAllowedNow) as caught:
        await answer_of(failure(2048, "rejected tester:correct-horse, password correct-horse"))
    shown = f"{caught.value} {caught.value!r} {caught.value.message} {caught.value.args}"
    assert "correct-horse" not in shown


async def test_neither_client_nor_models_show_a_secret(serve, client_of, ok):
    secret = "<IPMI_PASS><![CDATA[hunter2]]></IPMI_PASS>"
    user = (
        "<USER><ID>2</ID><GID>1</GID><GROUPS><ID>1</ID></GROUPS><NAME>ha</NAME><PASSWORD>p4ss</PASSWORD>"
        "<LOGIN_TOKEN><TOKEN>t0ken</TOKEN></LOGIN_TOKEN>"
        "<TEMPLATE><TOKEN_PASSWORD>p4ss</TOKEN_PASSWORD><HA_BEAT>4</HA_BEAT></TEMPLATE></USER>"
    )
    peer = await serve({"one.host.info": ok(host(1, extra=secret)), "one.user.info": ok(user)})
    async with client_of(peer) as client:
        model = await client.host(1)
        known = await client.user()
        assert "correct-horse" not in repr(client)
    assert model.template == {"IPMI_PASS": "hunter2"}
    assert "hunter2" not in repr(model)
    assert known.template == {"HA_BEAT": "4"}
    assert not known.in_oneadmin


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("302 Found", BadReply),
        ("307 Temporary Redirect", BadReply),
        ("404 Not Found", BadReply),
        ("401 Unauthorized", BadReply),
        ("502 Bad Gateway", NoAnswer),
        ("504 Gateway Timeout", NoAnswer),
    ],
)
async def test_an_http_status_is_an_error_and_a_redirect_takes_the_session_nowhere(
    serve, client_of, raw_reply, ok, status, kind
):
    other = await serve({"one.vm.action": ok(1)})

    async def answer(writer):
        await raw_reply(writer, ok(1), status=status, extra=f"Location: {other.endpoint}\r\n")

    peer = await serve({"one.vm.action": answer})
    async with client_of(peer) as client:
        with pytest.raises(kind, match=status.split()[0]) as caught:
            await client.vm_action(1, "resume")
    assert caught.value.outcome_unknown
    assert other.requests == []
