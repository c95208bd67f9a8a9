"""Cluster launcher files and manifests: valid by Ray's and KubeRay's own schemas, closed, without secrets."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.serve.schema import ServeDeploySchema

import recommend_service.app
from jobs.cli import VERBS
from jobs.terminal.signatures import module_of

ROOT = Path(__file__).parents[2]
LAUNCHERS = (ROOT / "ray_config.yaml", ROOT / "cluster" / "ray_config_gcp.yaml")
DOCKERFILE = ROOT / "cluster" / "kuberay" / "Dockerfile"
MANIFESTS = tuple(sorted((ROOT / "cluster" / "kuberay").glob("ray*.yaml")))
CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay"))
RAY_KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def find_all(value: Any, key: str) -> Iterator[Any]:
    """Every value of a key, however deep."""
    if isinstance(value, dict):
        yield from ([value[key]] if key in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from find_all(part, key)


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """Every container of a manifest, however deep."""
    return chain.from_iterable(find_all(value, "containers"))


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)
def test_a_launcher_file_is_valid_by_rays_schema(path: Path) -> None:
    config = documents(path)[0]
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_wrokers": 1}, schema)


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)
def test_a_launched_cluster_is_authenticated_closed_and_scales_what_it_should(path: Path) -> None:
    config = documents(path)[0]
    types = config["available_node_types"]
    assert config["head_node_type"] == "head"
    assert "GPU" not in types["head"]["resources"]
    assert types["judge"]["resources"]["GPU"] == 1
    assert all(types[name]["min_workers"] == 0 < types[name]["max_workers"] for name in ("judge", "training"))
    starts = [line for key in ("head", "worker") for line in config[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert " 0.0.0.0" not in path.read_text()
    assert any("make setup" in line for line in config["setup_commands"])


def test_the_aws_group_lets_nothing_in_but_ssh() -> None:
    rules = documents(LAUNCHERS[0])[0]["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]
    assert all(place["CidrIp"] != "0.0.0.0/0" for rule in rules for place in rule["IpRanges"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_valid_by_kuberays_schema(path: Path) -> None:
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's CRDs are not at {CRDS}; name their folder with KUBERAY_CRDS")
    checked = 0
    for document in documents(path):
        if document["kind"] not in RAY_KINDS:
            continue
        validator(document["kind"], document["apiVersion"]).validate(document)
        checked += 1
    assert checked == 1


@cache
def validator(kind: str, version: str) -> jsonschema.Draft202012Validator:
    """Of one of KubeRay's kinds; its schema itself is not on trial."""
    packed = CRDS / f"ray.io_{RAY_KINDS[kind]}.yaml.gz"
    # A megabyte each: libyaml reads it ten times as fast as the parser in Python.
    crd = yaml.load(gzip.decompress(packed.read_bytes()), yaml.CSafeLoader)
    found = next(v for v in crd["spec"]["versions"] if f"ray.io/{v['name']}" == version)
    return jsonschema.Draft202012Validator(closed(found["schema"]["openAPIV3Schema"]))


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused, as the API server prunes them silently; its own extensions resolved."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: closed(value) for key, value in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and "properties" in schema and not free and schema["properties"]:
        found["additionalProperties"] = False
    if isinstance(found.get("properties"), dict) and found["properties"].get("metadata") == {"type": "object"}:
        found["properties"] = found["properties"] | {"metadata": {"type": "object"}}
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_container_is_probed_bounded_and_gets_its_secrets_by_reference(path: Path) -> None:
    found = [one for document in documents(path) for one in containers(document)]
    groups = next(iter(find_all(documents(path), "workerGroupSpecs")))
    assert len(found) == 1 + len(groups)  # the head's and one for each kind of worker
    for one in found:
        assert one["livenessProbe"]["exec"]
        assert one["readinessProbe"]["exec"]
        assert set(one["resources"]["requests"]) >= {"cpu", "memory"}
        environment = {variable["name"]: variable for variable in one["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert "secretKeyRef" in environment["RAY_AUTH_TOKEN"]["valueFrom"]
        assert "secretKeyRef" in environment["DYNAQ_STORE"]["valueFrom"]
        assert one["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize(("name", "room"), [("judge", "reward_service"), ("recommend", "recommend_service")])
def test_a_service_holds_a_serve_config_that_serve_accepts(name: str, room: str) -> None:
    (service,) = documents(ROOT / "cluster" / "kuberay" / f"rayservice-{name}.yaml")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    assert [application.import_path for application in config.applications] == [f"{room}.app:build"]


def test_the_recommenders_manifest_sets_what_its_application_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    (service,) = documents(ROOT / "cluster" / "kuberay" / "rayservice-recommend.yaml")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    monkeypatch.setenv("DYNAQ_STORE", "mongodb://from-the-secret/db")
    built = recommend_service.app.build(application["args"])._bound_deployment
    assert [one["name"] for one in application["deployments"]] == [built.name]
    assert built._deployment_config.autoscaling_config.max_replicas == 8


def test_the_jobs_run_commands_that_exist() -> None:
    for verb in ("train", "tune"):
        (job,) = documents(ROOT / "cluster" / "kuberay" / f"rayjob-{verb}.yaml")
        assert f"python -m jobs.{verb} " in job["spec"]["entrypoint"]
        assert verb in VERBS


def copied_by_the_dockerfile() -> list[tuple[str, str]]:
    """(source in the repository, target in the image) of each COPY."""
    found = []
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY "):
            *sources, target = [word for word in line.split()[1:] if not word.startswith("--")]
            into = target.endswith("/")
            found += [(source, os.path.normpath(f"{target}/{source}" if into else target)) for source in sources]
    return found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the Dockerfile copies, and nothing else."""
    folder = tmp_path_factory.mktemp("image")
    for source, target in copied_by_the_dockerfile():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder / target)
    return folder


@pytest.mark.slow
def test_every_command_is_imported_from_what_the_dockerfile_copies(image: Path) -> None:
    modules = [*map(module_of, VERBS), "reward_service.app", "recommend_service.app"]
    # An editable install of this project in the same environment must not fill the gaps.
    code = (
        "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; "
        "rooms = {'dynaq', 'cluster', 'reward_service', 'recommend_service', 'jobs'}; "
        "print(*(m.__file__ for name, m in sys.modules.items() if name.split('.')[0] in rooms), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules],
        cwd=image,
        env=os.environ | {"PYTHONPATH": str(image)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {file for file in done.stdout.split() if not Path(file).is_relative_to(image)} == set()


@pytest.mark.slow
def test_what_the_dockerfile_copies_can_be_installed(image: Path, tmp_path: Path) -> None:
    """Its `pip install -e .` builds the package, which fails where a file that the metadata names was not copied."""
    code = "import sys; from setuptools import build_meta; print(build_meta.build_editable(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=image, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("dynaq_jobs-*.whl"))


def test_the_dockerfile_installs_pinned_versions_and_runs_as_nobody_special() -> None:
    text = DOCKERFILE.read_text()
    assert "--constraint requirements/constraints.txt" in text
    assert "USER ray" in text
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"--extra (\w+)", text)) | set(re.findall(r"ENGINE=(\w+)", text))
    assert {"cluster", "demo", "cpu", "gpu"} == named <= set(extras)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_worker_that_the_engine_names_for_vllm_exists() -> None:
    """In a process of its own: vllm takes long to import and stays."""
    (name,) = re.findall(r'worker_cls="([\w.]+)"', (ROOT / "reward_service" / "engine.py").read_text())
    code = (
        "import sys; from vllm.utils.import_utils import resolve_obj_by_qualname as resolve; "
        "assert issubclass(resolve(sys.argv[1]), resolve('vllm.v1.worker.cpu_worker.CPUWorker'))"
    )
    done = subprocess.run([sys.executable, "-c", code, name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_network_policy_lets_only_the_judges_port_out_of_the_cluster() -> None:
    (policy,) = documents(ROOT / "cluster" / "kuberay" / "networkpolicy.yaml")
    inside, everyone = policy["spec"]["ingress"]
    assert "ports" not in inside
    assert all(peer.get("podSelector") or peer.get("namespaceSelector") for peer in inside["from"])
    assert everyone["ports"] == [{"port": 8000}]
