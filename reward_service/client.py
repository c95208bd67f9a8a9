"""Clients of the judge: over a Serve handle inside the cluster, and over HTTP. Both are `dynaq.judge.Judge`s.

Both back off and ask again when the judge is busy or its replica is being replaced, and raise the last failure when
`patience` seconds have passed. No judgement is made up.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from dynaq.errors import JudgeError
from dynaq.judge import Judgement
from dynaq.records import Candidate, Job
from reward_service.errors import JudgeBusy, JudgeUnavailable

T = TypeVar("T")
LONGEST_PAUSE = 10.0


class RewardClient(ABC):
    """A judge elsewhere. `judge` may be called from any thread, `judge_async` from any event loop.

    Args:
        patience: seconds during which a busy or missing judge is asked again; enough for a replica to be replaced.
    """

    def __init__(self, patience: float = 180.0) -> None:
        self.patience = patience
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    @abstractmethod
    def fingerprint(self) -> str: ...

    @abstractmethod
    async def _ask(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One attempt. Raises JudgeBusy or JudgeUnavailable when another may succeed."""

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order. Raises JudgeError."""
        if not jobs:
            return []
        deadline = time.monotonic() + self.patience
        pause = 0.25
        while True:
            try:
                return await self._ask(applicant, jobs)
            except (JudgeBusy, JudgeUnavailable) as error:
                # Half of the pause is drawn, so that clients refused together do not come back together.
                wait = max(getattr(error, "retry_after", 0.0), pause * (0.5 + random.random() / 2))
                if time.monotonic() + wait > deadline:
                    raise
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def judge(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """`judge_async` for callers without an event loop. Raises JudgeError."""
        return self._run(self.judge_async(applicant, jobs))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on this client's own loop, in a thread that lives as long as the client's process."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="reward-client", daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


class ServeJudge(RewardClient):
    """Over a Serve handle. Can be pickled into other actors of the cluster."""

    def __init__(self, handle: Any, fingerprint: str, patience: float = 180.0) -> None:
        super().__init__(patience)
        self._handle = handle
        self._fingerprint = fingerprint

    def __reduce__(self) -> tuple[Any, ...]:
        return ServeJudge, (self._handle, self._fingerprint, self.patience)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    async def _ask(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        import ray
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        # The session is what the router hashes: one applicant's calls meet their profile in one replica's cache.
        handle = self._handle.options(session_id=applicant.id)
        try:
            answers: list[Judgement] = await handle.judge.remote(applicant, list(jobs))
        except BackPressureError as error:
            raise JudgeBusy("the judge's queue is full; ask again") from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, JudgeError):
                raise error.cause from None
            raise JudgeError(f"the judge failed on applicant {applicant.id!r}: {error.cause!r}") from error
        except (ray.exceptions.RayActorError, DeploymentUnavailableError) as error:
            raise JudgeUnavailable("the judge's replica went away and is being replaced; ask again") from error
        return answers
