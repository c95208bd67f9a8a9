"""Settings of the recommendation service. The fields are those of the YAML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dynaq.errors import InputError
from dynaq.feedback.exposure_policy import POOL, SHARPEST, SHARPNESS
from dynaq.settings import load_settings
from dynaq.stores import is_mongo

API_KEY = "DYNAQ_API_KEY"  # environment variable
READ_KEY = "DYNAQ_READ_KEY"
PREFERENCE_WEIGHT = 0.7
MAX_K = POOL  # longest list: what the exposure policy draws from

Positive = Annotated[int, Field(gt=0)]


class RecommendConfig(BaseModel):
    """Sources, ranking and limits of the service.

    Args:
        store: store URI; applicants, jobs, vectors and the ledger are read, feedback and new applicants are written.
        run: run folder whose agents rank. Give either this or `serving`.
        serving: folder in which `dynaq promote` names the run.
        encoder: sentence-transformers model for preferences and new applicants, the one with which the store was
            embedded; None takes it from the store if it is a packaged one.
        api_key: bearer token; None reads $DYNAQ_API_KEY. Required on any address but loopback.
        read_key: bearer token of a caller who only reads; None reads $DYNAQ_READ_KEY, and there may be none.
        keep_days: days after which feedback and exposures are deleted; None keeps them.
        access_log: file for a line per call, without personal data; None writes none.
        preference_weight: weight of a preference in the order of the list, 0 to 1; the rest is the agent's.
        shortlist: number of the agent's best jobs that a preference re-ranks.
        explore: draw lists around the ranking, so that feedback is informative about other rankings; off shows the
            ranking itself, and no other ranking can then be evaluated.
        sharpness: how close the lists are to the ranking (`dynaq.feedback.exposure_policy`).
        memory: whether lists take account of what the applicant has just seen: where everybody's events show that
            people tire of a kind of job, or that their interest moves, kinds of jobs count less or more after what the
            applicant acted on; while events show neither, lists are those without it.
        cached_agents: agents whose ranking is kept in memory, 20 kB each; the others are read on request.
        poll_seconds: time between two checks for a new run.
        catalogue_seconds: time between two checks for changes of the store.
        feedback_per_second, feedback_burst: limits on the events of one caller, over all replicas.
        applicants_per_minute: limit on the profiles that one caller creates, over all replicas.
        max_batch: most events in one call.
        max_waiting: most feedback calls and exposures waiting for the disk of one replica; further ones are refused.
        replicas: number of processes, one whatever is asked for on a folder store, which has one writer of feedback.
        max_replicas: up to which Serve adds processes while each has many requests; None adds none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: str
    run: str | None = None
    serving: str | None = None
    encoder: str | None = None
    api_key: str | None = Field(default=None, repr=False)
    read_key: str | None = Field(default=None, repr=False)
    keep_days: float | None = Field(default=None, gt=0)
    access_log: str | None = None
    preference_weight: float = Field(default=PREFERENCE_WEIGHT, ge=0, le=1)
    shortlist: int = Field(default=200, ge=MAX_K, le=5000)
    explore: bool = True
    sharpness: float = Field(default=SHARPNESS, ge=0, le=SHARPEST)
    memory: bool = False
    cached_agents: Positive = 1000
    poll_seconds: float = Field(default=2.0, gt=0)
    catalogue_seconds: float = Field(default=60.0, gt=0)
    feedback_per_second: float = Field(default=20.0, gt=0)
    feedback_burst: Positive = 1000
    applicants_per_minute: float = Field(default=30.0, gt=0)
    max_batch: int = Field(default=1000, ge=1, le=10_000)
    max_waiting: Positive = 10_000
    replicas: Positive = 1
    max_replicas: Positive | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.run is None) == (self.serving is None):
            raise ValueError("name either a run folder (--run) or a folder of promoted runs (--serving)")
        if self.max_batch > self.feedback_burst:
            raise ValueError("feedback_burst must allow a batch of max_batch events")
        return self

    @classmethod
    def load(cls, path: str | Path | None = None, **overrides: Any) -> Self:
        """Merge the defaults, the YAML file and the overrides that are not None; later ones win.

        Raises InputError naming each invalid field.
        """
        return load_settings(cls, "recommender configuration", path, overrides)

    @property
    def most_replicas(self) -> int:
        """The largest number of replicas that is asked for."""
        return max(self.replicas, self.max_replicas or 1)

    @property
    def one_replica(self) -> str | None:
        """Why there is only one replica although more are asked for; None if there are as many as asked for."""
        if self.most_replicas == 1 or is_mongo(self.store):
            return None
        return f"a folder has one writer of feedback, so it gets one replica, not {self.most_replicas}; use mongodb://"

    def with_secrets(self) -> Self:
        """With the keys from this process's environment, which replicas on other nodes do not have."""
        found = {"api_key": API_KEY, "read_key": READ_KEY}
        update = {name: getattr(self, name) or os.environ.get(variable) or None for name, variable in found.items()}
        if update["read_key"] and not update["api_key"]:
            raise InputError(f"a key that only reads needs a service key beside it; set {API_KEY}")
        return self.model_copy(update=update)
