"""The report as people see it: in a real browser, at the width of a phone and of a desk, and on paper."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from playwright.sync_api import Browser, Page

from dynaq.evaluation.run_quality import evaluate_run
from dynaq.judging.ledger_file import read_ledger
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Experience, Job
from dynaq.runs.reading import read_runs
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from jobs.cli import run
from tests.support.browser import DESKTOP, PHONE, visit
from tests.support.markets import make_ledger, make_store
from tests.support.runs import make_run

JOBS, APPLICANTS = 40, 6
JOB_IDS = [f"j{i:03d}" for i in range(JOBS)]
PEOPLE = [f"a{i:03d}" for i in range(APPLICANTS)]
HOSTILE = '<script>document.title = "taken"</script><img src=x onerror="document.title=1">"\'&'


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    """The file's browser, without pages, cookies and cache of other tests."""
    yield shared_browser
    for context in shared_browser.contexts:
        context.close()


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a ledger; every text of it comes from a stranger with bad intentions."""
    folder = tmp_path_factory.mktemp("market")
    make_store(str(folder / "store"))
    make_ledger(folder / "ledger.parquet")
    with open_store(folder / "store") as store:
        store.put_records("job", [Job(id=one, title=f"{HOSTILE} {one} {'Donaudampfschiff' * 9}") for one in JOB_IDS])
        past = (Experience(title=HOSTILE),)
        store.put_records(
            "candidate",
            [Candidate(id=one, bio=HOSTILE, hard_skills=(HOSTILE,) * 40, experience=past) for one in PEOPLE],
        )
        store.put_meta(attribution=HOSTILE)
    return folder


@pytest.fixture(scope="module")
def trained(market: Path) -> Path:
    folder = make_run(market / "run", market / "store", PEOPLE, JOB_IDS, judge=f"ledger:{market}/ledger.parquet")
    assert run(["report", "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def compared(market: Path) -> Path:
    """A comparison of three lines over two seeds, its statistics as jobs.steps.compare describes them."""
    folder = market / "comparison"
    lines = [("llm", {}), ("cosine", {}), ("llm", {"gamma": f"{HOSTILE}"})]
    entries, trials = [], []
    for number, (strategy, setting) in enumerate(lines):
        names = [f"{strategy}-{number}-seed{seed}" for seed in (0, 1)]
        for seed, name in enumerate(names):
            judge = f"ledger:{market}/ledger.parquet"
            make_run(folder / name, market / "store", PEOPLE, JOB_IDS, strategy=strategy, judge=judge, seed=seed)
        entries.append(_statistics(strategy, setting, names, number))
        trials += names
    pair = {"a": "llm", "b": "cosine", "difference": 0.1234, "low": 0.05, "high": 0.2, "better": "llm"}
    verdict = {"metric": "ndcg@10", "phase": "final", "verdict": "llm is better than cosine."}
    comparison = {"k": 10, "applicants": APPLICANTS, "seeds": [0, 1], "primary": "ndcg@10", "strategies": entries}
    (folder / "comparison.json").write_text(json.dumps(comparison | {"pairs": [pair | verdict], "notes": ["A note."]}))
    shown = yaml.safe_load((folder / trials[0] / "config.yaml").read_text()) | {"trials": trials, "best": trials[0]}
    (folder / "config.yaml").write_text(yaml.safe_dump(shown))
    assert run(["report", "--run", str(folder)]) == 0
    return folder


def _statistics(strategy: str, setting: dict[str, Any], trials: list[str], number: int) -> dict[str, Any]:
    def interval(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.05, "high": mean + 0.04}

    x = [5, 10, 15, 20] if strategy != "cosine" else [0]
    curve = {"judgements": x, "mean": [0.5] * len(x), "low": [0.4] * len(x), "high": [None] * len(x)}
    return {
        "strategy": strategy,
        "setting": setting,
        "trials": trials,
        "judgements_used": 240,
        "judgements_paid": 200 + number,
        "judgements_per_applicant": float(max(x)),
        "metrics": {"ndcg@10": interval(0.7123 + number / 10), "mrr": dict.fromkeys(("mean", "low", "high"))},
        "cold_start": {"judgements": 10, "metrics": {"ndcg": interval(0.4567)}},
        "steps_to_threshold": {"metric": "ndcg", "threshold": 0.9, "judgements": None, "low": None, "high": None},
        "curves": {"ndcg": curve},
    }


def cells(page: Page) -> dict[str, str]:
    """What stands in the table: line and metric -> the mean."""
    found: dict[str, str] = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-cell]')]"
        ".map(cell => [cell.dataset.cell, cell.querySelector('.value')?.innerText ?? cell.innerText]))"
    )
    return found


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
@pytest.mark.parametrize("kind", ["trained", "compared"])
def test_the_page_renders_without_a_fault_a_request_or_scrolling_sideways(
    browser: Browser, request: pytest.FixtureRequest, kind: str, width: int, scheme: Any
) -> None:
    folder: Path = request.getfixturevalue(kind)
    address = (folder / "report.html").as_uri()
    seen = visit(browser, address, width=width, scheme=scheme)
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert (seen.errors, seen.overflow) == ([], 0)
    assert seen.requests == [address]
    assert seen.page.title() == "Which jobs would they apply to?"
    ground = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(15, 18, 22)")
    assert seen.page.locator("svg").first.bounding_box()["width"] > 250
    for link in seen.page.locator("nav a").all():  # the fixed bar must not cover the heading that a link leads to
        link.click()
        seen.page.wait_for_function(
            "y => { const now = scrollY; return (window.last ?? -1) === (window.last = now) }", polling=150
        )
        heading = seen.page.locator(link.get_attribute("href")).bounding_box()
        bar = seen.page.locator("nav").bounding_box()
        assert heading["y"] >= bar["y"] + bar["height"] - 1


def test_the_numbers_of_a_run_are_those_of_its_data(browser: Browser, trained: Path, market: Path) -> None:
    page = visit(browser, (trained / "report.html").as_uri()).page
    (one,) = read_runs(str(trained))
    ledger = read_ledger(market / "ledger.parquet").to_pylist()
    judged = {(row["applicant_id"], row["job_id"]): (row["reward"], row["label"]) for row in ledger}
    with open_store(market / "store", read_only=True) as store:
        by_hand = evaluate_run(one, judged, store.qrels())
        cache = TensorCache.copy_from_database(store)
    names = ("ndcg@10", "mean_reward@10", "apply_rate@10", "mrr", "regret@10")
    expected = {f"llm {name}": f"{by_hand.quality[name].mean:.3f}" for name in names}
    assert {name: cells(page)[name] for name in expected} == expected

    entries = page.locator("details.applicant").first.locator("ol li")
    assert entries.count() == 10
    reward = {(row["applicant_id"], row["job_id"]): row for row in ledger}
    cosines = dict(zip(cache.job_ids, cache.calculate_cosine_similarities("a000"), strict=True))
    for entry, (job_id, q) in zip(entries.all(), one.jobs_for("a000", 10), strict=True):
        text = entry.inner_text()
        assert f"{HOSTILE} {job_id}" in text
        assert f"Q {q:.3f}" in text
        assert f"cosine {cosines[job_id]:.3f}" in text
        assert reward["a000", job_id]["label"] in text
        shown = entry.locator(".bar").get_attribute("title")
        assert shown.startswith(f"APPLY {100 * reward['a000', job_id]['p_apply']:.0f} %")


def test_the_numbers_of_a_comparison_are_those_of_its_statistics(browser: Browser, compared: Path) -> None:
    page = visit(browser, (compared / "report.html").as_uri(), width=PHONE).page
    shown = cells(page)
    assert shown["llm ndcg@10"] == "0.712"
    assert shown["cosine ndcg@10"] == "0.812"
    assert shown[f"llm gamma={HOSTILE} ndcg@10"] == "0.912"
    assert not any("mrr" in name for name in shown)  # no run has this metric
    assert page.locator(".verdicts li").all_inner_texts() == ["llm is better than cosine."]
    text = page.locator("body").inner_text()
    assert "0.762 to 0.852" in text
    assert page.locator("[data-label='paid for, in all']").all_inner_texts() == ["200", "201", "202"]
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    text = page.locator("body").inner_text()
    assert "0.457" in text  # cold start
    assert "not within the budget" in text
    assert "0.123" in text  # the pair's difference
    assert page.locator("details.applicant").first.locator(".lists h3").count() == 3


def test_the_judge_is_looked_at(browser: Browser, trained: Path, market: Path) -> None:
    page = visit(browser, (trained / "report.html").as_uri()).page
    tiles = dict(
        zip(page.locator(".tiles dt").all_inner_texts(), page.locator(".tiles dd").all_inner_texts(), strict=True)
    )
    assert tiles["judgements known"].startswith(f"{JOBS * APPLICANTS}\n")
    assert tiles["label mass"].startswith("1.000")
    share = APPLICANTS / (APPLICANTS + APPLICANTS * 20)
    assert tiles["abstentions"].startswith(f"{APPLICANTS}\n{100 * share:.1f} %")
    rows = read_ledger(market / "ledger.parquet").to_pylist()
    apply = float(np.mean([row["p_apply"] for row in rows]))
    assert f"APPLY {100 * apply:.0f} %" in page.locator("#judge ~ .plots .bar").first.get_attribute("title")


def test_paper_gets_the_open_applicants_and_the_configuration(browser: Browser, trained: Path) -> None:
    page = visit(browser, (trained / "report.html").as_uri()).page
    page.emulate_media(media="print")
    assert [entry.is_visible() for entry in page.locator("details.applicant").all()] == [True] + [False] * 5
    assert page.locator(".settings").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert "2.13.0" in page.locator(".settings").last.inner_text()


def test_the_page_opens_with_what_was_compared_and_what_came_out(
    browser: Browser, trained: Path, compared: Path
) -> None:
    said = visit(browser, (trained / "report.html").as_uri()).page.locator(".story").inner_text()
    assert said.startswith(
        "An agent for each of 6 applicants learned to rank 40 jobs, by the strategy llm and from 20 "
    )
    assert "recorded answers (ledger.parquet)" in said
    page = visit(browser, (compared / "report.html").as_uri()).page
    assert page.locator(".story").inner_text().startswith(f"This compares llm, cosine and llm gamma={HOSTILE} on 6 ")
    assert "ledger-0123456789ab" not in page.locator(".facts").inner_text()
    assert "ledger-0123456789ab" in (page.locator(".settings").first.text_content() or "")  # the fingerprint


def test_a_table_can_be_copied_and_saved_as_csv(browser: Browser, compared: Path) -> None:
    page = visit(browser, (compared / "report.html").as_uri()).page
    table = page.locator("details.csv").first
    table.locator("summary").click()
    text = table.locator("pre").text_content()
    assert text is not None
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["strategy"] for row in rows] == ["llm", "cosine", f"llm gamma={HOSTILE}"]
    assert [float(row["ndcg@10_mean"]) for row in rows] == pytest.approx([0.7123, 0.8123, 0.9123])
    assert [row["judgements_paid"] for row in rows] == ["200", "201", "202"]
    with page.expect_download() as download:
        table.locator("a").click()
    assert download.value.suggested_filename == "result.csv"
    assert download.value.path().read_text() == text


def test_a_single_plot_stays_small(browser: Browser, compared: Path) -> None:
    page = visit(browser, (compared / "report.html").as_uri(), width=1600).page
    plots = page.locator("#curves ~ .plots").first.locator("figure")
    assert plots.count() == 1
    assert plots.first.bounding_box()["width"] < 600


def test_applicants_are_linked_to_their_page_where_the_service_is_known(browser: Browser, compared: Path) -> None:
    link = "details.applicant a"
    assert visit(browser, (compared / "report.html").as_uri()).page.locator(link).count() == 0
    assert run(["report", "--run", str(compared), "--service", "http://127.0.0.1:8000/"]) == 0
    page = visit(browser, (compared / "report.html").as_uri()).page
    assert page.locator(link).first.get_attribute("href") == "http://127.0.0.1:8000/?applicant=a000"


@pytest.mark.slow
def test_nothing_from_a_store_becomes_markup(trained: Path, compared: Path) -> None:
    for folder in (trained, compared):
        page = (folder / "report.html").read_text()
        assert "<script" not in page
        assert "<img" not in page
        assert "&lt;script&gt;" in page
        assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


@pytest.mark.slow
def test_a_large_cohort_makes_a_bounded_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everyone = [f"a{i:05d}" for i in range(3000)]
    with open_store(tmp_path / "store", create=True) as store:
        store.put_records("job", [Job(id=one, title=f"Title of {one}" * 5) for one in JOB_IDS])
        store.put_records("candidate", [Candidate(id=one, bio="word " * 900) for one in everyone])
        store.put_qrels(Qrels({one: {JOB_IDS[0]: 1.0} for one in everyone}))
    make_run(tmp_path / "run", tmp_path / "store", everyone, JOB_IDS)
    assert run(["report", "--run", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["applicants"], found["shown"]) == (3000, 400)
    assert found["bytes"] == (tmp_path / "run" / "report.html").stat().st_size < 4_000_000
    assert "2,600 more applicants" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_without_judge_relevance_or_texts_has_a_page_too(tmp_path: Path, browser: Browser) -> None:
    make_store(str(tmp_path / "store"))
    with open_store(tmp_path / "store") as store:
        store.delete_records("job", JOB_IDS[:20])
        store.delete_records("candidate", PEOPLE[:2])
        store.put_qrels(Qrels({}))
    folder = make_run(tmp_path / "run", tmp_path / "store", PEOPLE, JOB_IDS, strategy="cosine")
    table = pq.read_table(folder / "metrics.parquet").drop_columns(["ndcg"])
    pq.write_table(table, folder / "metrics.parquet")
    assert run(["report", "--run", str(folder)]) == 0
    seen = visit(browser, (folder / "report.html").as_uri(), width=PHONE)
    assert (seen.errors, seen.overflow) == ([], 0)
    assert seen.page.locator("#judge").count() == 0
    assert "No relevance is known" in seen.page.locator("body").inner_text()
