"""The page at /docs: its examples are run as they stand, its schemas are linked."""

from __future__ import annotations

import functools
import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from dynaq.ingest.embedding import embed_pending
from dynaq.layout import EXTENDED
from dynaq.records import Candidate
from dynaq.stores import open_store
from recommend_service.api import make_app
from recommend_service.service import Recommender
from tests.support.embedders import HashEmbedder
from tests.support.live_service import live
from tests.support.recommend_market import config, make_job, make_market, make_run, prefers

LAST = "X DELETE|httpx.delete"  # erases the applicant whom the others know


@pytest.mark.slow
@pytest.mark.parametrize("language", ["curl", "python"])
def test_every_example_is_run_as_it_stands(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if language == "curl" and shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    uri = make_market(str(tmp_path / "store"))
    with open_store(uri) as store:
        store.put_records("job", [make_job(1, id="j1")])
        store.put_records("candidate", [Candidate(id="ann", bio="I build web services.", hard_skills=("Python",))])
        embed_pending(store, HashEmbedder(), EXTENDED)
    make_run(tmp_path / "run", {"ann": prefers(20)})
    (tmp_path / "cv.txt").write_text("Skills\nPython, SQL\n")
    monkeypatch.chdir(tmp_path)
    settings = config(uri, tmp_path / "run", api_key="sesame", applicants_per_minute=1000)
    key = {"Authorization": "Bearer sesame"}
    with live(make_app(Recommender(settings, HashEmbedder()))) as url:
        page = httpx.get(f"{url}/docs").text
        given = [html.unescape(one) for one in re.findall(rf'<code class="{language}">(.*?)</code>', page, re.S)]
        assert len(given) > 20
        for example in sorted(given, key=lambda one: bool(re.search(LAST, one))):
            if language == "curl":
                keyed = 'curl() { command curl --fail-with-body -H "Authorization: Bearer sesame" "$@"; }\n'
                done = subprocess.run(
                    ["bash", "-c", keyed + example], capture_output=True, text=True, env={**os.environ, "URL": url}
                )
                assert done.returncode == 0, (example, done.stdout, done.stderr)
                continue
            with monkeypatch.context() as patch:
                for name in ("get", "post", "put", "delete"):
                    patch.setattr(httpx, name, functools.partial(getattr(httpx, name), headers=key))
                names: dict[str, httpx.Response] = {}
                exec(example.replace("http://127.0.0.1:8000", url), names)
            assert names["response"].status_code < 300, (example, names["response"].text)
    assert language == "curl" or capsys.readouterr().out


def test_names_of_schemas_lead_to_them(tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"a0": prefers(20)})
    settings = config(make_market(str(tmp_path / "store")), tmp_path / "run")
    with live(make_app(Recommender(settings, HashEmbedder()))) as url:
        page = httpx.get(f"{url}/docs").text
    targets = set(re.findall(r'href="#([^"]+)"', page))
    ids = re.findall(r'id="([^"]+)"', page)
    assert targets <= set(ids)
    assert len(ids) == len(set(ids))
    assert "schema-Recommendations" in targets
    assert "<code>GET /v1/filters</code>" in page  # of a docstring's backticks
