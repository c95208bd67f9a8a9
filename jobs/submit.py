"""dynaq submit: run a command of this project on a Ray cluster, from this working tree, through the Ray Jobs API."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

import cluster.session  # noqa: F401  (turns on token authentication)
from dynaq.errors import DynaqError, InputError
from jobs.cli import VERBS, run_verb
from jobs.terminal.console import console, say
from jobs.terminal.signatures import module_of

DASHBOARD = "http://127.0.0.1:8265"
STARTING_SECONDS = 60.0
EXCLUDED = [".git", ".venv", "build", "dist", "data", "runs", "*.egg-info", ".*_cache", "**/__pycache__"]


def main(
    command: Annotated[list[str], typer.Argument(help="-- then a command of dynaq, such as: train --store …")],
    address: Annotated[str | None, typer.Option(help=f"of the cluster's dashboard; default: {DASHBOARD}")] = None,
    stop_on_interrupt: Annotated[
        bool, typer.Option("--stop-on-interrupt", help="Ctrl-C stops the job, not only this view of it")
    ] = False,
) -> None:
    """Send a command to a cluster, follow its output, exit with its exit code."""
    client = connect(address or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD)
    job = send(client, entrypoint(command))
    say(f"job {job}")
    try:
        asyncio.run(follow(client, job))
    except KeyboardInterrupt:
        if stop_on_interrupt:
            client.stop_job(job)
            say(f"job {job} is being stopped")
        else:
            say(f"job {job} keeps running; `ray job logs --follow {job}` shows it again")
        raise
    raise typer.Exit(exit_code(client, job))


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster whose dashboard is at the address. Raises InputError when none answers."""
    try:
        client = JobSubmissionClient(address)
        client.get_version()
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"no Ray dashboard answers at {address!r} ({reason}); name the cluster's with --address, check that your "
            "~/.ray/auth_token is the cluster's"
        ) from error
    return client


def send(client: JobSubmissionClient, line: str) -> str:
    """Submit with this working tree, if there is one; a cluster that has just started gets a minute to accept jobs."""
    for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):  # the client resets the level of the second
        logging.getLogger(name).setLevel(logging.ERROR)
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        try:
            return client.submit_job(entrypoint=line, runtime_env=sent_code(project_root()))
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise DynaqError(f"the cluster does not take the job: {str(error).splitlines()[0]}") from error
            if time.monotonic() > deadline:
                raise DynaqError(
                    "the cluster's head has no agent that takes jobs; if several Rays run on that machine, start this "
                    "one with `ray start --head --dashboard-agent-listen-port` and a free port"
                ) from error
        time.sleep(1.0)


def entrypoint(command: list[str]) -> str:
    """The command line that the cluster runs. Raises InputError unless it is one of this project's commands."""
    verb, *rest = command
    if verb not in VERBS or verb == "submit":
        raise InputError(
            f"{verb!r} cannot be submitted; the commands are {', '.join(v for v in VERBS if v != 'submit')}"
        )
    return shlex.join(["python", "-m", module_of(verb), *rest])


def project_root() -> Path:
    """The working tree that holds this file."""
    return Path(__file__).resolve().parent.parent


def sent_code(root: Path) -> dict[str, Any]:
    """Ray's runtime environment of a job: the working tree at `root`, or nothing when this is an installed wheel.

    An installed wheel lies among all other installed packages, which the cluster has itself.
    """
    if not (root / "pyproject.toml").is_file():
        return {}
    return {"working_dir": str(root), "excludes": EXCLUDED}


async def follow(client: JobSubmissionClient, job: str) -> None:
    """Print the job's output until it ends."""
    async for lines in client.tail_job_logs(job):
        console.print(lines, end="", markup=False, soft_wrap=True)


def exit_code(client: JobSubmissionClient, job: str) -> int:
    """The job's own exit code. Raises DynaqError when it ended without one."""
    info = client.get_job_info(job)
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    raise DynaqError(f"job {job} ended as {info.status}: {(info.message or '').strip().splitlines()[0:1]}")


if __name__ == "__main__":
    run_verb("submit")
