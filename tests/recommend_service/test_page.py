"""The pages in a real browser: what a person does with mouse, keyboard, phone and screen reader.

Pictures of each are kept in $DYNAQ_PICTURES, else beside the test's other files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from dynaq.feedback.events import Exposure, events
from dynaq.runs.folder import METRICS, RunFolder
from dynaq.stores import open_store
from recommend_service.api import make_app
from recommend_service.keys import Keys
from recommend_service.service import Recommender
from tests.support.browser import PHONE, WIDE, keep_picture, visit
from tests.support.embedders import HashEmbedder
from tests.support.live_service import live
from tests.support.recommend_market import config, make_job, make_market, make_run, prefers

pytestmark = pytest.mark.slow


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    """The file's browser, without pages, cookies and cache of other tests."""
    yield shared_browser
    for context in shared_browser.contexts:
        context.close()


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


def ask(page: Page, applicant: str) -> None:
    page.get_by_label("Applicant", exact=True).fill(applicant)
    page.get_by_role("button", name="Show jobs").click()
    expect(page.locator("#list > li:not(.skeleton)")).to_have_count(10)


def card(page: Page, title: str) -> Locator:
    return page.get_by_role("article", name=title, exact=True)


def violations(page: Page) -> list[str]:
    """What axe-core finds of WCAG: contrast, names, roles, structure."""
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]


def test_a_link_to_a_person_shows_their_list(browser: Browser, site: Site) -> None:
    page = visit(browser, f"{site.url}/?applicant=a0").page
    expect(page.locator("#list h3").first).to_have_text("Job <b>20</b>")
    expect(page.get_by_label("Applicant", exact=True)).to_have_value("a0")


def test_a_person_looks_wishes_answers_and_sees_the_list_change_after_retraining(browser: Browser, site: Site) -> None:
    seen = visit(browser, site.url)
    page = seen.page
    options = page.locator("#applicants option")
    expect(options).to_have_count(5)
    assert options.first.get_attribute("label") == "a0: I am number 0."
    ask(page, "a0")
    assert titles(page)[:3] == ["Job <b>20</b>", "Job <b>7</b>", "Job <b>11</b>"]  # as text, not as markup
    expect(card(page, "Job <b>7</b>").locator(".reasons")).to_contain_text(
        "Asks for Skill 7 and cooking, which you name."
    )
    page.get_by_label("What would you like?").fill(make_job(17).description)
    page.get_by_role("button", name="Update").click()
    expect(page.locator("#list h3").first).to_have_text("Job <b>17</b>")
    expect(page.locator("#list .reasons").first).to_contain_text("Fits what you asked for.")
    page.get_by_label("What would you like?").fill("")
    page.get_by_role("button", name="Update").click()
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
    expect(page.get_by_role("status").first).to_contain_text("Your agent has learned", timeout=15_000)
    assert titles(page)[:2] == ["Job <b>8</b>", "Job <b>9</b>"]
    assert seen.errors == []
    assert all(address.startswith((site.url, "blob:")) for address in seen.requests)


def test_numbers_are_shown_only_on_request(browser: Browser, site: Site) -> None:
    page = visit(browser, f"{site.url}/?applicant=a0").page
    expect(page.locator("#list > li:not(.skeleton)")).to_have_count(10)
    number = card(page, "Job <b>7</b>").get_by_text("Your agent's value (Q): 99.00")
    expect(number).to_be_hidden()
    card(page, "Job <b>7</b>").get_by_text("Details").click()
    expect(number).to_be_visible()


def test_each_answer_can_be_undone(browser: Browser, site: Site, tmp_path: Path) -> None:
    page = visit(browser, f"{site.url}/?applicant=a0").page
    for label in ("Apply", "Not for me", "Save"):
        page.get_by_role("button", name=f"{label}: Job <b>20</b>").click()
        expect(page.get_by_role("button", name="Undo: Job <b>20</b>")).to_be_visible()
        if label == "Apply":
            keep_picture(page, "undo", tmp_path)
        page.get_by_role("button", name="Undo: Job <b>20</b>").click()
        expect(page.get_by_role("status").first).to_contain_text("Taken back: Job <b>20</b>.")
        expect(page.locator("#list h3").first).to_have_text("Job <b>20</b>")
        expect(page.get_by_role("button", name="Undo")).to_be_hidden()
        expect(page.locator("#list .mark")).to_have_count(0)


