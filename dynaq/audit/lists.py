"""The lists of profiles under each level: by similarity, and from agents that are trained on the judge's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.reward_strategy import RewardStrategy
from dynaq.audit.rankings import Ranking
from dynaq.evaluation.intervals import Values
from dynaq.evaluation.run_quality import K
from dynaq.ingest.embedding import candidate_texts
from dynaq.judging.judgement import Judgement
from dynaq.records import Candidate
from dynaq.stores import FloatArray
from dynaq.tensor_cache import TensorCache
from dynaq.tensor_cache_loading import HASH_BYTES, pack

Encode = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True)
class Lists:
    """Top lists of the profiles under one level.

    Args:
        ranked: rows of the catalogue, `[profiles, k]`, best first.
        expected: mean reward that the ranking expects of the list, `[profiles]`; NaN where it expects none.
    """

    ranked: Ranking
    expected: Values


def states_of(texts: Sequence[Candidate], cache: TensorCache, encode: Encode) -> FloatArray:
    """The states of profiles in the layout of the cache, `[profiles, state_dim]`, embedded as ingestion does."""
    blocks = [candidate_texts(text) for text in texts]
    vectors = encode([text[block] for block in cache.layout.state for text in blocks])
    split = vectors.reshape(len(cache.layout.state), len(texts), -1)
    states: FloatArray = np.concatenate(list(split), axis=1)
    return states


def cache_of(cache: TensorCache, ids: Sequence[str], states: FloatArray) -> TensorCache:
    """The catalogue of a cache with other applicants. states: `[len(ids), state_dim]`."""
    manifest, arrays = cache.to_arrays()
    compared = [states[:, cache.layout.state_slice(block)] for block, _ in cache.layout.pairs]
    own = {
        "applicants": np.ascontiguousarray(states, cache.applicants.dtype),
        "applicant_norms": np.stack([np.linalg.norm(block, axis=1) for block in compared], axis=1).astype(np.float32),
        "applicant_hashes": np.zeros(len(ids), f"S{HASH_BYTES}"),
        **pack(ids, "applicant_id"),
    }
    return TensorCache.from_arrays(manifest, arrays | own)


def similarity_lists(cache: TensorCache, k: int = K) -> Lists:
    """What newcomers get: the jobs whose vectors are nearest to each applicant of the cache."""
    ranked = np.stack([cache.top_k(applicant_id, k)[0] for applicant_id in cache.applicant_ids])
    return Lists(ranked, np.full(len(ranked), np.nan))


def trained_lists(
    cache: TensorCache, judgements: Iterable[Judgement], strategy: RewardStrategy, config: DynaQConfig, k: int = K
) -> Lists:
    """Train an agent per applicant of the cache on these judgements alone, and let it rank the catalogue.

    The agents' random choices depend on their ids, so levels are compared with the same ids.
    """
    block = DynaQBlock(cache, cache.applicant_ids, strategy, config)
    block.learn_offline(judgements)
    top = block.recommendations(k)
    ranked = np.array([[cache.job_index(job_id) for job_id, _ in own] for own in top], np.int64)
    expected = np.array([[q for _, q in own] for own in top], np.float64).mean(1) * (1.0 - config.gamma)
    return Lists(ranked, expected)


def slates_of(cache: TensorCache, jobs: int, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Applicant -> jobs that the audit has judged: half of them the nearest, the others at random from the rest."""
    slates = {}
    for i, applicant_id in enumerate(cache.applicant_ids):
        near, _ = cache.top_k(applicant_id, min(jobs, cache.n_jobs) // 2)
        rest = cache.sample_jobs(jobs - len(near), np.random.default_rng([seed, i]), exclude=near.tolist())
        slates[applicant_id] = tuple(cache.job_id(int(row)) for row in (*near, *rest))
    return slates


def answers_as(
    ids: Sequence[str], texts: Sequence[Candidate], answers: Mapping[tuple[str, str], Judgement]
) -> list[Judgement]:
    """The judge's answers about variants, as answers of the applicants `ids`, who are one by one those of `texts`."""
    who: dict[str, list[str]] = {text.id: [] for text in texts}
    for applicant_id, text in zip(ids, texts, strict=True):
        who[text.id].append(applicant_id)
    return [
        replace(judgement, applicant_id=applicant_id)
        for (text_id, _), judgement in answers.items()
        for applicant_id in who.get(text_id, ())
    ]
