"""Fixtures that several packages' tests share: real parts, started once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import joblib
import pytest
import torch
from playwright.sync_api import Browser

from cluster.session import ray_session
from tests.support.browser import running_browser
from tests.support.judge_service import JudgeService, running_judge_service
from tests.support.mongod import running_mongod

# What `make test-fast` leaves out: fixture -> marker of the tests that use it.
MARKED_BY_FIXTURE = {"judge_service": "engine", "browser": "browser", "ray_session_fixture": "cluster"}


@pytest.hookimpl(tryfirst=True)  # before pytest's own `-m` reads the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses the judge's engine, the browser or Ray, also through other fixtures.

    The tests of one engine, and those of one Ray without it, stay in one process each (`--dist loadgroup`), and so do
    those of a file that share a fixture, which would be made in each process otherwise.
    """
    for item in items:
        marks = {MARKED_BY_FIXTURE[name] for name in getattr(item, "fixturenames", ()) if name in MARKED_BY_FIXTURE}
        for mark in marks:
            item.add_marker(mark)
        if group := marks & {"engine", "cluster"}:
            item.add_marker(pytest.mark.xdist_group("engine" if "engine" in group else "cluster"))
        elif shares_fixture_of_module(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def shares_fixture_of_module(item: pytest.Item) -> bool:
    """Whether a test uses a fixture that is made once for its file."""
    known = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009
    return any(known[name][-1].scope == "module" for name in getattr(item, "fixturenames", ()) if name in known)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """As in the actors: on small networks, threads that wait for each other cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real MongoDB server on a free loopback port with its own data folder."""
    with running_mongod(tmp_path_factory.mktemp("mongod")) as uri:
        yield uri


@pytest.fixture(scope="session")
def replica_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a MongoDB server that is a replica set of one member, and so has change streams."""
    with running_mongod(tmp_path_factory.mktemp("replica-set"), replica_set=True) as uri:
        yield uri


@pytest.fixture(scope="session")
def ray_session_fixture() -> Iterator[None]:
    """One Ray for the whole run, on loopback with token authentication, as the commands start it."""
    patch = pytest.MonkeyPatch()
    # Workers inherit the environment in which Ray was started; those of the S3 tests need these variables.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "testing")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("RAY_metrics_report_interval_ms", "2000")  # the default is 10 s, for which a test would wait
    # Ray's workers are at niceness 15, where the tests of another process leave an engine next to nothing.
    patch.setenv("RAY_worker_niceness", "0")
    # Each training actor is a process that loads torch (5 s): a run has one, unless its test asks for more of them.
    cpu_count = joblib.cpu_count
    patch.setattr(joblib, "cpu_count", lambda: 1)
    with ray_session(num_cpus=8, object_store_gib=0.5):
        patch.setattr(joblib, "cpu_count", cpu_count)
        yield
    patch.undo()


@pytest.fixture(scope="session")
def judge_service(ray_session_fixture: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgeService]:
    """The real judge behind Ray Serve with its HTTP API: one engine for the whole run (45 s to start).

    `reward_service.app.start_judge(JudgeConfig())` in a test finds this one and uses it.
    """
    with running_judge_service(tmp_path_factory.mktemp("judge")) as service:
        yield service


@pytest.fixture
def mongo_uri(mongod: str) -> str:
    """URI of a database of its own."""
    return f"{mongod}/test_{uuid4().hex[:12]}"


@pytest.fixture(params=["mongod", "replica_set"])
def shared_uri(request: pytest.FixtureRequest) -> str:
    """URI of a database of its own, on a standalone server and on a replica set."""
    return f"{request.getfixturevalue(request.param)}/test_{uuid4().hex[:12]}"


@pytest.fixture(params=["folder", "mongo"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that does not exist yet, of each kind."""
    if request.param == "folder":
        return str(tmp_path / "store")
    uri: str = request.getfixturevalue("mongo_uri")
    return uri


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A headless Chromium (tests/support/browser.py), or a skip where there is none.

    One per test, a second each: the driver keeps an event loop in this thread, in which `asyncio.run` would then fail.
    """
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    """A headless Chromium for a whole file, none of whose tests may call `asyncio.run`: see `browser`.

    Such a file has a `browser` of its own, which closes the pages of a test after it.
    """
    with running_browser() as browser:
        yield browser