def test_saved_jobs_are_kept_in_sight_and_can_be_applied_to(browser: Browser, site: Site) -> None:
    page = visit(browser, f"{site.url}/?applicant=a0").page
    page.get_by_role("button", name="Save: Job <b>7</b>").click()
    saved = page.get_by_role("region", name="Saved and applied")
    expect(saved.get_by_role("listitem")).to_contain_text("Job <b>7</b>saved")
    saved.get_by_role("button", name="Apply: Job <b>7</b>").click()
    expect(saved.get_by_role("listitem")).to_contain_text("Job <b>7</b>applied")
    saved.get_by_role("button", name="Take back: Job <b>7</b>").click()
    expect(saved).to_be_hidden()


def test_a_person_sees_what_is_known_and_changes_it(browser: Browser, site: Site, tmp_path: Path) -> None:
    page = visit(browser, f"{site.url}/?applicant=a3").page
    known = page.get_by_role("region", name="What is known about you")
    expect(known).to_contain_text("I am number 3.")
    expect(known).to_contain_text("until an agent of your own has learned")
    known.get_by_role("button", name="Change it").click()
    expect(page.get_by_role("textbox", name="Skills one per line")).to_have_value("skill 10\nCooking")
    keep_picture(page, "change-profile", tmp_path)
    assert violations(page) == []
    page.get_by_role("textbox", name="Skills one per line").fill("Skill 4")
    page.get_by_label("What you did before").fill("Baker at Bergen Bread")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("status").first).to_contain_text("Your profile is changed.")
    expect(known).to_contain_text("Baker, Bergen Bread")
    with open_store(site.store, read_only=True) as store:
        (profile,) = store.records("candidate", ["a3"])
    assert profile.hard_skills == ("Skill 4",)


def test_what_changed_since_an_earlier_day_is_said(browser: Browser, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"a0": prefers(20, 7, 11)})
    uri = make_market(str(tmp_path / "store"))
    jobs = ("j29", "j20")
    with open_store(uri) as store:
        store.add_exposures([Exposure("a0", "old", datetime.now(UTC) - timedelta(days=1), jobs, (1.0, 1.0), "run-old")])
    with live(make_app(Recommender(config(uri, tmp_path / "run"), HashEmbedder()))) as url:
        page = visit(browser, f"{url}/?applicant=a0").page
        since = page.get_by_role("region", name="Changed since")
        expect(since).to_contain_text("Your agent has learned.")
        expect(since.locator(".new")).to_have_text("Job <b>7</b>")
        expect(since.locator(".gone")).to_have_text("Job <b>29</b> others suit you better")


def test_filters_are_offered_where_the_data_have_them(browser: Browser, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"a0": prefers(20, 7, 11)})
    uri = make_market(str(tmp_path / "store"))
    with open_store(uri) as store:
        places = {7: "Bergen", 11: "Oslo", 20: "Oslo"}
        store.put_records("job", [make_job(i, metadata={"location": place}) for i, place in places.items()])
    with live(make_app(Recommender(config(uri, tmp_path / "run"), HashEmbedder()))) as url:
        page = visit(browser, f"{url}/?applicant=a0").page
        expect(page.locator("#list > li:not(.skeleton)")).to_have_count(10)
        expect(page.get_by_label("Contract", exact=True)).to_have_count(0)
        page.get_by_label("Place", exact=True).select_option("Oslo (2)")
        page.get_by_role("button", name="Update").click()
        expect(page.locator("#list h3")).to_have_text(["Job <b>20</b>", "Job <b>11</b>"])
        page.get_by_role("button", name="Not for me: Job <b>20</b>").click()
        page.get_by_role("button", name="Not for me: Job <b>11</b>").click()
        expect(page.get_by_text("Nothing is left here")).to_be_visible()
        page.get_by_role("button", name="Ask for anything").click()
        expect(page.locator("#list h3").first).to_have_text("Job <b>7</b>")


