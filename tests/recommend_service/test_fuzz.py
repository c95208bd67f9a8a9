"""Bad input from the OpenAPI document: whatever is sent, the answer is documented and never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans
from schemathesis import GenerationMode

from recommend_service.api import make_app
from recommend_service.service import Recommender
from tests.support.embedders import HashEmbedder
from tests.support.live_service import live
from tests.support.recommend_market import config, make_market, make_run, prefers

pytestmark = pytest.mark.slow
EXAMPLES = 40


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("fuzz")
    make_run(folder / "run", {"a0": prefers(20)})
    limits = {"feedback_per_second": 1e6, "feedback_burst": 10**6, "applicants_per_minute": 1e6}
    settled = config(make_market(str(folder / "store")), folder / "run", explore=True, catalogue_seconds=1.0, **limits)
    with live(make_app(Recommender(settled, HashEmbedder()))) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


OPERATIONS = (
    ("GET", "/v1/applicants/{applicant_id}/recommendations"),
    ("GET", "/v1/applicants"),
    ("POST", "/v1/applicants"),
    ("POST", "/v1/feedback"),
    ("GET", "/v1/jobs/{job_id}"),
    ("GET", "/metrics"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/v1/me"),
    ("GET", "/v1/filters"),
    ("GET", "/v1/runs"),
    ("GET", "/v1/applicants/{applicant_id}/profile"),
    ("PUT", "/v1/applicants/{applicant_id}/profile"),
    ("POST", "/v1/documents"),
    ("GET", "/v1/applicants/{applicant_id}/feedback"),
    ("GET", "/v1/applicants/{applicant_id}/exposures"),
    ("GET", "/v1/applicants/{applicant_id}/changes"),
    ("GET", "/v1/applicants/{applicant_id}/learning"),
    ("GET", "/v1/applicants/{applicant_id}/comparison"),
    ("POST", "/v1/applicants/{applicant_id}/tokens"),
    ("GET", "/v1/applicants/{applicant_id}/export"),
    ("GET", "/v1/applicants/{applicant_id}/decisions"),
    ("POST", "/v1/applicants/{applicant_id}/decisions"),
    ("DELETE", "/v1/applicants/{applicant_id}"),  # last: it erases the applicant whom the others know
)


WITHOUT_INPUT = ("/metrics", "/healthz", "/readyz", "/v1/me", "/v1/filters", "/v1/runs")  # they take no input
schemathesis.checks.load_all_checks()
# The schema allows an empty profile and unknown ids, which the service refuses.
UNSAID = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]
MENDED = [*UNSAID, schemathesis.checks.CHECKS.get_one("negative_data_rejection")]


def test_every_operation_is_fuzzed(api: Any) -> None:
    found = {(one.ok().method.upper(), one.ok().path) for one in api.get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (method, path, mode)
        for mode in GenerationMode
        for method, path in OPERATIONS
        if mode is GenerationMode.POSITIVE or path not in WITHOUT_INPUT
    ],
)
def test_no_input_is_answered_with_a_500_or_anything_undocumented(
    api: Any, method: str, path: str, mode: GenerationMode
) -> None:
    answered: list[int] = []

    @given(case=api[path][method].as_strategy(generation_mode=mode), known=booleans())
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def fuzz(case: Any, known: bool) -> None:
        if known:  # known ids get past the first check, but may also make a bad input good
            for name, value in (("applicant_id", "a0"), ("job_id", "j01")):
                for place in (case.path_parameters, case.body):
                    if isinstance(place, dict) and name in place:
                        place[name] = value
        answered.append(case.call_and_validate(excluded_checks=MENDED if known else UNSAID).status_code)

    fuzz()
    assert answered
    assert max(answered) < 500
