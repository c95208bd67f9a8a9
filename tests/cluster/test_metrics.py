"""What Prometheus gets from a real Ray while a cohort trains."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.util.metrics import Metric

from cluster.block_actor import TrainingJob
from cluster.broker import BrokerClient, start_broker
from cluster.cache import put_cache
from cluster.metrics import BlockMetrics, BrokerMetrics, RunMetrics
from cluster.trainer import ActorSize, CohortProgress, CohortTrainer
from dynaq.agent.config import DynaQConfig
from dynaq.judging.judgement import Slate
from dynaq.runs.folder import RunFolder
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from reward_service.judge_metrics import ReplicaMetrics
from tests.support.judges import RuleJudge
from tests.support.markets import APPLICANTS, make_store
from tests.support.prometheus import scrape, value, wait_until

BUDGET = 10
COHORT = [f"a{i:03d}" for i in range(APPLICANTS)]
ROOT = Path(__file__).parents[2]
GRAFANA, DOCS = ROOT / "cluster" / "grafana", ROOT / "docs"


def test_prometheus_sees_what_a_run_asked_spent_and_reached(tmp_path: Path, ray_session_fixture: None) -> None:
    make_store(str(tmp_path / "store"))
    rule = RuleJudge(tmp_path / "asked.log", abstaining=("j003", "j004", "j005"))
    judge, run = f"rule-{tmp_path.name}", f"run-{tmp_path.name}"  # other tests train in the same Ray
    broker = start_broker(str(tmp_path / "store"), replace(rule.backend(), fingerprint=judge))
    with open_store(tmp_path / "store", read_only=True) as opened:
        cache = put_cache(TensorCache.copy_from_database(opened))
    config = DynaQConfig(budget=BUDGET, slate_size=5, block_size=2, warm_start_updates=5)
    folder = RunFolder.at(tmp_path / run)
    rewards, trusts = [], []

    def note(progress: CohortProgress) -> None:
        rewards.append(progress.reward)
        trusts.append(progress.learning["trust"])

    job = TrainingJob(cache, "llm", config, broker, folder)
    trainer = CohortTrainer(job, COHORT, size=ActorSize(actors=2), on_progress=note)  # its gauges live as long as it
    trainer.run()
    abstained = sum(job_id in rule.abstaining for _, job_id in rule.answered)
    fetched = [Slate(one, tuple(f"j{i:03d}" for i in range(6, 40))) for one in COHORT]
    known = {(one, job_id) for one, job_id in rule.answered} & {(s.applicant_id, j) for s in fetched for j in s.job_ids}
    BrokerClient(broker).fetch(fetched)  # the pairs that training paid for now come from the ledger

    def all_there() -> bool:
        return value(scrape(), "ray_dynaq_judgements_total", judge=judge, source="judge") == len(rule.answered)

    wait_until(all_there)
    time.sleep(5)  # Ray drops a gauge that is not set for two reports (4 s here); ours must stay
    wait_until(lambda: value(scrape(), "ray_dynaq_applicants", run=run, strategy="llm", state="done") == APPLICANTS)
    seen = scrape()
    assert value(seen, "ray_dynaq_judgements_total", judge=judge, source="judge") == len(rule.answered)
    assert value(seen, "ray_dynaq_judgements_total", judge=judge, source="ledger") == len(known) > 0
    assert value(seen, "ray_dynaq_abstentions_total", judge=judge) == abstained > 0
    assert value(seen, "ray_dynaq_broker_pairs_waiting", judge=judge) == 0
    assert value(seen, "ray_dynaq_applicants", run=run, strategy="llm", state="done") == APPLICANTS
    assert value(seen, "ray_dynaq_applicants", run=run, strategy="llm", state="left") == 0
    assert value(seen, "ray_dynaq_blocks", run=run, strategy="llm", state="running") == 0
    assert value(seen, "ray_dynaq_mean_reward", run=run, strategy="llm") == pytest.approx(rewards[-1])
    assert value(seen, "ray_dynaq_judge_trust", run=run, strategy="llm") == pytest.approx(trusts[-1])
    assert 0.0 < trusts[-1] < 1.0
    asks = value(seen, "ray_dynaq_broker_ask_seconds_count", judge=judge)
    assert 0 < asks <= len(rule.answered)


def our_metrics() -> dict[str, Metric]:
    """Every metric that the code makes, by the name that Prometheus knows."""
    owners = [BrokerMetrics("j"), BlockMetrics("llm"), RunMetrics("r", "llm"), ReplicaMetrics()]
    metrics = [one for owner in owners for one in vars(owner).values() if isinstance(one, Metric)]
    return {f"ray_{metric.info['name']}": metric for metric in metrics}


@pytest.mark.slow
def test_every_metric_of_the_dashboard_is_made_by_the_code() -> None:
    vllm = Path(importlib.util.find_spec("vllm.v1.metrics.loggers").origin).read_text()
    ours = our_metrics()
    named = set()
    for panel in dashboard()["panels"]:
        for expression in (target["expr"] for target in panel.get("targets", [])):
            for name, labels in re.findall(r"\b(ray_\w+)(?:\{([^}]*)\})?", expression):
                named.add(base := re.sub(r"_(bucket|sum|count)$", "", name))
                if base.startswith("ray_vllm_"):
                    plain = base.removeprefix("ray_vllm_").removesuffix("_total")
                    assert f'"vllm:{plain}"' in vllm, base
                    continue
                assert base in ours, base
                used = set(re.findall(r"(\w+)\s*=~?", labels)) - {"le"}
                assert used <= {*ours[base].info["tag_keys"]}, expression
    assert set(ours) <= named  # and every metric of the code is on the dashboard


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
    return found


def test_the_documentation_names_every_metric_and_its_pictures_are_there() -> None:
    text = (DOCS / "dashboards.md").read_text()
    assert {name.removeprefix("ray_") for name in our_metrics()} == set(re.findall(r"`(dynaq_\w+)", text))
    pictures = [DOCS / name for name in re.findall(r"\]\((pictures/[^)]+)\)", text)]
    assert len(pictures) == 6
    assert all(0 < picture.stat().st_size < 300_000 for picture in pictures)
