"""`sampled` mode: a label is drawn from the judge's distribution instead of averaged, to simulate an applicant.

The draw depends on the seed and the pair alone: an applicant who is shown the same job again answers the same. So a
simulation does not depend on the order of visits, and two policies can be compared on the same applicants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from dynaq.judging.judgement import LABEL_VALUES, LABELS, Judgement, Label


def chance(seed: int, *parts: str) -> float:
    """A pseudo-random number in [0, 1), determined by the seed and the parts."""
    text = "".join(f"{len(part)}:{part}" for part in (str(seed), *parts))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) / 2**64


def draw(judgement: Judgement, seed: int, values: Mapping[Label, float] = LABEL_VALUES) -> Judgement:
    """The judgement with a drawn label and that label's value as its reward. An abstention is returned unchanged."""
    if judgement.abstained:
        return judgement
    left = chance(seed, judgement.applicant_id, judgement.job_id) * sum(judgement.probabilities)
    label = LABELS[-1]
    for name, probability in zip(LABELS, judgement.probabilities, strict=True):
        left -= probability
        if left < 0:
            label = name
            break
    return replace(judgement, label=label, reward=values[label])
