"""The browser that other tests look through sees what it should."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from tests.support.browser import PHONE, visit


def test_a_page_without_faults_has_none(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "good.html"
    page.write_text("<!doctype html><meta name=viewport content='width=device-width'><h1>Jobs</h1>")
    seen = visit(browser, page.as_uri(), width=PHONE)
    assert seen.page.inner_text("h1") == "Jobs"
    assert (seen.errors, seen.overflow, seen.requests) == ([], 0, [page.as_uri()])


def test_scripts_that_fail_and_pages_too_wide_are_noticed(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><div style='width: 500px'>wide</div><script>console.error('broken'); oops()</script>"
    )
    seen = visit(browser, page.as_uri(), width=PHONE)
    assert seen.overflow == 500 + 8 - PHONE  # 8 px: the body's own margin
    assert seen.errors[0] == "broken"
    assert "oops is not defined" in seen.errors[1]
