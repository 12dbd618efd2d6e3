"""A real browser for tests: the machine's Chromium, headless, which can reach files and loopback and nothing else.

Playwright's blocking interface leaves its event loop running on the thread that uses it, and `asyncio.run` fails there
from then on. So Playwright lives on a thread of its own here, and tests call it from wherever they are.
"""

import asyncio
import ipaddress
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Route, async_playwright

T = TypeVar("T")

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
SWITCHES: Final = (
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container's is too small
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
WAIT_MS: Final = 60_000
"""Longest wait for a page to come to what a test expects: for a loaded machine, and reached by failures only."""
LOCAL_SCHEMES: Final = frozenset({"file", "data", "blob", "about"})


class BrowserUnavailableError(Exception):
    """There is no Chromium here, or it does not start."""


@dataclass(slots=True)
class Tab:
    """One page in a browser profile of its own.

    Attributes:
        errors: What the page has complained of: errors on its console, exceptions that nobody caught.
        refused: Addresses that it asked for and did not get, as they are beyond this machine.
    """

    page: Page
    _loop: asyncio.AbstractEventLoop
    errors: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])

    def run(self, act: Callable[[Page], Coroutine[Any, Any, T]]) -> T:
        """Have Playwright do something with the page: `tab.run(lambda page: page.get_by_text("x").click())`."""
        return asyncio.run_coroutine_threadsafe(act(self.page), self._loop).result()

    def open(self, address: str | Path) -> None:
        """Go to a URL or a file, and wait until it is loaded."""
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        self.run(lambda page: page.goto(url))

    def text(self, selector: str = "body") -> str:
        """The visible text of the first element that fits; waits for one."""
        return self.run(lambda page: page.locator(selector).first.inner_text())

    def texts(self, selector: str) -> list[str]:
        """The visible texts of all elements that fit now."""
        return self.run(lambda page: page.locator(selector).all_inner_texts())

    def click(self, selector: str) -> None:
        """Click the first element that fits; waits for one."""
        self.run(lambda page: page.locator(selector).first.click())

    def fill(self, selector: str, value: str) -> None:
        """Type into a field."""
        self.run(lambda page: page.locator(selector).first.fill(value))

    def evaluate(self, script: str) -> Any:
        """What a JavaScript expression comes to in the page."""
        return self.run(lambda page: page.evaluate(script))

    def wait_until(self, script: str) -> None:
        """Wait until a JavaScript expression is true in the page."""
        self.run(lambda page: page.wait_for_function(script))

    def screenshot(self, path: Path, *, dark: bool = False, width: int = 1280) -> None:
        """Take a picture of the whole page."""

        async def take(page: Page) -> None:
            await page.set_viewport_size({"width": width, "height": 900})
            await page.emulate_media(color_scheme="dark" if dark else "light")
            await page.screenshot(path=path, full_page=True)

        self.run(take)


class Chromium:
    """A browser that is running. Make it with `chromium`."""

    def __init__(self, browser: Browser, loop: asyncio.AbstractEventLoop) -> None:
        self._browser = browser
        self._loop = loop

    @contextmanager
    def tab(self) -> Generator[Tab, None, None]:
        """A fresh page, closed at the end of the block."""
        tab = asyncio.run_coroutine_threadsafe(self._new_tab(), self._loop).result()
        try:
            yield tab
        finally:
            tab.run(lambda page: page.context.close())

    async def _new_tab(self) -> Tab:
        context = await self._browser.new_context(service_workers="block", locale="en-GB")
        context.set_default_timeout(WAIT_MS)
        tab = Tab(await context.new_page(), self._loop)

        async def route(asked: Route) -> None:
            if _is_local(asked.request.url):
                await asked.continue_()
            else:
                tab.refused.append(asked.request.url)
                await asked.abort()

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                tab.errors.append(message.text)

        def on_page_error(error: Error) -> None:
            tab.errors.append(str(error))

        await context.route("**/*", route)
        tab.page.on("console", on_console)
        tab.page.on("pageerror", on_page_error)
        return tab


@contextmanager
def chromium() -> Generator[Chromium, None, None]:
    """The machine's Chromium, running inside the block.

    Raises:
        BrowserUnavailableError: There is none, or it does not start.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise BrowserUnavailableError(f"none of {', '.join(PROGRAMS)} is installed")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="browser")
    thread.start()
    try:
        running = _running(program)
        try:
            browser = asyncio.run_coroutine_threadsafe(anext(running), loop).result()
        except Error as error:
            raise BrowserUnavailableError(f"{program} does not start: {error}") from error
        try:
            yield Chromium(browser, loop)
        finally:
            asyncio.run_coroutine_threadsafe(running.aclose(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _running(program: str) -> AsyncGenerator[Browser, None]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=SWITCHES)
        try:
            yield browser
        finally:
            await browser.close()


def _is_local(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme in LOCAL_SCHEMES:
        return True
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
