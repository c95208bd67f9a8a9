"""The trials of a comparison, and the Ray Tune searcher and scheduler that propose and stop them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune import TuneConfig
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Repeater, create_searcher
from ray.tune.search.repeater import TRIAL_INDEX

from cluster.tuning.space import Space
from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.runs.trials import Trial, label_of

SCORE = "score"  # what schedulers and searchers maximise: nDCG@10 where relevance is known, else the slates' reward
PROGRESS = "progress"  # percent of a trial's rounds


@dataclass(frozen=True)
class Plan:
    """What is compared: every combination of strategy, seed and setting.

    Args:
        strategies: of `dynaq.agent.reward_strategy`, or `rllib-dqn`.
        seeds: of the agents.
        space: settings to try; empty: only those of the config.
        samples: number of settings drawn from the space.
        search: how they are drawn: random, hyperopt or optuna.
        scheduler: what stops settings that lag behind others of the same strategy: asha or none.
    """

    strategies: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    space: Space = field(default_factory=lambda: Space({}))
    samples: int = 1
    search: str = "random"
    scheduler: str = "none"

    @property
    def size(self) -> int:
        """Number of trials."""
        lists = [values for values in self.space.fields.values() if isinstance(values, list)]
        grid = math.prod(map(len, lists)) if self.search == "random" else 1
        return len(self.strategies) * len(self.seeds) * self.samples * grid

    def trial(self, params: Mapping[str, Any]) -> Trial:
        """The trial with these parameters, which Tune drew."""
        if TRIAL_INDEX in params:
            strategy = self.strategies[params[TRIAL_INDEX] // len(self.seeds)]
            seed = self.seeds[params[TRIAL_INDEX] % len(self.seeds)]
        else:
            strategy, seed = params["strategy"], params["seed"]
        setting = {name: params[name] for name in self.space.fields}
        parts = [strategy, f"seed{seed}" if len(self.seeds) > 1 else "", label_of(setting)]
        return Trial("-".join(part for part in parts if part), strategy, seed, setting)

    def names(self) -> list[str]:
        """Names of the trials; empty when they depend on what will be drawn."""
        if self.search != "random" or self.space.drawn:
            return []
        values = itertools.product(self.strategies, self.seeds, *self.space.fields.values())
        keys = ("strategy", "seed", *self.space.fields)
        return [self.trial(dict(zip(keys, one, strict=True))).name for one in values]

    def to_json(self) -> dict[str, Any]:
        """The plan as the comparison's config.yaml records it; --resume requires the same."""
        return {
            "strategies": list(self.strategies),
            "seeds": list(self.seeds),
            "space": dict(self.space.fields),
            "samples": self.samples,
            "search": self.search,
            "scheduler": self.scheduler,
        }


def param_space(plan: Plan) -> dict[str, Any]:
    """The search space that Tune draws trials from: strategies, seeds and settings."""
    if plan.search != "random":
        return dict(plan.space.domains())
    both = {"strategy": tune.grid_search(list(plan.strategies)), "seed": tune.grid_search(list(plan.seeds))}
    return both | plan.space.grid()


def tune_config(plan: Plan, config: DynaQConfig, concurrent: int) -> TuneConfig:
    """Scheduler, searcher and sample counts, with at most `concurrent` trials at a time."""
    scheduler = PerStrategy(plan) if plan.scheduler == "asha" else FIFOScheduler()  # type: ignore[no-untyped-call]
    shared: dict[str, Any] = {
        "metric": SCORE,
        "mode": "max",
        "scheduler": scheduler,
        "trial_dirname_creator": lambda trial: plan.trial(trial.config).name,
    }
    if plan.search == "random":
        generator = BasicVariantGenerator(
            max_concurrent=concurrent, constant_grid_search=True, random_state=config.seed
        )
        return TuneConfig(num_samples=plan.samples, search_alg=generator, **shared)
    # Every setting is tried with every strategy and seed; the searcher learns from the mean.
    repeat = len(plan.strategies) * len(plan.seeds)
    searcher = Repeater(make_searcher(plan.search, config.seed), repeat=repeat)
    return TuneConfig(
        num_samples=plan.samples * repeat, search_alg=searcher, max_concurrent_trials=concurrent, **shared
    )


def make_searcher(name: str, seed: int) -> Any:
    """One of Tune's searchers. Raises InputError when its package is missing."""
    try:
        return create_searcher(name, metric=SCORE, mode="max", random_state_seed=seed, seed=seed)
    except (AssertionError, ImportError):
        raise InputError(
            f"--search {name} needs the package {name}, which is not installed; install it, or use --search random"
        ) from None


class PerStrategy(FIFOScheduler):
    """ASHA (Li et al. 2020, arXiv 1810.05934) for each strategy separately.

    Settings that lag behind others of their strategy are stopped. That a strategy lags behind another is a result of
    the comparison, not a reason to stop it.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._plan = plan
        self._asha = {
            strategy: ASHAScheduler(time_attr=PROGRESS, max_t=100, grace_period=20, reduction_factor=2)
            for strategy in plan.strategies
        }

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Pass the metric on to every strategy's scheduler. True when all accept it."""
        done = [asha.set_search_properties(metric, mode, **spec) for asha in self._asha.values()]
        return all(done)

    def _of(self, trial: Any) -> ASHAScheduler:
        return self._asha[self._plan.trial(trial.config).strategy]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Hand a new trial to its strategy's scheduler."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The decision of its strategy's scheduler; the trial continues while its score is unknown."""
        if math.isnan(result.get(SCORE, math.nan)):
            return TrialScheduler.CONTINUE
        return self._of(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Tell its strategy's scheduler the last score, if it is known."""
        if not math.isnan(result.get(SCORE, math.nan)):
            self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Tell its strategy's scheduler that a trial is gone."""
        self._of(trial).on_trial_remove(tune_controller, trial)
