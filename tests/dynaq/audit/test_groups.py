"""Rates by group: what is counted, what is compared, and what stays hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynaq.audit.groups import AttributeRates, Groups, group_rates, read_groups
from dynaq.errors import InputError
from dynaq.qrels import Qrels
from dynaq.runs.folder import METRICS, RECOMMENDATIONS, RunFolder
from dynaq.runs.judgements import Judged
from dynaq.runs.reading import Run

PEOPLE, LENGTH = 120, 10
IDS = [f"a{i:03d}" for i in range(PEOPLE)]


def groups_of(**columns: list[str]) -> Groups:
    return {one: {name: column[i] for name, column in columns.items()} for i, one in enumerate(IDS)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = RunFolder.at(tmp_path_factory.mktemp("run"))
    rows = [
        {"applicant_id": one, "rank": rank, "job_id": f"j{rank}", "q_value": 1.0 - rank / 100}
        for one in IDS
        for rank in range(1, LENGTH + 1)
    ]
    folder.write_table(RECOMMENDATIONS, pa.Table.from_pylist(rows))
    trust = [{"applicant_id": one, "round": r, "trust": 0.5 + 0.3 * r} for r in (1, 0) for one in IDS]
    folder.write_table(METRICS, pa.Table.from_pylist(trust))
    return Run("test", folder, {})


def judged(disadvantaged: range, chance: float = 0.2) -> Judged:
    """Everybody gets APPLY in six of ten places, the disadvantaged with that chance."""
    rng = np.random.default_rng(0)
    found = {}
    for i, one in enumerate(IDS):
        for rank in range(1, LENGTH + 1):
            applies = rng.random() < (chance if i in disadvantaged else 0.6)
            found[one, f"j{rank}"] = (1.0, "APPLY") if applies else (0.0, "CLICK")
    return found


def by_name(found: list[AttributeRates]) -> dict[str, AttributeRates]:
    return {one.attribute: one for one in found}


SEX = ["f" if i < 60 else "m" for i in range(PEOPLE)]
ORIGIN = ["x" if i % 2 else "y" for i in range(PEOPLE)]


def test_a_disadvantaged_group_is_below_four_fifths(run: Run) -> None:
    found = by_name(group_rates(run, judged(range(60)), groups_of(sex=SEX, origin=ORIGIN)))
    women, men = found["sex"].groups
    assert (women.name, women.people, men.people) == ("f", 60, 60)
    assert women.selection == pytest.approx(0.2, abs=0.05)
    assert men.selection_impact is None
    assert women.selection_impact is not None
    assert women.selection_impact.ratio.mean == pytest.approx(women.selection / men.selection)
    assert women.selection_impact.found
    assert found["sex"].parity == pytest.approx(women.selection / men.selection)
    assert women.scoring < 0.2 < 0.8 < men.scoring
    assert women.scoring_impact is not None
    assert women.scoring_impact.found
    assert women.exposure_impact is not None
    assert len(women.exposure) == LENGTH
    assert np.mean(women.exposure) == pytest.approx(women.selection)
    assert women.trust.mean == pytest.approx(0.8)  # of the last round
    for group in found["origin"].groups:
        assert group.selection_impact is None or not group.selection_impact.found


def test_intersections_show_what_single_attributes_hide(run: Run) -> None:
    hidden = [i for i in range(PEOPLE) if (SEX[i], ORIGIN[i]) in (("f", "x"), ("m", "y"))]
    rng = np.random.default_rng(1)
    answers: Judged = {
        (one, f"j{rank}"): (1.0, "APPLY") if rng.random() < (0.2 if i in hidden else 0.7) else (0.0, "CLICK")
        for i, one in enumerate(IDS)
        for rank in range(1, LENGTH + 1)
    }
    found = by_name(group_rates(run, answers, groups_of(sex=SEX, origin=ORIGIN)))
    assert not any(g.selection_impact and g.selection_impact.found for g in found["sex"].groups)
    crossed = {g.name: g for g in found["sex × origin"].groups}
    assert set(crossed) == {"f × x", "f × y", "m × x", "m × y"}
    impact = crossed["f × x"].selection_impact
    assert impact is not None
    assert impact.found


def test_small_groups_are_not_shown(run: Run) -> None:
    sex = ["d" if i < 9 else "" if i < 12 else SEX[i] for i in range(PEOPLE)]
    [found] = group_rates(run, judged(range(9)), groups_of(sex=sex))
    assert [group.name for group in found.groups] == ["f", "m"]
    assert found.suppressed == 1
    assert sum(group.people for group in found.groups) == PEOPLE - 12
    [none] = group_rates(run, judged(range(9)), groups_of(sex=sex), smallest=1000)
    assert (none.groups, none.suppressed) == ((), 3)


def test_relevance_gives_ndcg_by_group(run: Run) -> None:
    qrels = Qrels({one: {"j1": 1.0} if i < 60 else {"j5": 1.0} for i, one in enumerate(IDS)})
    [found] = group_rates(run, judged(range(0)), groups_of(sex=SEX), qrels)
    assert [round(group.ndcg.mean, 3) for group in found.groups] == [1.0, round(1 / np.log2(6), 3)]


def test_who_has_no_judged_list_does_not_count(run: Run) -> None:
    with pytest.raises(InputError, match="no applicant of run"):
        group_rates(run, {}, groups_of(sex=SEX))


def test_a_file_of_groups(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("applicant_id,sex\n1,f\n2,\n")
    assert read_groups(str(file)) == {"1": {"sex": "f"}, "2": {"sex": ""}}
    for text, said in (("applicant_id,sex\n1,f\n1,m\n", "twice"), ("id,sex\n1,f\n", "needs the column applicant_id")):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            read_groups(str(file))
    with pytest.raises(InputError, match="cannot be read"):
        read_groups(str(tmp_path / "none.csv"))
