"""Which judgements networks are pre-trained on, where a judge was told histories."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynaq.errors import InputError
from dynaq.judging.history import AGO, PastEvent, ledger_key, remembering
from dynaq.judging.judgement import judgement_from_probabilities
from dynaq.stores import open_store
from jobs.steps.networks import answers_of

PLAIN = "choice-0123456789ab"
MEMORY = remembering(PLAIN, 2)
APPLY, IGNORE = [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]


def test_the_answers_of_a_judge_are_one_per_pair_whatever_it_was_told(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store"), create=True) as store:
        store.add_judgements([judgement_from_probabilities("ann", f"j{i}", APPLY, judge=PLAIN) for i in range(2)])
        for ago in AGO[:2]:
            key = ledger_key(MEMORY, (PastEvent(event="apply", job_id="j9", ago=ago),))
            store.add_judgements([judgement_from_probabilities("ann", f"j{i}", IGNORE, judge=key) for i in range(1, 4)])
        found, judge = answers_of(store, None)
        assert judge == MEMORY
        assert {row["job_id"]: row["label"] for row in found.to_pylist()} == {
            "j0": "APPLY",
            "j1": "IGNORE",
            "j2": "IGNORE",
            "j3": "IGNORE",
        }
        assert answers_of(store, MEMORY)[0].equals(found)
        assert answers_of(store, PLAIN)[0].column("job_id").to_pylist() == ["j0", "j1"]
        with pytest.raises(InputError, match="no judgements of judge"):
            answers_of(store, remembering("choice-ba9876543210", 2))
