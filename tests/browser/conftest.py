"""Headless Chromium for the tests of the HTML report and of the site, driven through its DevTools protocol by Playwright.

Debian's package is used: `apt-get install chromium` (`make test` does that where it can). A missing browser fails.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail("Chromium is missing: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


def is_allowed(url: str, allowed: tuple[str, ...]) -> bool:
    """Whether an address is one of these files, or lies in one of these folders."""
    plain = url.partition("#")[0]
    return any(plain == each or (each.endswith("/") and plain.startswith(each)) for each in allowed)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a file; at the end of the test nothing may have been said on the console and nothing asked of the network."""
    complaints: list[str] = []
    pages: list[Page] = []

    def open_file(
        path: Path, *, width: int = 1280, scheme: str = "light", scripts: bool = True, within: Path | None = None,
        fragment: str = "",
    ) -> Page:  # fmt: skip
        """`within`: a folder whose files the page may load, too."""
        allowed = (path.as_uri(), *([f"{within.as_uri()}/"] if within else []))
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        page = context.new_page()
        page.set_default_timeout(10_000)  # milliseconds
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "request", lambda request: is_allowed(request.url, allowed) or complaints.append(f"request: {request.url}")
        )
        page.goto(path.as_uri() + fragment)
        pages.append(page)
        return page

    yield open_file
    for page in pages:
        page.context.close()
    assert complaints == []
