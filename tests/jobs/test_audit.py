"""dynaq audit: a run whose judge favours names fails where names are judged, and passes where they are taken out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.broker import JudgeBackend
from dynaq.audit.record import AUDIT_RECORD
from dynaq.errors import JudgeError
from dynaq.judging.judgement import Judgement, judgement_from_probabilities
from dynaq.personal.redaction import PERSONAL_DATA, REMOVED, STATE_KEPT
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import read_runs
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from jobs.cli import run
from tests.support.embedders import HashEmbedder
from tests.support.toy_market import ToyMarket, toy_market
from tests.support.trained_run import trained_run

pytestmark = pytest.mark.slow

APPLICANTS, SAMPLE, PAIRS = 16, 6, 4
SMALL = ("--sample", str(SAMPLE), "--pairs", str(PAIRS))


class NameJudge:
    """Gives whoever says a Black name less. Counts what it is asked; fails after `most` answers."""

    def __init__(self, most: int = 10**6) -> None:
        self.asked, self.most = 0, most

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        assert applicant.id.startswith("counterfactual-")
        if self.asked >= self.most:
            raise JudgeError("the judge is away")
        self.asked += len(jobs)
        worse = any(name in applicant.bio for name in ("Jackson", "Jones", "Robinson", "Washington", "Williams"))
        found = []
        for job in jobs:
            p = (sum(map(ord, job.id)) % 10) / 10 * (0.5 if worse else 1.0)
            found.append(judgement_from_probabilities(applicant.id, job.id, [p, 0.0, 1.0 - p, 0.0], judge="toy"))
        return found


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    made = toy_market(tmp_path_factory.mktemp("audit") / "store", applicants=APPLICANTS)
    with open_store(made.store) as store:
        store.put_meta(**{PERSONAL_DATA: REMOVED})
        cache = TensorCache.copy_from_database(store)
    trained_run(RunFolder.at(made.store.parent / "run"), made, cache, made.cache.applicant_ids)
    return made


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> NameJudge:
    own = NameJudge()
    monkeypatch.setattr("jobs.audit.judge_backend", lambda *_, **__: JudgeBackend("toy", lambda: own, model="toy"))
    monkeypatch.setattr("jobs.audit.encoder_for", lambda *_: HashEmbedder())
    return own


def audit(market: ToyMarket, out: Path, *more: str) -> int:
    return run(["audit", "--run", str(market.store.parent / "run"), "--out", str(out), *SMALL, *more])


def in_ledger(market: ToyMarket) -> int:
    with open_store(market.store, read_only=True) as store:
        return int(store.judgements().num_rows)


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / AUDIT_RECORD).read_text())
    return found


def test_a_run_passes_where_personal_data_is_taken_out(
    market: ToyMarket, judge: NameJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = in_ledger(market)
    assert audit(market, tmp_path / "out", "--keep-personal") == 0
    served, kept = record(tmp_path / "out")["settings"]
    assert all(one["identical"] for one in served["contrasts"])
    names = kept["contrasts"][0]
    assert names["reward"]["found"]
    assert names["reward"]["mean"] < -0.1
    assert names["lists"]["agents"]["expected"]["mean"] < 0
    assert not kept["contrasts"][-1]["reward"]["found"]  # the placebo
    assert "The texts are the same" in capsys.readouterr().out
    assert in_ledger(market) == before
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "passes this audit" in page
    assert "<script" not in page
    card, sheet = ((tmp_path / "out" / name).read_text() for name in ("model_card.md", "data_sheet.md"))
    assert record(tmp_path / "out")["run_id"] in card
    assert "taken out before texts are embedded and judged" in sheet
    answered = judge.asked
    assert audit(market, tmp_path / "out", "--keep-personal") == 0
    assert judge.asked == answered  # nothing is asked twice


def test_a_run_fails_where_personal_data_is_kept(
    market: ToyMarket, judge: NameJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_store(market.store) as store:
        store.put_meta(**{PERSONAL_DATA: STATE_KEPT})
    assert audit(market, tmp_path / "out") == 1
    assert "Black − white names: the judge's reward differs by -" in capsys.readouterr().err
    with open_store(market.store) as store:
        store.put_meta(**{PERSONAL_DATA: REMOVED})
    found = record(tmp_path / "out")
    assert not found["passed"]
    assert "fails this audit" in (tmp_path / "out" / "audit.html").read_text()
    serving = ["--serving", str(tmp_path / "serving"), "--store", str(market.store)]
    promote = ["promote", "--run", str(market.store.parent / "run"), *serving, "--audit", str(tmp_path / "out")]
    assert run(promote) == 2
    assert "fails: Black − white names" in capsys.readouterr().err
    assert not (tmp_path / "serving" / "current.json").exists()


def test_promote_takes_a_passed_audit_of_the_run_and_no_other(
    market: ToyMarket, judge: NameJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(market, tmp_path / "out") == 0
    serving = ["--serving", str(tmp_path / "serving"), "--store", str(market.store)]
    promote = ["promote", "--run", str(market.store.parent / "run"), *serving]
    assert run([*promote, "--max-impact", "0.8"]) == 2
    assert "--max-impact is for --audit" in capsys.readouterr().err
    other = record(tmp_path / "out") | {"run_id": "run-0"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / AUDIT_RECORD).write_text(json.dumps(other))
    assert run([*promote, "--audit", str(tmp_path / "other")]) == 2
    assert "is of run run-0" in capsys.readouterr().err
    assert run([*promote, "--audit", str(tmp_path / "out"), "--max-impact", "0.8"]) == 0


def test_groups_are_measured_and_kept_nowhere(market: ToyMarket, judge: NameJudge, tmp_path: Path) -> None:
    [one] = read_runs(str(market.store.parent / "run"))
    rows = [
        judgement_from_probabilities(who, job, [float(i % 2), 0.0, 1.0 - i % 2, 0.0], judge="toy")
        for i, (who, own) in enumerate(one.ranked.items())
        for job, _ in own[:10]
    ]
    with open_store(market.store) as store:
        store.add_judgements(rows)
    lines = [f"{who},{'f' if i % 2 else 'm'}" for i, who in enumerate(one.ranked)]
    groups = tmp_path / "groups.csv"
    groups.write_text("\n".join(["applicant_id,sex", *lines]) + "\n")
    assert audit(market, tmp_path / "out", "--groups", str(groups), "--smallest", "5") == 1
    [sex] = record(tmp_path / "out")["groups"]
    assert [(group["name"], group["people"]) for group in sex["groups"]] == [("f", 8), ("m", 8)]
    assert sex["groups"][1]["selection_impact"]["mean"] < 0.2
    written = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert not [who for who in one.ranked if who.encode() in written]


def test_answers_survive_a_judge_that_fails(
    market: ToyMarket, judge: NameJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge.most = 20
    assert audit(market, tmp_path / "out") == 1
    assert "the judge is away" in capsys.readouterr().err
    assert not (tmp_path / "out" / AUDIT_RECORD).exists()
    before, judge.most = judge.asked, 10**6
    assert audit(market, tmp_path / "out") == 0
    last = judge.asked
    assert audit(market, tmp_path / "anew") == 0
    assert last == judge.asked - last  # all in all as many as an audit without the failure
    assert 0 < before < last


def test_the_audit_of_a_judge_alone(market: ToyMarket, judge: NameJudge, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["audit", "--store", str(market.store), "--out", str(out), "--calibrate", "off", *SMALL]) == 0
    found = record(out)
    assert (found["run_id"], found["judge_fingerprint"]) == (None, "toy")
    assert {len(one["lists"]) for one in found["settings"][0]["contrasts"]} == {2}
    assert not (out / "model_card.md").exists()


def test_what_cannot_be_audited(
    market: ToyMarket, judge: NameJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    store = ["--store", str(market.store)]
    for arguments, said in (
        (["audit", *out], "--run for a run, --store for a judge"),
        (["audit", *store, *out, "--groups", "g.csv"], "--groups needs --run"),
        (["audit", *store, *out, "--profiles", "none.csv"], "profiles file none.csv does not exist"),
        (["audit", *store, *out, "--names", "none.csv"], "names file none.csv cannot be read"),
    ):
        assert run(arguments) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_own_profiles_and_names(market: ToyMarket, judge: NameJudge, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(
        "id,bio,skills\n" + "".join(f"{i},I bake bread {i} with care,ovens;dough\n" for i in range(4))
    )
    (tmp_path / "names.csv").write_text("group,name\nnorth,Ann Lee\nsouth,Bo Williams\n")
    more = ["--profiles", str(tmp_path / "people.csv"), "--names", str(tmp_path / "names.csv"), "--keep-personal"]
    assert audit(market, tmp_path / "out", *more) == 0
    found = record(tmp_path / "out")
    assert found["profiles"] == 4
    own = {one["name"]: one for one in found["settings"][1]["contrasts"]}["south − north"]
    assert own["reward"]["mean"] < -0.1
    assert found["inputs"]["names"]["file"] == "names.csv"
