"""dynaq forget and dynaq export-person, from the command line to the last byte."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from dynaq.agent.tensor_files import write_saved
from dynaq.pretraining.prior import PRETRAINED
from dynaq.runs.folder import RunFolder
from dynaq.stores import open_store
from jobs.cli import run
from jobs.steps import networks
from tests.support.planted import COHORT, PERSON, cache_of, found_in_folder, planted_market
from tests.support.toy_market import grade_judgement
from tests.support.trained_run import trained_run

pytestmark = pytest.mark.slow


def test_an_applicant_is_exported_and_erased_and_the_reports_are_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    market = planted_market(tmp_path / "store")
    runs = tmp_path / "runs"
    trained_run(RunFolder.at(runs / "one"), market, cache_of(market), COHORT)
    assert run(["report", "--run", str(runs / "one")]) == 0
    assert PERSON in (runs / "one" / "report.html").read_text()
    who = ["--store", str(market.store), "--applicant", PERSON, "--runs", str(runs)]
    assert run(["export-person", *who, "--out", str(tmp_path / "copy.json")]) == 0
    copy = json.loads((tmp_path / "copy.json").read_text())
    assert (copy["applicant_id"], copy["runs"][0]["strategy"]) == (PERSON, "llm")
    (tmp_path / "copy.json").unlink()
    capsys.readouterr()

    assert run(["forget", *who, "--json"]) == 0

    erased = json.loads(capsys.readouterr().out)
    assert erased["runs"] == erased["reports"] == [str(runs / "one")]
    assert erased["rows"]["candidates_text"] == 1
    assert found_in_folder(tmp_path) == {}
    assert "ann01" in (runs / "one" / "report.html").read_text()
    assert [path.name for path in (runs / "one").glob("events.out.tfevents.*")]
    assert run(["forget", *who]) == 0  # again: nothing is left to do
    assert run(["export-person", *who]) == 2
    assert run(["forget", "--store", str(market.store), "--applicant", "nobody"]) == 2
    assert "nothing is held about applicant 'nobody'" in capsys.readouterr().err
    assert run(["forget", *who[:-1], str(tmp_path / "nowhere")]) == 2


def test_networks_are_listed_until_they_are_fitted_again_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    market = planted_market(tmp_path / "store")
    with open_store(market.store) as store:
        store.add_judgements([grade_judgement("ann01", "job001", 3), grade_judgement("ann02", "job001", 3)])
    record = {"layout": "extended", "applicants": ["ann01", PERSON], "fitted_on": {"judge": "toy", "seed": 7}}
    write_saved(tmp_path / "networks", PRETRAINED, {}, record)
    fits: list[tuple[set[str], int]] = []

    class Fitted:
        def save(self, folder: str, fitted_on: dict[str, object]) -> None:
            write_saved(folder, PRETRAINED, {}, record | {"applicants": ["ann01"], "fitted_on": fitted_on})

    def fit(cache: object, ledger: pa.Table, *, seed: int, progress: object) -> Fitted:
        fits.append((set(ledger["applicant_id"].to_pylist()), seed))
        return Fitted()

    monkeypatch.setattr(networks, "pretrain", fit)  # the real one takes a minute
    forget = ["forget", "--store", str(market.store), "--applicant", PERSON, "--runs", str(tmp_path / "networks")]
    assert run(forget) == 0
    assert "fit it again with --refit" in capsys.readouterr().out
    assert found_in_folder(tmp_path) == {}
    assert fits == []
    assert run([*forget, "--refit"]) == 0
    assert fits == [({"ann01"}, 7)]  # nobody but those on whom they were fitted before
    assert "fitted again without them" in capsys.readouterr().out
    assert run(forget) == 0
    assert "--refit" not in capsys.readouterr().out