def test_an_exploring_job_is_marked(browser: Browser, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"a0": prefers(20, 7, 11)})
    settings = config(make_market(str(tmp_path / "store")), tmp_path / "run", explore=True, sharpness=0.0)
    with live(make_app(Recommender(settings, HashEmbedder()))) as url:
        page = visit(browser, f"{url}/?applicant=a0").page
        expect(page.locator("#list .exploring").first).to_have_text("exploring")
        keep_picture(page, "exploring", tmp_path)


def test_everything_is_done_with_the_keyboard_alone(browser: Browser, site: Site) -> None:
    page = visit(browser, site.url).page
    expect(page.locator("#applicants option")).to_have_count(5)

    def focused() -> str:
        return str(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id"))

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_label("Applicant", exact=True).focus()
    page.keyboard.type("a0")
    page.keyboard.press("Enter")
    status = page.get_by_role("status").first
    expect(status).to_have_text("10 jobs for a0.")
    page.get_by_role("button", name="Update").focus()
    page.keyboard.press("Tab")
    assert focused() == "Apply: Job <b>20</b>"
    page.keyboard.press("Enter")
    # The button is gone: a screen reader hears what happened, and the focus moves to the heading.
    expect(status).to_have_text("Applied to Job <b>20</b>. 10 jobs for a0.")
    expect(page.locator("#list-heading")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    assert focused() == "Undo: Job <b>20</b>"
    page.keyboard.press("Enter")
    expect(status).to_have_text("Taken back: Job <b>20</b>. 10 jobs for a0.")


def test_a_screen_reader_finds_names_and_structure(browser: Browser, site: Site) -> None:
    page = visit(browser, site.url).page
    ask(page, "a3")
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs for you")
    expect(page.get_by_role("article")).to_have_count(10)
    expect(page.get_by_role("article", name=titles(page)[0])).to_have_count(1)
    expect(page.get_by_text("No agent has been trained")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_from_phone_to_wide_screen_nothing_sticks_out_and_axe_finds_nothing(
    browser: Browser, site: Site, tmp_path: Path, scheme: str, width: int
) -> None:
    for path, name in (("?applicant=a0", "page"), ("operator?applicant=a0", "operator"), ("docs", "docs")):
        seen = visit(browser, f"{site.url}/{path}", width=width, scheme=scheme)  # type: ignore[arg-type]
        if name != "docs":
            expect(seen.page.get_by_text("Job <b>20</b>").first).to_be_visible()
            expect(seen.page.locator(".skeleton")).to_have_count(0)
        keep_picture(seen.page, f"{name}-{scheme}-{width}", tmp_path)
        assert (seen.overflow, seen.errors) == (0, []), name
        assert violations(seen.page) == [], name
        heights = seen.page.evaluate(
            "[...document.querySelectorAll('button:not(.small),input')]"
            ".filter(e => e.offsetParent).map(e => e.offsetHeight)"
        )
        assert min(heights, default=44) >= 44, name  # CSS pixels that a finger needs (WCAG 2.5.5)
        seen.page.context.close()


def test_after_an_unknown_applicant_nothing_of_the_one_before_is_left(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    page = visit(browser, site.url).page
    ask(page, "a0")
    expect(page.get_by_role("region", name="What is known about you")).to_be_visible()
    page.get_by_label("Applicant", exact=True).fill("nobody")
    page.get_by_role("button", name="Show jobs").click()
    expect(page.get_by_role("alert").first).to_contain_text("applicant 'nobody' is not in the store")
    assert titles(page) == []
    expect(page.get_by_role("region", name="What is known about you")).to_be_hidden()
    expect(page.get_by_role("button", name="Apply")).to_have_count(0)
    keep_picture(page, "unknown-applicant", tmp_path)


def test_a_service_that_is_away_is_said_and_what_was_shown_stays(browser: Browser, site: Site) -> None:
    page = visit(browser, f"{site.url}/?applicant=a0").page
    expect(page.locator("#list > li:not(.skeleton)")).to_have_count(10)
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_role("button", name="Update").click()
    expect(page.get_by_role("alert").first).to_have_text("The service does not answer. Is it running?")
    assert len(titles(page)) == 10


def test_with_a_key_the_page_takes_the_persons_own_token_and_not_the_key(browser: Browser, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"a0": prefers(20)})
    settings = config(make_market(str(tmp_path / "store")), tmp_path / "run", api_key="sesame")
    token, _ = Keys("sesame").issue("a0", 5)
    with live(make_app(Recommender(settings, HashEmbedder()))) as url:
        page = visit(browser, url).page
        expect(page.get_by_label("Access token")).to_be_focused()
        page.keyboard.type("sesame")
        page.keyboard.press("Tab")
        expect(page.get_by_role("alert").first).to_contain_text("never the service's key")
        page.get_by_label("Access token").fill(token)
        page.keyboard.press("Tab")
        expect(page.locator("#list > li:not(.skeleton)")).to_have_count(10)
        assert titles(page)[0] == "Job <b>20</b>"
        expect(page.get_by_label("Applicant", exact=True)).to_be_hidden()
        expect(page.locator("#failure")).to_be_empty()
        expect(page.get_by_role("link", name="Counsellor")).to_be_hidden()
        linked = visit(browser, f"{url}/#token={token}").page
        expect(linked.get_by_role("status").first).to_have_text("10 jobs for a0.")
        assert token not in linked.url
        linked.get_by_text("Who decided what is on this list").click()
        expect(linked.locator("#parts")).to_contain_text("A model: learned by the applicant's own agent")
        expect(linked.get_by_role("region", name="What is known about you")).to_be_visible()
        assert violations(linked) == []
        with linked.expect_download() as download:
            linked.get_by_role("button", name="Everything that is held").click()
        assert "I am number 0." in Path(download.value.path()).read_text()
        counsellor = visit(browser, f"{url}/operator").page
        counsellor.get_by_label("Operator’s key").fill(token)
        counsellor.keyboard.press("Tab")
        expect(counsellor.get_by_role("alert")).to_contain_text("an applicant's token opens the page")
        counsellor.get_by_label("Operator’s key").fill("sesame")
        counsellor.keyboard.press("Tab")
        expect(counsellor.locator("#found button")).to_have_count(5)


def test_a_counsellor_finds_compares_pins_blocks_and_sees_what_happened(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    rows = [{"applicant_id": "a0", "round": i, "judgements_used": 5 * i, "mean_reward": i / 9} for i in (1, 2, 3)]
    RunFolder.at(site.run).write_table(METRICS, pa.Table.from_pylist(rows))
    own = visit(browser, f"{site.url}/?applicant=a0").page
    own.get_by_role("button", name="Not for me: Job <b>11</b>").click()
    expect(own.get_by_role("status").first).to_contain_text("Will not show again")
    own.context.close()
    seen = visit(browser, f"{site.url}/operator")
    page = seen.page
    page.get_by_label("Find an applicant").fill("number 0")
    expect(page.locator("#found button")).to_have_count(1)
    page.get_by_role("button", name="a0 I am number 0.").click()
    expect(page.get_by_role("heading", name="a0")).to_be_focused()
    left, right = page.locator("#left-list li"), page.locator("#right-list li")
    expect(left).to_have_count(10)
    expect(left.first).to_contain_text("Job <b>20</b>")
    expect(page.get_by_label("Right", exact=True)).to_have_value("similarity")
    assert "on the other" in " ".join(right.all_text_contents()) or "only here" in " ".join(right.all_text_contents())
    page.get_by_role("button", name="Pin: Job <b>20</b>").first.click()
    expect(page.get_by_role("alert")).to_contain_text("Say who decides first")
    page.get_by_label("Who decides").fill("op-7")
    page.get_by_role("button", name="Block: Job <b>20</b>").first.click()
    expect(page.locator("#decisions")).to_contain_text("Job <b>20</b>blocked by op-7")
    expect(left.first).to_contain_text("Job <b>7</b>")
    page.get_by_role("button", name="Clear: Job <b>20</b>").click()
    expect(left.first).to_contain_text("Job <b>20</b>")
    expect(page.locator("#curve svg")).to_be_visible()
    expect(page.locator("#curve")).to_contain_text("3 rounds, 15 answers in their place.")
    expect(page.locator("#said")).to_contain_text("not for me")
    expect(page.locator("#seen details").first).to_contain_text("ranked by run-")
    keep_picture(page, "operator", tmp_path)
    assert violations(page) == []
    with open_store(site.store, read_only=True) as store:
        assert store.exposures(["a0"]).num_rows == 2  # those of the person's own page
    assert seen.errors == []


def test_an_empty_store_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    with open_store(uri, create=True):
        pass
    with live(make_app(Recommender(config(uri, None, serving=str(tmp_path / "none")), HashEmbedder()))) as url:
        page = visit(browser, url).page
        expect(page.get_by_role("heading", name="There are no jobs here yet")).to_be_visible()
        expect(page.get_by_text("dynaq ingest --store")).to_be_visible()
        expect(page.get_by_label("Applicant", exact=True)).to_be_hidden()
        keep_picture(page, "empty", tmp_path)
        assert violations(page) == []


def test_a_newcomer_drops_a_document_and_gets_a_list(browser: Browser, tmp_path: Path) -> None:
    uri = make_market(str(tmp_path / "store"))
    with open_store(uri) as store:
        store.delete_records("candidate", store.ids("candidate"))
    with live(make_app(Recommender(config(uri, None, serving=str(tmp_path / "none")), HashEmbedder()))) as url:
        page = visit(browser, url).page
        expect(page.get_by_role("heading", name="nobody to recommend them to")).to_be_visible()
        skills = page.get_by_role("textbox", name="Skills one per line")
        cv = b"Ann Smith\nann@example.org\n\nExperience\n2019 - 2023 Baker, Bergen Bread\n\nSkills\nSkill 9, cooking\n"
        page.get_by_label("Drop a CV here").set_input_files(
            {"name": "ann smith.txt", "mimeType": "text/plain", "buffer": cv}
        )
        expect(skills).to_have_value("Skill 9\ncooking", timeout=20_000)
        expect(page.locator("#read-note")).to_contain_text("nothing is stored yet")
        keep_picture(page, "newcomer", tmp_path)
        assert violations(page) == []
        page.get_by_role("button", name="Create and show jobs").click()
        expect(page.locator("#list > li:not(.skeleton)")).to_have_count(10)
        expect(page.get_by_role("region", name="What is known about you")).to_contain_text("Skill 9")
        expect(page.get_by_role("heading", name="nobody to recommend them to")).to_be_hidden()
        page.get_by_role("button", name="New applicant").click()
        assert titles(page) == []
        page.get_by_label("paste text").fill("Skills\nWelding, Skill 3\n")
        page.get_by_role("button", name="Read it").click()
        expect(skills).to_have_value("Welding\nSkill 3", timeout=20_000)
        page.get_by_role("button", name="Create and show jobs").click()
        expect(page.get_by_role("region", name="What is known about you")).to_contain_text("Welding")
        with open_store(uri, read_only=True) as store:
            kept = list(store.records("candidate"))
    assert len(kept) == 2
    assert "Smith" not in str(kept)


def test_the_list_is_painted_within_a_second(browser: Browser, site: Site) -> None:
    visit(browser, f"{site.url}/?applicant=a0").page.wait_for_selector("#list h3")
    page = visit(browser, f"{site.url}/?applicant=a0").page
    page.wait_for_selector("#list h3")
    page.wait_for_timeout(300)
    largest = page.evaluate(
        "new Promise(done => new PerformanceObserver(seen => done(seen.getEntries().at(-1).startTime))"
        ".observe({ type: 'largest-contentful-paint', buffered: true }))"
    )
    print(f"largest paint after {largest:.0f} ms")
    assert largest < 5000  # milliseconds; 1000 is the aim on a machine that does nothing else
