"""What Prometheus sees of the judge while its real engine answers."""

from __future__ import annotations

import pytest

from tests.support.judge_service import JudgeService
from tests.support.prometheus import scrape, value, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

OUTCOMES = ("apply", "save", "click", "ignore", "abstained")


def test_prometheus_sees_what_the_judge_answered_and_the_engine_read(judge_service: JudgeService) -> None:
    variant = judge_service.judge.variant(judge_service.config, job_tokens=31)  # a judge that no other test asks
    judge = variant.fingerprint

    def pairs() -> float:
        seen = scrape()
        known = (value(seen, "ray_dynaq_judge_pairs_total", judge=judge, outcome=outcome) for outcome in OUTCOMES)
        return sum(count for count in known if count == count)

    jobs = judge_service.market.jobs[:7]
    variant.judge(judge_service.market.applicants[0], jobs)
    wait_until(lambda: pairs() == len(jobs))
    before, tokens = pairs(), value(scrape(), "ray_vllm_prompt_tokens_total")
    judgements = variant.judge(judge_service.market.applicants[1], jobs)
    wait_until(lambda: pairs() == before + len(jobs))
    seen = scrape()
    assert pairs() == before + len(jobs)
    assert value(seen, "ray_vllm_prompt_tokens_total") > tokens > 0
    assert value(seen, "ray_dynaq_judge_label_mass_count", judge=judge) >= len(judgements)
    assert value(seen, "ray_dynaq_judge_pending_pairs") == 0
    assert value(seen, "ray_dynaq_judge_call_seconds_count", judge=judge) >= 2
