"""Who may do what through the API, over real sockets: tokens, logins, proxies, others' pages, what is on record."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anyio
import pytest
import pytest_asyncio
from multidict import CIMultiDict

from ha_controller.adapters.http_api import Proxies, Role
from ha_controller.adapters.http_api.local_peers import LocalPeers
from ha_controller.adapters.http_api.problems import Problem
from ha_controller.adapters.http_api.repeats import KEPT_OF_EACH, Repeats
from ha_controller.adapters.http_api.server import CONNECTIONS_MAX
from tests.app.api_door import Door, opened

ROLES = ("", "viewer", "operator", "admin")
LOGIN = "/api/v1/session"


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(tmp_path) as door:
        yield door


async def log_in(door: Door, user: str, **headers: str) -> tuple[int, dict[str, str], str]:
    body = {"user": user, "password": f"{user}-secret"}
    status, answer, told = await door.ask("POST", LOGIN, json=body, headers=headers)
    return status, answer, told.get("Set-Cookie", "")


def session_of(cookie: str, **headers: str) -> dict[str, str]:
    return {"Cookie": cookie.partition(";")[0], **headers}


async def test_every_operation_is_for_its_role_and_the_ones_above(door: Door) -> None:
    door.sources.write("a line")
    for operation in door.api.operations:
        if operation.name in ("events_stream", "log_in", "log_out", "revoke_token"):
            continue
        path = operation.path.replace("{host}", "kvm-07").replace("{number}", "3").replace("{vm}", "web")
        path += "?host=kvm-07" if operation.name == "simulate_fail" else ""
        for number, role in enumerate(ROLES):
            body = {"json": {"reason": "why"}} if operation.body is not None else {}
            status, _, _ = await door.ask(operation.method, path, role=role, **body)
            is_refused = status in (401, 403)
            assert is_refused == (number < operation.role), (operation.name, role, status)


async def test_nobody_is_told_to_log_in_and_somebody_what_it_lacks(door: Door) -> None:
    status, answer, headers = await door.ask("GET", "/api/v1/hosts")
    assert (status, answer["code"], headers["WWW-Authenticate"][:6]) == (401, 8, "Bearer")
    status, answer, _ = await door.ask("POST", "/api/v1/hosts/kvm-07/fence", role="operator", json={"reason": "x"})
    assert (status, answer["detail"]) == (403, "This needs the role admin; operator is operator.")
    assert door.sources.ordered == []


async def test_who_did_it_and_from_where_is_on_record_in_every_act(door: Door) -> None:
    await door.ask("POST", "/api/v1/pause", role="operator", json={"reason": "switch"})
    await door.ask("POST", "/api/v1/resume", local=True, json={})
    said = [(each.who, each.origin.partition(", uid")[0], each.reason) for each in door.sources.ordered]
    assert said == [("token operator", "127.0.0.1, by token", "switch"), ("root", "local socket", "")]
    await door.ask("POST", "/api/v1/fencing/check", role="operator")
    assert (door.sources.acts[-1]["who"], door.sources.acts[-1]["what"]) == ("token operator", "fencing check")


async def test_what_was_refused_is_on_record(door: Door) -> None:
    await door.ask("POST", "/api/v1/pause", role="viewer", json={"reason": "x"})
    await door.ask("POST", "/api/v1/hosts/nobody/hold", role="admin", json={"reason": "y"})
    await door.ask("GET", "/api/v1/hosts", headers={"Authorization": "Bearer guessed"})
    await door.ask("GET", "/api/v1/hosts")  # a page that has yet to log in
    told = [(act["who"], act["what"], act["reason"], act["code"]) for act in door.sources.acts]
    assert told == [
        ("token viewer", "POST /api/v1/pause", "", 8),
        ("token admin", "POST /api/v1/hosts/nobody/hold", "y", 3),
        ("nobody", "GET /api/v1/hosts", "", 8),
    ]


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_of_a_token_only_its_hash_is_kept_and_shown(door: Door) -> None:
    kept = "".join(door.sources.records.values())
    _, rows, _ = await door.ask("GET", "/api/v1/tokens", role="admin")
    for token in door.tokens.values():
        assert token.startswith("hac_")
        assert len(token) > 40
        assert token not in kept
        assert token.removeprefix("hac_") not in f"{kept}{rows}{door.sources.acts}"
    assert [(row["name"], row["role"]) for row in rows] == [(role, role) for role in ("admin", "operator", "viewer")]


async def test_a_token_survives_a_restart_and_ends_when_revoked_or_old(door: Door) -> None:
    body = {"name": "ci", "role": "viewer", "for_s": 60}
    status, made, _ = await door.ask("POST", "/api/v1/tokens", role="admin", json=body)
    assert status == 201
    assert (await door.ask("POST", "/api/v1/tokens", role="admin", json=body))[0] == 409
    bearer = {"Authorization": f"Bearer {made['token']}"}
    again = type(door.doorkeeper)(door.sources, clock=door.clock)
    await again.tokens.load()
    assert again.tokens.caller(made["token"], "") is not None
    assert (await door.ask("GET", "/api/v1/hosts", headers=bearer))[0] == 200
    door.clock.at += 61
    assert (await door.ask("GET", "/api/v1/hosts", headers=bearer))[0] == 401
    assert (await door.ask("DELETE", "/api/v1/tokens/viewer", role="admin"))[0] == 204
    assert (await door.ask("GET", "/api/v1/hosts", role="viewer"))[0] == 401
    assert "token/viewer" not in door.sources.records
    assert (await door.ask("DELETE", "/api/v1/tokens/viewer", role="admin"))[0] == 404


async def test_a_token_that_is_wrong_is_refused_even_where_no_token_is_needed(door: Door) -> None:
    wrong = {"Authorization": "Bearer hac_wrong"}
    assert (await door.ask("GET", "/api/v1/hosts", local=True, headers=wrong))[0] == 401
    assert (await door.ask("GET", "/api/v1/hosts", headers={"Authorization": "Basic cm9vdDpyb290"}))[0] == 401


# --- logins -----------------------------------------------------------------------------------------------------------


async def test_an_opennebula_user_logs_in_and_has_the_role_of_its_group(door: Door) -> None:
    status, answer, cookie = await log_in(door, "otto")
    assert (status, answer["name"], answer["role"], answer["via"]) == (200, "otto", "operator", "login")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert (await door.ask("GET", "/api/v1/hosts", headers=session_of(cookie)))[0] == 200
    carried = session_of(cookie, **{"X-HA-CSRF": answer["csrf"]})
    assert (await door.ask("POST", "/api/v1/pause", headers=carried, json={"reason": "x"}))[0] == 200
    assert (door.sources.ordered[0].who, door.sources.ordered[0].origin) == ("otto", "127.0.0.1, by login")
    assert (await door.ask("POST", "/api/v1/hosts/kvm-07/fence", headers=carried, json={"reason": "x"}))[0] == 403
    assert (await door.ask("DELETE", LOGIN, headers=carried))[0] == 204
    assert (await door.ask("GET", "/api/v1/hosts", headers=session_of(cookie)))[0] == 401


async def test_a_session_ends_by_itself(door: Door) -> None:
    _, _, cookie = await log_in(door, "vera")
    door.clock.at += 3601
    assert (await door.ask("GET", "/api/v1/hosts", headers=session_of(cookie)))[0] == 401


async def test_a_page_of_somebody_else_changes_nothing_with_a_session(door: Door) -> None:
    _, answer, cookie = await log_in(door, "anna")
    csrf = {"X-HA-CSRF": answer["csrf"]}
    own = f"http://127.0.0.1:{door.port}"
    for headers in (
        {},
        {"X-HA-CSRF": "guessed"},
        {**csrf, "Origin": "https://evil.example"},
        {**csrf, "Origin": "null"},
        {**csrf, "Sec-Fetch-Site": "cross-site"},
        {**csrf, "Sec-Fetch-Site": "same-site"},
    ):
        given = session_of(cookie, **headers)
        status, _, _ = await door.ask("POST", "/api/v1/pause", headers=given, json={"reason": "x"})
        assert status == 403, headers
    assert door.sources.ordered == []
    good = session_of(cookie, **csrf, **{"Origin": own, "Sec-Fetch-Site": "same-origin"})
    assert (await door.ask("POST", "/api/v1/pause", headers=good, json={"reason": "x"}))[0] == 200
    form = session_of(cookie, **csrf, **{"Content-Type": "text/plain"})
    assert (await door.ask("POST", "/api/v1/pause", headers=form, data=b'{"reason":"x"}'))[0] == 415
    assert (await log_in(door, "anna", Origin="https://evil.example"))[0] == 403


async def test_wrong_passwords_are_few_and_then_nobody_asks_opennebula(door: Door) -> None:
    wrong = {"user": "anna", "password": "guess"}
    found = [(await door.ask("POST", LOGIN, json=wrong))[0] for _ in range(7)]
    assert found == [401] * 5 + [429] * 2
    assert (await log_in(door, "anna"))[0] == 429
    assert door.sources.asked == ["anna"] * 5
    door.clock.at += 61
    assert (await log_in(door, "anna"))[0] == 200
    assert "guess" not in str(door.sources.acts)


async def test_a_user_without_a_role_and_an_opennebula_that_is_silent_let_nobody_in(door: Door) -> None:
    status, answer, cookie = await log_in(door, "eve")
    assert (status, cookie) == (403, "")
    assert "[api] groups" in answer["detail"]
    door.sources.oned_is_down = True
    status, answer, cookie = await log_in(door, "anna")
    assert (status, answer["code"], cookie) == (503, 7, "")


async def test_a_name_with_a_colon_is_no_way_to_another_password(door: Door) -> None:
    body = {"user": "anna:anna-secret", "password": "x"}
    assert (await door.ask("POST", LOGIN, json=body))[0] == 400
    assert door.sources.asked == []


# --- proxies ----------------------------------------------------------------------------------------------------------


async def test_headers_of_a_proxy_are_believed_from_its_address_alone(tmp_path: Path) -> None:
    headers = {"X-Forwarded-User": "olga", "X-Forwarded-Groups": "staff,ops", "X-Forwarded-For": "6.6.6.6, 192.0.2.9"}
    async with opened(tmp_path) as door:
        assert (await door.ask("GET", "/api/v1/hosts", headers=headers))[0] == 401
    (tmp_path / "named").mkdir()
    named = Proxies(addresses=frozenset({"127.0.0.1"}), roles={"ops": Role.OPERATOR})
    async with opened(tmp_path / "named", proxies=named) as door:
        _, answer, _ = await door.ask("GET", LOGIN, headers=headers)
        assert (answer["name"], answer["role"], answer["via"]) == ("olga", "operator", "proxy")
        assert (await door.ask("POST", "/api/v1/pause", headers=headers, json={"reason": "x"}))[0] == 403
        carried = {**headers, "X-HA-CSRF": "1"}
        assert (await door.ask("POST", "/api/v1/pause", headers=carried, json={"reason": "x"}))[0] == 200
        assert door.sources.ordered[0].origin == "192.0.2.9, by proxy"
        none = {**headers, "X-Forwarded-Groups": "staff"}
        assert (await door.ask("GET", "/api/v1/hosts", headers=none))[0] == 403


# --- orders that are repeated -----------------------------------------------------------------------------------------


async def test_an_order_with_a_key_is_carried_out_once(door: Door) -> None:
    door.sources.answers_at = anyio.Event()
    key = {"Idempotency-Key": "k-1"}
    found: list[tuple[int, str]] = []

    async def order(**more: str) -> None:
        status, answer, _ = await door.ask(
            "POST", "/api/v1/pause", role="operator", headers={**key, **more}, json={"reason": "x"}
        )
        found.append((status, answer["text"]))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(order)
        with anyio.fail_after(20):
            while not door.sources.ordered:
                await anyio.sleep(0.01)
        door.sources.answers_at.set()
    await order()
    assert (found, len(door.sources.ordered)) == ([(200, "done")] * 4, 1)
    other = await door.ask("POST", "/api/v1/pause", role="operator", headers=key, json={"reason": "y"})
    assert (other[0], len(door.sources.ordered)) == (422, 1)
    await door.ask("POST", "/api/v1/pause", role="admin", headers=key, json={"reason": "x"})
    assert len(door.sources.ordered) == 2  # a key is its sender's


async def test_an_order_that_was_not_done_is_asked_anew(door: Door) -> None:
    from ha_controller.core.effects import Answer

    key, body = {"Idempotency-Key": "k-2"}, {"reason": "x"}
    for code, statuses, orders in ((6, [503, 503], 2), (4, [409, 409], 1)):
        door.sources.ordered.clear()
        door.sources.answer = Answer(request=0, code=code, text="no")
        key = {"Idempotency-Key": f"k-{code}"}
        asked = [
            await door.ask("POST", "/api/v1/hosts/kvm-07/fence", role="admin", headers=key, json=body) for _ in range(2)
        ]
        assert ([status for status, _, _ in asked], len(door.sources.ordered)) == (statuses, orders)
        assert {answer["code"] for _, answer, _ in asked} == {code}


async def test_the_answer_to_an_order_of_before_is_kept_for_its_sender_only(door: Door) -> None:
    async def order(role: str, key: str) -> None:
        headers = {"Idempotency-Key": key}
        status, _, _ = await door.ask("POST", "/api/v1/pause", role=role, headers=headers, json={"reason": "x"})
        assert status == 200

    await order("admin", "drill-1")
    for number in range(KEPT_OF_EACH + 5):
        await order("operator", f"flood-{number}")
    ordered = len(door.sources.ordered)
    await order("admin", "drill-1")
    assert len(door.sources.ordered) == ordered, "somebody else's flood does not have it carried out twice"
    await order("operator", "flood-0")
    assert len(door.sources.ordered) == ordered + 1, "one's own does"


async def test_what_is_not_known_yet_is_not_missing_and_is_not_remembered(door: Door) -> None:
    door.sources.hosts_were_read = False
    key, body = {"Idempotency-Key": "early"}, {"reason": "x"}
    path = "/api/v1/hosts/kvm-07/confirm-off"
    status, answer, _ = await door.ask("POST", path, role="admin", headers=key, json=body)
    assert (status, "not read from OpenNebula yet" in answer["detail"]) == (503, True)
    door.sources.hosts_were_read = True
    assert (await door.ask("POST", path, role="admin", headers=key, json=body))[0] == 200


async def test_a_problem_that_is_told_again_keeps_nothing_of_the_requests() -> None:
    async def refuse() -> None:
        raise Problem(409, "no")

    repeats = Repeats(lambda: 0.0)
    depths = []
    for _ in range(4):
        with pytest.raises(Problem) as caught:
            await repeats.once("olga", "k", b"order", refuse)
        depths.append(len(list(traceback.walk_tb(caught.value.__traceback__))))
    assert depths[1:] == [depths[1]] * 3


# --- what goes wrong meanwhile ----------------------------------------------------------------------------------------


async def test_a_token_that_is_revoked_while_the_body_of_an_order_comes_orders_nothing(door: Door) -> None:
    sent = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"reason": '
        sent.set()
        while "token/admin" in door.sources.records:
            await anyio.sleep(0.01)
        yield b'"x"}'

    async with anyio.create_task_group() as group:

        async def fence() -> None:
            headers = {"Content-Type": "application/json"}
            found = await door.ask("POST", "/api/v1/hosts/kvm-07/fence", role="admin", headers=headers, data=body())
            assert found[0] == 401

        group.start_soon(fence)
        await sent.wait()
        assert (await door.ask("DELETE", "/api/v1/tokens/admin", local=True))[0] == 204
    assert door.sources.ordered == []


async def test_a_token_whose_revocation_is_not_on_record_is_of_no_use_and_can_be_revoked_again(door: Door) -> None:
    door.sources.disk_is_full = True
    status, answer, _ = await door.ask("DELETE", "/api/v1/tokens/viewer", role="admin")
    assert (status, "not on record" in answer["detail"]) == (503, True)
    assert (await door.ask("GET", "/api/v1/hosts", role="viewer"))[0] == 401
    door.sources.disk_is_full = False
    assert (await door.ask("DELETE", "/api/v1/tokens/viewer", role="admin"))[0] == 204
    assert "token/viewer" not in door.sources.records


async def test_a_token_in_the_place_of_its_name_is_not_written_down(door: Door) -> None:
    secret = door.tokens["admin"]
    assert (await door.ask("DELETE", f"/api/v1/tokens/{secret}", role="admin"))[0] == 404
    assert secret.removeprefix("hac_") not in str(door.sources.acts)
    assert "hac_..." in str(door.sources.acts)


async def test_a_password_in_the_place_of_a_user_is_not_written_down(door: Door) -> None:
    body = {"user": "my-secret-password", "password": "x"}
    assert (await door.ask("POST", LOGIN, json=body, headers={"X-HA-CSRF": "1"}))[0] == 401
    assert "my-secret-password" not in str(door.sources.acts)


async def test_lines_that_a_client_puts_before_those_of_a_proxy_are_not_the_proxys(tmp_path: Path) -> None:
    named = Proxies(addresses=frozenset({"127.0.0.1"}), roles={"ops": Role.OPERATOR})
    lines = [("X-Forwarded-User", "olga"), ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "192.0.2.9")]
    async with opened(tmp_path, proxies=named) as door:
        both = CIMultiDict([*lines, ("X-Forwarded-Groups", "ops"), ("X-Forwarded-Groups", "staff")])
        assert (await door.ask("GET", "/api/v1/hosts", headers=both))[0] == 401
        one = CIMultiDict([*lines, ("X-Forwarded-Groups", "ops"), ("X-HA-CSRF", "1")])
        assert (await door.ask("POST", "/api/v1/pause", headers=one, json={"reason": "x"}))[0] == 200
        assert door.sources.ordered[0].origin == "192.0.2.9, by proxy"


async def test_strangers_before_the_door_keep_nobody_from_the_machines_own_socket(door: Door) -> None:
    strangers = []
    try:
        for _ in range(CONNECTIONS_MAX + 20):
            strangers.append(await asyncio.open_connection("127.0.0.1", door.port))
        assert (await door.ask("GET", "/api/v1/status", local=True))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await door.ask("GET", "/api/v1/status", role="admin")
    finally:
        for _, writer in strangers:
            writer.close()
    with anyio.fail_after(20):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                if (await door.ask("GET", "/api/v1/status", role="admin"))[0] == 200:
                    return
            await anyio.sleep(0.1)


async def test_root_is_root_without_a_directory_service(monkeypatch: pytest.MonkeyPatch, door: Door) -> None:
    def hangs(_: int) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(pwd, "getpwuid", hangs)
    if os.geteuid() == 0:
        assert (await door.ask("POST", "/api/v1/pause", local=True, json={"reason": "x"}))[0] == 200
    assert await LocalPeers()._name(0) == "root"


async def test_a_browser_that_closes_its_tab_before_the_answer_is_no_error(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def doctor() -> list[object]:
        asked.set()
        await left.wait()
        answered.set()
        return []

    left = asyncio.Event()
    door.sources.doctor = doctor  # type: ignore[method-assign]
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(
        f"GET /api/v1/doctor HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.tokens['viewer']}\r\n\r\n".encode()
    )
    await asyncio.wait_for(asked.wait(), 10)
    writer.transport.abort()
    await asyncio.wait_for(reader.read(), 10) if not reader.at_eof() else None
    await door.ask("GET", "/livez")  # the server's loop has seen by then that the other end is gone
    left.set()
    await asyncio.wait_for(answered.wait(), 10)
    await door.ask("GET", "/livez")
    assert [each.getMessage() for each in caplog.records if each.name == "aiohttp.server"] == []


async def test_what_ends_an_incident_may_name_it(door: Door) -> None:
    for path in ("confirm-off", "unfence"):
        body = {"reason": "I pulled its power cords", "incident": 12}
        assert (await door.ask("POST", f"/api/v1/hosts/7/{path}", role="admin", json=body))[0] == 200
        assert (door.sources.ordered[-1].host, door.sources.ordered[-1].incident) == (7, 12)
    assert (await door.ask("POST", "/api/v1/hosts/7/hold", role="admin", json={"incident": 12}))[0] == 400
