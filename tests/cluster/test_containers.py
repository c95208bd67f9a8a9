"""compose.yaml: valid by the Compose specification, closed, without secrets, with commands and files that exist."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jobs.cli import VERBS
from tests.test_documentation import dynaq_complaint

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = (ROOT / "cluster" / "kuberay" / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def words(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else command


def test_it_is_valid_by_the_specifications_schema() -> None:
    package = find_spec("check_jsonschema")  # which is not imported: only its file is wanted
    if package is None or package.origin is None:
        pytest.skip("check-jsonschema, which carries the schema, is not installed; run make setup")
    vendored = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    compose = yaml.safe_load(COMPOSE.read_text())
    jsonschema.validate(compose, schema)
    compose["services"]["judge"]["comand"] = "true"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, schema)


def test_it_brings_database_judge_recommender_and_dashboard(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"mongod", "judge", "recommender", "prometheus", "grafana"}
    assert all(one["depends_on"]["mongod"] for name, one in services.items() if name in ("judge", "recommender"))


def test_every_service_is_unprivileged_and_open_to_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    for name, one in services.items():
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in one, name
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ())), name
        built = "build" in one and re.search(r"^USER ray$", DOCKERFILE, re.M)
        assert built or not one["user"].startswith("0"), name
        assert not one["image"].endswith(":latest"), name
        assert ":" in one["image"], name
    assert "ports" not in services["mongod"]
    assert services["mongod"]["networks"] == ["database"]
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["database"]["internal"] is True


def test_secrets_come_from_the_environment_and_are_asked_for(services: dict[str, dict[str, Any]]) -> None:
    for one in services.values():
        for name, value in one.get("environment", {}).items():
            if re.search("KEY|TOKEN|PASSWORD", name):
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value), name
    for file in (".gitignore", ".dockerignore"):
        assert re.search(r"^/?\.env$", (ROOT / file).read_text(), re.M), file


def test_its_commands_are_ours(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("judge", "recommender"):
        _, _, ours = " ".join(words(services[name]["command"])).partition("dynaq ")
        assert ours.split()[0] in VERBS
        assert dynaq_complaint(shlex.split(ours), monkeypatch, whole=True) == "", name


def test_files_that_it_mounts_are_there(services: dict[str, dict[str, Any]]) -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    for one in services.values():
        for source in (volume.split(":")[0] for volume in one.get("volumes", ()) if not volume.startswith("$")):
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], source
    assert (ROOT / services["judge"]["build"]["dockerfile"]).exists()


def test_the_user_owns_what_volumes_are_mounted_over(services: dict[str, dict[str, Any]]) -> None:
    """Else a new volume belongs to root, and an unprivileged user cannot write to it."""
    _, _, after = DOCKERFILE.partition("USER ray")
    made = re.findall(r"^RUN mkdir -p (.*)$", after, re.M)[0].split()
    for name in ("judge", "recommender"):
        for volume in services[name]["volumes"]:
            _, target, *mode = volume.rsplit(":", 2) if volume.endswith(":ro") else [*volume.rsplit(":", 1)]
            assert mode == ["ro"] or target in made, volume


def test_grafana_finds_prometheus_and_the_dashboard(services: dict[str, dict[str, Any]]) -> None:
    folder = ROOT / "cluster" / "compose"
    (source,) = yaml.safe_load((folder / "datasource.yaml").read_text())["datasources"]
    dashboard = json.loads((ROOT / "cluster" / "grafana" / "dashboard.json").read_text())
    assert source["uid"] in json.dumps(dashboard)
    assert services["prometheus"]["network_mode"] == "service:judge"
    assert source["url"] == "http://judge:9090"
    assert "127.0.0.1:9090:9090" in services["judge"]["ports"]
    scraped = {
        one["job_name"]: one for one in yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
    }
    assert scraped["recommender"]["authorization"]["credentials_file"] == "/run/secrets/read-key"
    assert services["prometheus"]["secrets"] == ["read-key"]
