"""A judge that gives all pairs one answer is found out before it is paid for, and calibrated or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.broker import JudgeBackend
from dynaq.errors import JudgeError
from dynaq.evaluation.probe import PROBE_PAIRS, examine, probe_slates
from dynaq.judging.judgement import Judgement, judgement_from_probabilities
from dynaq.records import Candidate, Job
from dynaq.runs.folder import CONFIG, RunFolder
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from jobs.steps import judge_backend
from jobs.steps.judge_backend import engine_backend
from jobs.steps.prepare import Prepared
from jobs.steps.usable_judge import META, usable_judge
from reward_service.calibration import PAIRS
from reward_service.config import JudgeConfig
from reward_service.llm_judge import label_probabilities
from tests.support.toy_market import toy_market

PACKAGED = JudgeConfig()


@dataclass
class CosineEngine:
    """An engine whose `likelihood` score is the cosine times `gain` plus `shift`; counts what it was asked."""

    cache: TensorCache
    config: JudgeConfig = PACKAGED
    gain: float = 1.0
    shift: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: {"judged": 0, "scored": 0})

    def variant(self, config: JudgeConfig, **fields: Any) -> CosineEngine:
        changed = JudgeConfig(**(config.model_dump(exclude_none=True) | fields))
        return CosineEngine(self.cache, changed, self.gain, self.shift, self.counts)

    def _scores(self, applicant: Candidate, jobs: Sequence[Job]) -> list[float]:
        cosines = self.cache.calculate_cosine_similarities(applicant.id)
        return [self.gain * float(cosines[self.cache.job_index(job.id)]) + self.shift for job in jobs]

    async def scores(self, applicant: Candidate, jobs: Sequence[Job]) -> list[float]:
        self.counts["scored"] += len(jobs)
        return self._scores(applicant, jobs)

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        self.counts["judged"] += len(jobs)
        return [
            judgement_from_probabilities(
                applicant.id, job.id, label_probabilities(score, self.config.cut_points), judge=self.config.fingerprint
            )
            for job, score in zip(jobs, self._scores(applicant, jobs), strict=True)
        ]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    cache = toy_market(tmp_path / "store", jobs=200).cache
    uri = str(tmp_path / "store")
    return Prepared(uri, uri, cache, cache.applicant_ids, {}, None)


@pytest.fixture
def engine(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> CosineEngine:
    made = CosineEngine(prepared.cache)
    monkeypatch.setattr(judge_backend, "start_engine", lambda config: made.variant(config))
    return made


def checked(prepared: Prepared, folder: Path, judge: str = "vllm", mode: str | None = None) -> JudgeBackend:
    return usable_judge(judge, judge_backend.judge_backend(judge), prepared, RunFolder.at(str(folder)), mode)


def labels(prepared: Prepared, fingerprint: str) -> list[str]:
    with open_store(prepared.store_uri, read_only=True) as store:
        return list(store.judgements(fingerprint).column("label").to_pylist())


def test_the_packaged_judge_is_calibrated_when_it_gives_all_pairs_one_answer(
    prepared: Prepared, engine: CosineEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = checked(prepared, tmp_path / "run")
    assert set(labels(prepared, PACKAGED.fingerprint)) == {"IGNORE"}
    assert made.fingerprint != PACKAGED.fingerprint
    assert {"APPLY", "IGNORE"} <= set(labels(prepared, made.fingerprint))
    printed = capsys.readouterr().out
    assert "answers IGNORE to 64 of 64 pairs" in printed
    assert made.fingerprint in printed
    assert engine.counts == {"judged": 2 * PROBE_PAIRS, "scored": PAIRS}

    with open_store(prepared.store_uri, read_only=True) as store:
        kept: Mapping[str, Any] = store.meta()[META][PACKAGED.fingerprint]
    assert JudgeConfig(**kept).calibrated
    assert JudgeConfig(**kept).fingerprint == made.fingerprint

    assert checked(prepared, tmp_path / "next").fingerprint == made.fingerprint
    assert engine.counts == {"judged": 2 * PROBE_PAIRS, "scored": PAIRS}  # nothing is paid for twice


def test_a_judge_that_sees_is_kept_and_its_pairs_are_in_the_ledger(
    prepared: Prepared, engine: CosineEngine, tmp_path: Path
) -> None:
    engine.gain, engine.shift = 3.0, 0.0  # cosines of this market are about -0.2 to 0.8
    assert checked(prepared, tmp_path / "run").fingerprint == PACKAGED.fingerprint
    assert len(labels(prepared, PACKAGED.fingerprint)) == PROBE_PAIRS
    assert engine.counts == {"judged": PROBE_PAIRS, "scored": 0}
    checked(prepared, tmp_path / "next")
    assert engine.counts["judged"] == PROBE_PAIRS


def test_off_and_a_resumed_run_ask_nothing_and_keep_the_judge(
    prepared: Prepared, engine: CosineEngine, tmp_path: Path
) -> None:
    assert checked(prepared, tmp_path / "off", mode="off").fingerprint == PACKAGED.fingerprint
    assert engine.counts == {"judged": 0, "scored": 0}
    made = checked(prepared, tmp_path / "run")
    paid = dict(engine.counts)
    for before in (made.fingerprint, PACKAGED.fingerprint):
        folder = RunFolder.at(str(tmp_path / before))
        folder.write_yaml(CONFIG, {"judge_fingerprint": before})
        assert checked(prepared, tmp_path / before).fingerprint == before
    assert engine.counts == paid


@pytest.mark.parametrize("mode", [None, "check"])
def test_a_blind_judge_with_chosen_thresholds_stops_with_the_command_that_mends_it(
    prepared: Prepared, engine: CosineEngine, tmp_path: Path, mode: str | None
) -> None:
    file = tmp_path / "mine.yaml"
    scorer = PACKAGED.scorer
    file.write_text(f"thresholds: {{click: 5, save: 6, apply: 7, scale: 0.1, scorer: {scorer}}}\n")
    with pytest.raises(JudgeError, match="answers IGNORE to 64 of 64 pairs") as caught:
        checked(prepared, tmp_path / "run", f"vllm:{file}", mode)
    command = f"`dynaq judge --store {prepared.store_uri} --judge vllm:{file} --calibrate judge.yaml`"
    assert command in str(caught.value)
    assert engine.counts["scored"] == 0


def test_check_refuses_the_packaged_judge_instead_of_calibrating_it(
    prepared: Prepared, engine: CosineEngine, tmp_path: Path
) -> None:
    with pytest.raises(JudgeError, match=r"--calibrate judge\.yaml"):
        checked(prepared, tmp_path / "run", mode="check")


def test_thresholds_of_another_scorer_are_refused_before_anything_is_asked(
    prepared: Prepared, engine: CosineEngine, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("profile_tokens: 50\nthresholds: {click: 0, save: 1, apply: 2, scale: 0.1}\n")
    with pytest.raises(JudgeError, match=r"not fitted for it.*--calibrate judge\.yaml"):
        checked(prepared, tmp_path / "run", f"vllm:{tmp_path}/mine.yaml")
    assert engine.counts == {"judged": 0, "scored": 0}
    (tmp_path / "mine.yaml").write_text("profile_tokens: 50\n")
    assert checked(prepared, tmp_path / "run", f"vllm:{tmp_path}/mine.yaml", "auto").keep
    assert engine.counts["scored"] == PAIRS


def test_a_judge_that_calibration_does_not_help_is_refused(
    prepared: Prepared, engine: CosineEngine, tmp_path: Path
) -> None:
    engine.gain = 0.0
    with pytest.raises(JudgeError, match=r"dynaq judge --store .* --check --qrels FILE"):
        checked(prepared, tmp_path / "run")
    with open_store(prepared.store_uri, read_only=True) as store:
        assert META not in store.meta()


def test_long_prose_is_calibrated_for_without_asking_the_old_judge(
    prepared: Prepared, engine: CosineEngine, tmp_path: Path
) -> None:
    engine.gain = 3.0
    with open_store(prepared.store_uri) as store:
        jobs = [Job(id=i, title="Cook", description="Cooks. " * 99) for i in prepared.cache.job_ids]
        store.put_records("job", jobs)
    made = checked(prepared, tmp_path / "run")
    assert made.fingerprint != PACKAGED.fingerprint
    assert labels(prepared, PACKAGED.fingerprint) == []
    assert not examine([[]]).blind


def test_a_replayed_ledger_is_not_asked(prepared: Prepared, tmp_path: Path) -> None:
    replay = JudgeBackend("ledger-1", lambda: pytest.fail("asked"), keep=False)
    assert usable_judge("ledger:x", replay, prepared, RunFolder.at(str(tmp_path / "run")), None) is replay


def test_a_blind_service_is_refused_with_what_to_do(prepared: Prepared, engine: CosineEngine, tmp_path: Path) -> None:
    backend = JudgeBackend(PACKAGED.fingerprint, lambda: engine)
    with pytest.raises(JudgeError, match="dynaq judge --check"):
        usable_judge("http://127.0.0.1:9", backend, prepared, RunFolder.at(str(tmp_path / "run")), None)


def test_what_a_backend_starts_answers_under_its_name(engine: CosineEngine, prepared: Prepared) -> None:
    backend = engine_backend(PACKAGED, {"condense": True})
    assert backend.fingerprint == JudgeConfig(condense=True).fingerprint
    assert backend.start().config.fingerprint == backend.fingerprint  # type: ignore[attr-defined]
    assert probe_slates(prepared.cache, prepared.cohort[:1])
