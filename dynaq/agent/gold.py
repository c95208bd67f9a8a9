"""Pairs of known truth beside the judge's answers on them; they anchor its table (`dynaq.agent.judge_table`).

Their truth is a label made by hand, or what the applicant did.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice, zip_longest

import numpy as np

from dynaq.agent.judge_table import Answers
from dynaq.agent.pair_features import scaled_cosines, similarity_features
from dynaq.agent.replay_buffer import first_of_each
from dynaq.judging.judgement import Judgement, JudgementSource, Slate
from dynaq.tensor_cache import TensorCache


def clear_acts(done: Sequence[Sequence[Judgement]], limit: int) -> list[Judgement]:
    """Of what each applicant did, oldest first, at most `limit` acts that tell whether the job fits.

    They are taken evenly and newest first. A click does not tell: it may be the posting's title, or curiosity.
    """
    clear = ([act for act in reversed(own) if act.label != "CLICK"] for own in done)
    return list(islice((act for act in chain.from_iterable(zip_longest(*clear)) if act is not None), limit))


def answered_gold(
    gold: Sequence[Judgement], source: JudgementSource, cache: TensorCache, block: Sequence[str]
) -> Answers | None:
    """The judge's answers on the pairs that `gold` labels, IGNORE meaning that the job does not fit.

    block: the block's own applicants; they come first in `Answers.agent`, the other applicants of `gold` after them.
    Abstentions, and pairs that the cache lacks, are left out; None when nothing remains. Raises JudgeError when the
    judge fails.
    """
    known = set(cache.applicant_ids)
    applicants = list(dict.fromkeys([*block, *(j.applicant_id for j in gold if j.applicant_id in known)]))
    labelled = first_of_each(gold, applicants, cache.has_job, len(gold))
    slates = [
        (agent, own, Slate(applicant, tuple(j.job_id for j in own)))
        for agent, (applicant, own) in enumerate(zip(applicants, labelled, strict=True))
        if own
    ]
    if not slates:
        return None
    answers = source.fetch([slate for _, _, slate in slates])
    names = [slate.applicant_id for _, _, slate in slates]
    features = similarity_features(cache, names, scaled_cosines(cache, names))
    rows = []
    for (agent, own, _), said, phi in zip(slates, answers, features, strict=True):
        for label, answer in zip(own, said, strict=True):
            if not answer.abstained:
                job = cache.job_index(label.job_id)
                rows.append((phi[job].double().numpy(), answer.probabilities, agent, job, label.label != "IGNORE"))
    if not rows:
        return None
    read, probabilities, agents, jobs, fits = zip(*rows, strict=True)
    return Answers(
        np.stack(read),
        np.array(probabilities, dtype=np.float64),
        np.array(agents, dtype=np.int64),
        np.array(jobs, dtype=np.int64),
        np.array(fits, dtype=np.float64),
    )
