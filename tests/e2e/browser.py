"""A real browser at the review desk: signs officers in, looks at pages, and has each page checked for accessibility (axe-core)."""

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from axe_playwright_python.async_playwright import Axe
from e2e.people import World
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

from support import PATIENCE

CHROMIUM = "/usr/bin/chromium"
MISSING = "the review desk is tested in a real browser: apt-get install chromium fonts-wqy-microhei"
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_SIZE = ViewportSize(width=1366, height=768)
PICTURES = os.environ.get("DESK_PICTURES")
"""A directory for pictures of the pages (docs/desk); none are taken without it."""
_SERIOUS = ("serious", "critical")


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Chromium of the system. Fails with what to install when there is none."""
    assert shutil.which(CHROMIUM), MISSING
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


async def hire(world: World, sub: str, name: str, slugs: Sequence[str], roles: Sequence[str]) -> None:
    """Somebody has these departments and roles from now on, whoever is signed in."""
    body = {"name": name, "departments": [world.department(s).code for s in slugs], "roles": list(roles)}
    (await world.ask("PUT", world.url("sandbox", f"/oidc/sandbox/officers/{sub}"), json=body)).ok()


class Desk:
    """One officer's browser window."""

    def __init__(self, world: World, context: BrowserContext, page: Page) -> None:
        self.world, self.context, self.page = world, context, page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: self._inside(asked.url))

    def _inside(self, url: str) -> None:
        services = (self.world.endpoints.services["dept-adapter"], self.world.endpoints.sandbox)
        inside = (*services, "chrome:", "chrome-extension:")  # the browser's own PDF viewer
        if not url.startswith(inside):
            self.problems.append(f"loaded from outside: {url}")

    async def open(self, path: str) -> None:
        """Go to a page of the desk."""
        await self.page.goto(self.world.url("dept-adapter", path))

    async def keys(self, *keys: str) -> None:
        """Press keys, one after another."""
        for key in keys:
            await self.page.keyboard.press(key)

    async def does(self, key: str) -> None:
        """Open a form by its letter and send it from where the focus is; wait for the next page."""
        async with self.page.expect_navigation(url="**do=*"):
            await self.keys(key)
        # a browser sets the focus when it draws the page, which may be after it has loaded
        await self.page.wait_for_function("document.activeElement.form")
        async with self.page.expect_navigation():
            await self.keys("Enter")

    async def text(self) -> str:
        """What the page says."""
        return await self.page.locator("body").inner_text()

    async def look(self, name: str, *, whole: bool = False) -> None:
        """The page has no serious finding of axe-core, fits the window's width, and is pictured."""
        found = (await Axe().run(self.page)).response["violations"]
        grave = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in _SERIOUS]
        assert grave == [], f"{name}: {grave}"
        wide = await self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= _SIZE["width"], f"{name} is {wide} px wide"
        if PICTURES:
            await self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=whole)


@asynccontextmanager
async def signed_in(world: World, browser: Browser, sub: str, then: str = "/desk") -> AsyncIterator[Desk]:
    """An officer's window, signed in through the issuer's page."""
    context = await browser.new_context(viewport=_SIZE, locale="zh-CN", timezone_id="Asia/Shanghai")
    context.set_default_timeout(30_000 * PATIENCE)
    try:
        desk = Desk(world, context, await context.new_page())
        await desk.open(then)
        await desk.page.click(f'button[value="{sub}"]')
        await desk.page.wait_for_selector(".js .top .who")  # the script is at work
        yield desk
        assert desk.problems == [], desk.problems
    finally:
        await context.close()
