"""Makes the pictures of the documentation, after `make demo`: python -m tests.support.pictures RUN STORE FOLDER

RUN is a comparison, e.g. runs/demo, and STORE what it was trained on. The store is copied first: looking at a list is
recorded as an exposure.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page

from recommend_service.api import make_app
from recommend_service.config import RecommendConfig
from recommend_service.service import Recommender
from tests.support.browser import PHONE, running_browser, visit
from tests.support.live_service import live

PERSON = "applicant-002"
ROOT = Path(__file__).parents[2]


def pages(browser: Browser, url: str, out: Path) -> None:
    """The pages of applicant and counsellor, and the API's documentation."""
    own = visit(browser, f"{url}/?applicant={PERSON}").page
    own.wait_for_selector("#list h3")
    own.get_by_role("button", name="Save:").nth(1).click()
    own.wait_for_selector("#saved:not([hidden])")
    own.locator("details.numbers summary").first.click()
    own.evaluate("scrollTo(0, 0)")
    own.screenshot(path=out / "page.png")
    counsellor = visit(browser, f"{url}/operator?applicant={PERSON}", height=1400).page
    counsellor.wait_for_selector("#curve svg")
    counsellor.evaluate("scrollTo(0, 0)")
    counsellor.screenshot(path=out / "operator.png")
    api = visit(browser, f"{url}/docs").page
    api.screenshot(path=out / "api.png")


def files(browser: Browser, run: Path, out: Path) -> None:
    """The report, and the documentation's site."""
    visit(browser, (run / "report.html").resolve().as_uri(), height=1100).page.screenshot(path=out / "report.png")
    dark: Page = visit(browser, (run / "report.html").resolve().as_uri(), width=PHONE, height=1400, scheme="dark").page
    dark.screenshot(path=out / "report-phone.png")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
        subprocess.run(command, cwd=ROOT, check=True)
        visit(browser, (Path(folder) / "start.html").as_uri()).page.screenshot(path=out / "site.png")


def main(run: str, store: str, out: str) -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as folder, running_browser() as browser:
        copied = shutil.copytree(store, Path(folder) / "store")
        settings = RecommendConfig(store=str(copied), run=run)
        with live(make_app(Recommender(settings))) as url:
            pages(browser, url, Path(out))
        files(browser, Path(run), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
