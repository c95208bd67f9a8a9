"""The three sentences on a comparison say what its figures say."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.reporting.story import judge_words, story

CONFIG = {"jobs": 273, "judge": "vllm", "judge_fingerprint": "likelihood-0123", "config": {"budget": 30}}


def comparison(
    rewards: dict[str, float], ndcg: dict[str, float | None], better: dict[tuple[str, str, str], str]
) -> dict[str, Any]:
    """better: (metric, a, b) -> which of the two."""
    names = list(rewards)
    return {
        "applicants": 16,
        "seeds": [0],
        "strategies": [
            {
                "strategy": name,
                "setting": {},
                "judgements_per_applicant": 0.0 if name == "cosine" else 30.0,
                "metrics": {
                    "mean_reward@10": {"mean": rewards[name], "low": None, "high": None},
                    "ndcg@10": {"mean": ndcg[name], "low": 0.9, "high": 0.95},
                },
            }
            for name in names
        ],
        "pairs": [
            {"metric": metric, "phase": "final", "a": a, "b": b, "better": better.get((metric, a, b))}
            for metric in ("mean_reward@10", "ndcg@10")
            for a, b in [(a, b) for a in names for b in names if a < b]
        ],
    }


REWARDS = {"cosine": 0.7, "llm": 0.8}
WINS = {("mean_reward@10", "cosine", "llm"): "llm"}


def test_what_was_compared_and_by_whom_it_was_judged() -> None:
    first = story(comparison(REWARDS, {"cosine": 0.9, "llm": 0.95}, WINS), CONFIG)[0]
    assert first == (
        "This compares cosine and llm on 16 applicants and 273 jobs: the agents learned from 30 judgements each by "
        "SmolLM2-135M-Instruct, method likelihood, cosine without any."
    )


@pytest.mark.parametrize(
    ("ndcg", "better", "said"),
    [
        ({"cosine": 0.9, "llm": 0.95}, "llm", "confirms it against cosine (0.900): nDCG@10 of llm is 0.950."),
        ({"cosine": 0.9, "llm": 0.91}, None, "does not confirm it against cosine (0.900): nDCG@10 of llm is 0.910."),
        ({"cosine": 0.9, "llm": 0.8}, "cosine", "contradicts it for cosine (0.900): nDCG@10 of llm is 0.800."),
        ({"cosine": None, "llm": None}, None, "No independent measure is known"),
    ],
)
def test_a_win_by_the_judge_is_held_against_the_independent_measure(
    ndcg: dict[str, float | None], better: str | None, said: str
) -> None:
    found = WINS | ({("ndcg@10", "cosine", "llm"): better} if better else {})
    sentences = story(comparison(REWARDS, ndcg, found), CONFIG)
    assert (
        sentences[1] == "By the judge's own mean reward of the final top 10, llm (0.800) is better than cosine (0.700)."
    )
    assert said in sentences[2]
    assert len(sentences) == 3


def test_without_a_win_neither_measure_is_called_one() -> None:
    _, by_judge, by_relevance = story(comparison(REWARDS, {"cosine": 0.9, "llm": 0.91}, {}), CONFIG)
    assert "cannot tell llm (0.800) from cosine (0.700)" in by_judge
    assert by_relevance.endswith("tell them apart: nDCG@10 of llm (0.910) and cosine (0.900).")


def test_a_judge_is_named_for_people() -> None:
    assert judge_words({"judge": None, "judge_fingerprint": None}) is None
    named = {"judge": "https://host/v1#m", "judge_fingerprint": "choice-1", "judge_model": "m"}
    assert judge_words(named) == "m, method choice"
    recorded = {"judge": "ledger:/private/l.parquet", "judge_fingerprint": "ledger-1"}
    assert judge_words(recorded) == "recorded answers (l.parquet)"
