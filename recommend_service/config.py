"""Settings of the recommendation service: what a user writes in YAML, one to one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dynaq.feedback.exposure_policy import POOL, SHARPEST, SHARPNESS
from dynaq.settings import load_settings

API_KEY = "DYNAQ_API_KEY"  # environment variable
PREFERENCE_WEIGHT = 0.7
MAX_K = POOL  # longest list: what the exposure policy draws from

Positive = Annotated[int, Field(gt=0)]


class RecommendConfig(BaseModel):
    """Where from, how to rank, and the limits.

    Args:
        store: store URI; applicants, jobs, vectors and the ledger are read, feedback and new applicants are written.
        run: run folder whose agents rank; or
        serving: folder in which `dynaq promote` names the run.
        encoder: sentence-transformers model, for preferences and new applicants; None is the packaged one. It must be
            the one the store was embedded with.
        api_key: bearer token; None reads $DYNAQ_API_KEY. Needed on any address but loopback.
        preference_weight: share of a preference in the order of the list, the rest is the agent's; 0 to 1.
        shortlist: the agent's best jobs, which a preference orders anew.
        explore: draw lists around the ranking, so that what people do tells something about other rankings; off shows
            the ranking itself, from which no other can be evaluated.
        sharpness: how close to the ranking (`dynaq.feedback.exposure_policy`).
        cached_agents: agents whose ranking is kept in memory, 20 kB each; the others are read when asked for.
        poll_seconds: between two looks for a new run.
        catalogue_seconds: between two looks for changes of the store.
        feedback_per_second, feedback_burst: events that one caller may send.
        applicants_per_minute: profiles that one caller may create.
        max_batch: events in one call.
        max_waiting: calls with events, and exposures, that may wait for the disk; more are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: str
    run: str | None = None
    serving: str | None = None
    encoder: str | None = None
    api_key: str | None = Field(default=None, repr=False)
    preference_weight: float = Field(default=PREFERENCE_WEIGHT, ge=0, le=1)
    shortlist: int = Field(default=200, ge=MAX_K, le=5000)
    explore: bool = True
    sharpness: float = Field(default=SHARPNESS, ge=0, le=SHARPEST)
    cached_agents: Positive = 1000
    poll_seconds: float = Field(default=2.0, gt=0)
    catalogue_seconds: float = Field(default=60.0, gt=0)
    feedback_per_second: float = Field(default=20.0, gt=0)
    feedback_burst: Positive = 1000
    applicants_per_minute: float = Field(default=30.0, gt=0)
    max_batch: int = Field(default=1000, ge=1, le=10_000)
    max_waiting: Positive = 10_000

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.run is None) == (self.serving is None):
            raise ValueError("name either a run folder (--run) or a folder of promoted runs (--serving)")
        if self.max_batch > self.feedback_burst:
            raise ValueError("feedback_burst must allow a batch of max_batch events")
        return self

    @classmethod
    def load(cls, path: str | Path | None = None, **overrides: Any) -> Self:
        """Defaults, then the YAML file, then the overrides that are not None.

        Raises InputError that names each field that is wrong.
        """
        return load_settings(cls, "recommender configuration", path, overrides)

    def with_secrets(self) -> Self:
        """With the key that this process's environment holds: replicas run elsewhere and do not see it."""
        if self.api_key is not None:
            return self
        return self.model_copy(update={"api_key": os.environ.get(API_KEY) or None})
