"""The page in a real browser: what a person does with mouse, keyboard, phone and screen reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from dynaq.feedback.events import events
from dynaq.stores import open_store
from recommend_service.api import make_app
from recommend_service.keys import Keys
from recommend_service.service import Recommender
from tests.support.browser import PHONE, visit
from tests.support.embedders import HashEmbedder
from tests.support.live_service import live
from tests.support.recommend_market import config, make_job, make_market, make_run, prefers

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Site:
    url: str
    store: str
    run: Path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    make_run(tmp_path / "run", {"a0": prefers(20, 7, 11)})
    settings = config(make_market(str(tmp_path / "store")), tmp_path / "run")
    with live(make_app(Recommender(settings, HashEmbedder()))) as url:
        yield Site(url, settings.store, tmp_path / "run")


def titles(page: Page) -> list[str]:
    return page.locator("#list h3").all_text_contents()


def test_a_link_to_a_person_shows_their_list(browser: Browser, site: Site) -> None:
    page = visit(browser, f"{site.url}/?applicant=a0").page
    expect(page.locator("#list h3").first).to_have_text("Job <b>20</b>")
    expect(page.get_by_label("Applicant")).to_have_value("a0")


def ask(page: Page, applicant: str) -> None:
    page.get_by_label("Applicant").fill(applicant)
    page.get_by_role("button", name="Show jobs").click()
    expect(page.locator("#list > li")).to_have_count(10)


def test_a_person_looks_wishes_answers_and_sees_the_list_change_after_retraining(browser: Browser, site: Site) -> None:
    seen = visit(browser, site.url)
    page = seen.page
    options = page.locator("#applicants option")
    expect(options).to_have_count(5)
    assert options.first.get_attribute("label") == "a0: I am number 0."
    ask(page, "a0")
    assert titles(page)[:3] == ["Job <b>20</b>", "Job <b>7</b>", "Job <b>11</b>"]  # as text, not as markup
    reasons = page.locator("#list > li").nth(1).locator(".reasons")
    expect(reasons).to_contain_text("You both name: Skill 7, cooking")
    expect(reasons).to_contain_text("Your agent's value: 99.00")
    page.get_by_label("What would you like?").fill(make_job(17).description)
    page.get_by_role("button", name="Show jobs").click()
    expect(page.locator("#list h3").first).to_have_text("Job <b>17</b>")
    expect(page.locator("#list .reasons").first).to_contain_text("Like what you asked for: 100 %")
    page.get_by_label("What would you like?").fill("")
    page.get_by_role("button", name="Show jobs").click()
    page.get_by_role("button", name="Apply: Job <b>20</b>").click()
    expect(page.locator("#list h3").first).to_have_text("Job <b>7</b>")
    page.get_by_role("button", name="Not for me: Job <b>7</b>").click()
    expect(page.locator("#list h3").first).to_have_text("Job <b>11</b>")
    page.get_by_role("button", name="Save: Job <b>11</b>").click()
    expect(page.locator("#list > li").first).to_contain_text("You saved this.")
    with open_store(site.store, read_only=True) as store:
        kept = [(e.applicant_id, e.job_id, e.event, e.source) for e in events(store.feedback())]
    assert kept == [("a0", "j20", "apply", "page"), ("a0", "j07", "ignore", "page"), ("a0", "j11", "save", "page")]
    make_run(site.run, {"a0": prefers(8, 9)})
    expect(page.get_by_role("status")).to_contain_text("Your agent has learned", timeout=15_000)
    assert titles(page)[:2] == ["Job <b>8</b>", "Job <b>9</b>"]
    assert seen.errors == []
    assert all(address.startswith(site.url) for address in seen.requests)


def test_everything_is_done_with_the_keyboard_alone(browser: Browser, site: Site) -> None:
    page = visit(browser, site.url).page
    expect(page.locator("#applicants option")).to_have_count(5)

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.className"))

    order = []
    for _ in range(3):
        page.keyboard.press("Tab")
        order.append(focused())
    assert order == ["skip", "applicant", "preference"]
    page.get_by_label("Applicant").focus()
    page.keyboard.type("a0")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("10 jobs for a0.")
    page.get_by_role("button", name="Show jobs").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Apply: Job <b>20</b>"
    page.keyboard.press("Enter")
    # The button is gone: a screen reader hears what happened, and the focus moves to the heading.
    expect(page.get_by_role("status")).to_have_text("Applied to Job <b>20</b>. 10 jobs for a0.")
    assert focused() == "list-heading"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Apply: Job <b>7</b>"


def test_a_screen_reader_finds_names_and_structure(browser: Browser, site: Site) -> None:
    page = visit(browser, site.url).page
    ask(page, "a3")
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs for you")
    expect(page.get_by_role("article")).to_have_count(10)
    first = titles(page)[0]
    expect(page.get_by_role("article", name=first)).to_have_count(1)
    expect(page.get_by_text("No agent has been trained")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_sticks_out_and_axe_finds_nothing(browser: Browser, site: Site, scheme: str) -> None:
    seen = visit(browser, site.url, width=PHONE, scheme=scheme)  # type: ignore[arg-type]
    ask(seen.page, "a0")
    assert seen.overflow == 0
    heights = seen.page.evaluate(
        "[...document.querySelectorAll('button,input')].filter(e => e.offsetParent).map(e => e.offsetHeight)"
    )
    assert min(heights) >= 44  # CSS pixels that a finger needs (WCAG 2.5.5)
    assert violations(seen.page) == []


def violations(page: Page) -> list[str]:
    """What axe-core finds of WCAG: contrast, names, roles, structure."""
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]


def test_the_documentation_is_accessible_too(browser: Browser, site: Site) -> None:
    seen = visit(browser, f"{site.url}/docs", width=PHONE)
    assert violations(seen.page) == []
    assert (seen.overflow, seen.errors) == (0, [])


def test_what_goes_wrong_is_said(browser: Browser, site: Site) -> None:
    page = visit(browser, site.url).page
    page.get_by_label("Applicant").fill("nobody")
    page.get_by_role("button", name="Show jobs").click()
    expect(page.get_by_role("alert")).to_contain_text("applicant 'nobody' is not in the store")
    assert titles(page) == []


def test_with_a_key_the_page_takes_the_persons_own_token_and_not_the_key(browser: Browser, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"a0": prefers(20)})
    settings = config(make_market(str(tmp_path / "store")), tmp_path / "run", api_key="sesame")
    token, _ = Keys("sesame").issue("a0", 5)
    with live(make_app(Recommender(settings, HashEmbedder()))) as url:
        page = visit(browser, url).page
        expect(page.get_by_label("Access token")).to_be_focused()
        page.keyboard.type("sesame")
        page.keyboard.press("Tab")
        expect(page.get_by_role("alert")).to_contain_text("never the service's key")
        page.get_by_label("Access token").fill(token)
        page.keyboard.press("Tab")
        expect(page.locator("#list > li")).to_have_count(10)
        assert titles(page)[0] == "Job <b>20</b>"
        expect(page.get_by_label("Applicant")).to_be_hidden()
        expect(page.locator("#failure")).to_be_empty()
        linked = visit(browser, f"{url}/#token={token}").page
        expect(linked.get_by_role("status")).to_have_text("10 jobs for a0.")
        assert token not in linked.url
        linked.get_by_text("Who decided what is on this list").click()
        expect(linked.locator("#parts")).to_contain_text("A model: learned by the applicant's own agent")
        assert violations(linked) == []
