"""The page's files as they are served, and what stands in them. tests/page tries it in a browser."""

from __future__ import annotations

import re
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from flit_core import buildapi

from ha_controller.adapters.http_api import page
from tests.app.api_door import Door, Json, opened

ROOT = Path(__file__).parents[2]
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
OURS = sorted(path for path in page.FOLDER.iterdir() if path.suffix == ".js" and path.name != "vendor.js")
COUNTS = {"total": 2, "ok": 2, "suspect": 0, "failed": 0, "fenced": 0, "recovered": 0}
STATUS = {
    "verdict": "All hosts are well.\x1b[2J", "mode": "auto", "leader": "", "term": 3, "oned_age_s": 0.4,
    "hosts": COUNTS, "excluded": 0, "settling_s": 0.0, "paused_until": None,
}  # fmt: skip


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(tmp_path) as door:

        def status() -> Json:
            return STATUS

        door.sources.status = status  # type: ignore[method-assign]
        yield door


async def test_every_file_is_served_to_everybody_with_a_policy_that_allows_nothing_else(door: Door):
    assert {"index.html", "page.js", "page.css", "vendor.js", "icon.svg", "vendor-licences.txt"} <= set(page.files())
    for path in ("/", *(f"/page/{name}" for name in page.files())):
        status, body, headers = await door.ask("GET", path, headers=BROWSER)
        assert (status, headers["Content-Security-Policy"]) == (200, page.POLICY), path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Type"].endswith("; charset=utf-8")
        assert body
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
        assert part in page.POLICY
    assert "unsafe" not in page.POLICY


async def test_a_browser_gets_a_file_once_and_sees_a_new_version_at_once(door: Door):
    status, _, headers = await door.ask("GET", "/page/page.js")
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert headers["Content-Type"].startswith("text/javascript")
    again = {"If-None-Match": headers["ETag"]}
    assert (await door.ask("GET", "/page/page.js", headers=again))[:2] == (304, b"")
    assert (await door.ask("GET", "/page/page.js", headers={"If-None-Match": '"other"'}))[0] == 200
    assert (await door.ask("HEAD", "/page/page.js"))[:2] == (200, b"")
    assert (await door.ask("POST", "/page/page.js"))[0] == 405


async def test_a_terminal_gets_the_text_of_status_if_it_may_look(door: Door):
    for accept in ("*/*", "text/plain"):
        assert (await door.ask("GET", "/", headers={"Accept": accept}))[0] == 401
        status, body, headers = await door.ask("GET", "/", role="viewer", headers={"Accept": accept})
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert headers["Content-Type"].startswith("text/plain")
        text = body.decode()
        assert text.startswith("All hosts are well.")
        assert "\x1b" not in text
        assert "mode auto     leads, term 3" in text
        assert (await door.ask("GET", "/", local=True))[:2] == (200, body)


async def test_nothing_beside_the_page_is_served(door: Door):
    paths = (
        "/page/..%2f__init__.py", "/page/../page/__init__.py", "/page/%2e%2e/server.py", "/page/vendor-entry.js",
        "/page/", "/page/..", "/page/page.js%00", "/page/%2fetc%2fpasswd", "/page//etc/passwd", "/page/page.js/",
    )  # fmt: skip
    async with aiohttp.ClientSession() as session:
        for path in paths:
            url = aiohttp.client.URL(f"http://127.0.0.1:{door.port}{path}", encoded=True)
            async with session.get(url) as response:
                assert response.status == 404, path
                assert "def " not in await response.text()


async def test_a_browser_that_ssh_leads_to_the_local_socket_serves_no_other_site(door: Door):
    for headers in (
        {"Host": "evil.example:9931"},  # its name stands for this address now
        {"Host": "evil.example"},
        {"Host": "10.1.2.3:9931"},
    ):
        assert (await door.ask("GET", "/api/v1/hosts", local=True, headers=headers))[0] == 403, headers
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        given = {"Host": "localhost:9931", **headers}
        assert (await door.ask("POST", "/api/v1/resume", local=True, headers=given))[0] == 403, headers
    assert door.sources.ordered == []
    for host in ("localhost:9931", "127.0.0.1:9931", "[::1]:9931", "ha", "controller", "ha.localhost"):
        own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert (await door.ask("POST", "/api/v1/resume", local=True, headers=own))[0] == 200, host


def test_the_page_makes_markup_of_no_text_and_loads_nothing_from_elsewhere():
    """Names of VMs and hosts are their owners'."""
    for path in OURS:
        text = path.read_text()
        assert text.count("\n") <= 400, path.name
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|dangerouslySet|\beval\(|new Function", text
        )
        assert found == [], path.name
        for named in re.findall(r'from "([^"]+)"', text):
            assert named.startswith("./") and named[2:] in page.files(), (path.name, named)
    index = (page.FOLDER / "index.html").read_text()
    assert re.findall(r'(?:src|href)="(?!/page/)', index) == []
    assert re.findall(r"<style|<script>|\son\w+=|style=", index) == []
    assert re.findall(r"\beval\(|new Function\(", (page.FOLDER / "vendor.js").read_text()) == []
    assert re.findall(r"url\(|@import", (page.FOLDER / "page.css").read_text()) == []


def test_every_licence_of_the_file_of_others_is_beside_it():
    first = (page.FOLDER / "vendor.js").read_text().split("\n", 1)[0]
    licences = (page.FOLDER / "vendor-licences.txt").read_text()
    readme = (page.FOLDER.parent / "vendor.md").read_text()
    listed = re.findall(r"^== (\S+) (\S+)$", licences, re.M)
    assert [name for name, _ in listed] == ["preact", "@preact/signals", "@preact/signals-core", "htm"]
    for name, version in listed:
        assert f"{name} {version}".lower() in first.lower()
        assert f"{name} {version}".lower() in readme.lower()


def test_the_wheel_has_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    wheel = zipfile.ZipFile(tmp_path / buildapi.build_wheel(str(tmp_path)))
    packed = {name.rpartition("/")[2] for name in wheel.namelist() if "/http_api/page/files/" in name}
    assert packed == {path.name for path in page.FOLDER.iterdir()}


async def test_the_page_asks_for_the_newest_incidents_alone(door: Door):
    async def incidents(newest: int | None = None) -> list[str]:
        return [f'{{"id": {number}}}' for number in (3, 2, 1)[:newest]]

    door.sources.incidents = incidents  # type: ignore[method-assign]
    for query, ids in (("", [3, 2, 1]), ("?limit=2", [3, 2])):
        status, found, _ = await door.ask("GET", f"/api/v1/incidents{query}", role="viewer")
        assert (status, [each["id"] for each in found]) == (200, ids)
    assert (await door.ask("GET", "/api/v1/incidents?limit=0", role="viewer"))[0] == 400
