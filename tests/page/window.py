"""A window of the browser, with everything that it complains about: a page that complains has failed its test."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, Literal

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, expect

from tests.page.site import ADMIN

Scheme = Literal["light", "dark"]
DESK = (1316, 907)
PHONE = (390, 844)
LIVE_WITHIN_S = 60.0  #: on a busy machine
#: what a host goes through takes seconds; a minute on a busy machine
STATE_WITHIN_S = 90.0
_TELL_VIOLATIONS = """
addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI, sourceFile, lineNumber }) =>
  complain(`policy: ${violatedDirective} forbids ${blockedURI || 'inline'} (${sourceFile}:${lineNumber})`));
addEventListener('unhandledrejection', (event) => complain(`not handled: ${event.reason}`));
"""
_FOLLOW_STATES = """(host) => {
  const seen = (window.statesSeen ??= {})[host] = [];
  const look = () => {
    for (const { dataset } of document.querySelectorAll('[data-host][data-state]'))
      if (dataset.host === host && seen.at(-1) !== dataset.state) seen.push(dataset.state);
  };
  look();
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""
_GRAVE = ("serious", "critical")
#: what takes long to find out may be refused for now on a busy machine; the page asks again
NOT_NOW = r"status of 50[34] .*/api/v1/(simulate/capacity|doctor):"


class Window:
    """One tab, and what it complained about."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        self._expected: list[str] = [NOT_NOW]
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            where = message.location
            self.complaints.append(f"{message.type}: {message.text} ({where.get('url')}:{where.get('lineNumber')})")

    def expects(self, *patterns: str) -> None:
        """A browser itself complains about every refused request; these are meant to be refused."""
        self._expected += patterns

    def unexpected(self) -> list[str]:
        """What it complained about and nobody meant it to."""
        return [each for each in self.complaints if not any(re.search(known, each) for known in self._expected)]

    # --- what is on the page ---

    def region(self, name: str) -> Locator:
        """A part of the page, by the name that a screen reader says."""
        return self.page.get_by_label(name, exact=True)

    def tile(self, host: str) -> Locator:
        """The button of a host."""
        value = host.replace("\\", "\\\\").replace('"', '\\"')
        return self.page.locator(f'button[data-host="{value}"]')

    def button(self, name: str) -> Locator:
        """A button that can be seen."""
        return self.page.get_by_role("button", name=name, exact=True)

    def item(self, region: str, text: str) -> Locator:
        """An entry of a list in a part of the page."""
        return self.region(region).get_by_role("listitem").filter(has_text=text)

    def dialog(self) -> Locator:
        """The open dialog."""
        return self.page.locator("dialog[open]")

    async def is_live(self) -> None:
        """Wait until the stream is open."""
        await expect(self.page.get_by_text("live", exact=True)).to_be_visible(timeout=1000 * LIVE_WITHIN_S)

    async def is_asked(self, host: str) -> None:
        """Wait until somebody must say yes or no about a host."""
        approve = self.item("Waiting for you", host).get_by_role("button", name="Approve")
        await expect(approve).to_be_visible(timeout=1000 * STATE_WITHIN_S)

    async def logs_in(self, user: tuple[str, str]) -> None:
        """Fill in the form and send it."""
        await self.page.get_by_label("User", exact=True).fill(user[0])
        await self.page.get_by_label("Password", exact=True).fill(user[1])
        await self.button("Log in").click()

    async def becomes(self, host: str, state: str, within_s: float = STATE_WITHIN_S) -> None:
        """Wait until a host's tile says so."""
        await expect(self.tile(host)).to_have_attribute("data-state", state, timeout=1000 * within_s)

    async def follows(self, host: str) -> None:
        """Note every state that the tile of a host goes through."""
        await self.page.evaluate(_FOLLOW_STATES, host)

    async def states_of(self, host: str) -> list[str]:
        """What was noted."""
        found: list[str] = await self.page.evaluate("(host) => window.statesSeen[host]", host)
        return found

    async def barriers(self) -> list[str]:
        """What axe-core finds that keeps people out, one line each; only what is serious or critical."""
        if not await self.page.evaluate("() => 'axe' in window"):
            script = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
            await self.page.evaluate(script)
        found: list[dict[str, Any]] = await self.page.evaluate(
            "async () => (await axe.run(document, { resultTypes: ['violations'] })).violations"
        )
        return [
            f"{each['impact']}: {each['id']}: {each['help']}: {node['html'][:200]} {node['failureSummary']}"
            for each in found
            if each["impact"] in _GRAVE
            for node in each["nodes"][:5]
        ]


@asynccontextmanager
async def window(
    browser: Browser,
    url: str,
    *,
    user: tuple[str, str] | None = ADMIN,
    path: str = "/",
    scheme: Scheme = "light",
    size: tuple[int, int] = DESK,
) -> AsyncIterator[Window]:
    """Open the page, and log in unless `user` is None. Fails at the end if there were complaints."""
    context = await browser.new_context(
        color_scheme=scheme, viewport={"width": size[0], "height": size[1]}, base_url=url, reduced_motion="reduce"
    )
    try:
        opened = Window(await context.new_page(), url)
        await context.expose_binding("complain", lambda _, text: opened.complaints.append(str(text)))
        await context.add_init_script(_TELL_VIOLATIONS)
        await opened.page.goto(path)
        if user is not None:
            await opened.logs_in(user)
            await opened.is_live()
        yield opened
        assert opened.unexpected() == [], "\n".join(opened.unexpected())
    finally:
        await context.close()
