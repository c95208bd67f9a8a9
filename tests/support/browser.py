"""A real browser for the tests: the system's Chromium, headless, driven by Playwright.

`browser` in conftest.py starts one; a test opens pages in it with `visit`. Playwright's own browser download is not
used: a system package gets security updates, and `make test` installs it where it may.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no Chromium on this machine; install one (Debian: apt-get install chromium) to run the browser tests"

PHONE = 360  # CSS pixels; the narrowest phone in wide use
DESKTOP = 1280
WIDE = 1920


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A headless Chromium; skips the test when the machine has none."""
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that was opened.

    Args:
        page: Playwright's page.
        errors: what went wrong in it so far: console errors, exceptions, requests that failed or were refused.
        requests: every address that it asked for, the first is its own.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def overflow(self) -> int:
        """CSS pixels by which the page is wider than its window: more than 0 means scrolling sideways."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wider


def visit(
    browser: Browser,
    url: str,
    *,
    width: int = DESKTOP,
    height: int = 900,
    scheme: Literal["light", "dark"] = "light",
) -> Visit:
    """Open an address (http, https or file) in a fresh context: no cookies, no cache of other tests."""
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    seen = Visit(page)
    page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("requestfailed", lambda request: seen.errors.append(f"{request.url}: {request.failure}"))
    page.goto(url)
    return seen


def keep_picture(page: Page, name: str, otherwise: Path) -> None:
    """Keep a picture of the whole page in $DYNAQ_PICTURES, or in the folder `otherwise`."""
    folder = Path(os.environ.get("DYNAQ_PICTURES") or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
