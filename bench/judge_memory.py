"""What does the packaged judge make of a history? `python -m bench.judge_memory`

ESCO's applicants, with the prompts of a judge with `memory: 5` and transformers in float32 in place of the engine. Two
histories of five events of "this week": jobs that fit an applicant, applied for, and the same jobs called not for them.
Of each the AUC of relevant jobs against others, none of which is in the history; then, one event at a time, by how much
the answer on a job moves when the applicant has applied for another posting of the same occupation, has called it not
for them, or has applied for an unrelated one. Intervals are 95 % over applicants.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from bench.judge_questions import Scorer
from dynaq.evaluation.intervals import interval
from dynaq.evaluation.ranking import auc
from dynaq.judging.history import Did, History, PastEvent, with_history
from dynaq.judging.judgement import LABELS, expected_reward
from dynaq.markets import Market, esco_market
from dynaq.records import Candidate, Job
from reward_service.config import JudgeConfig
from reward_service.engine import Tokens
from reward_service.llm_judge import LLMJudge, label_probabilities
from reward_service.model import resolve_model
from reward_service.prompts import (
    CONTENT_FREE,
    LETTERS,
    ChatPrompt,
    configured_prompt,
    job_text,
    likelihood_prefix,
    likelihood_suffix,
)

Values = npt.NDArray[np.float64]

TOLD_EVENTS = 5
EACH = 4  # relevant jobs that an applicant is asked about; of others twice as many


class Judges:
    """Both methods on one model."""

    def __init__(self) -> None:
        self._scorer = Scorer(resolve_model(None), "cpu")
        self._tokens = Tokens(self._scorer.tokenizer)
        self.configs = {name: JudgeConfig(method=name, memory=TOLD_EVENTS) for name in ("likelihood", "choice")}
        # Only what it makes of texts is used, which needs no engine but offsets.
        self._texts = {name: LLMJudge(config, self._tokens) for name, config in self.configs.items()}  # type: ignore[arg-type]
        self._baseline: dict[str, float] = {}
        self.tokens = 0

    def _rows(self, jobs: Sequence[Job]) -> list[str]:
        limit, offsets = self.configs["likelihood"].job_limit, self._tokens.offsets
        return [likelihood_suffix(job_text(job, limit, offsets, description=False)) for job in jobs]

    def know(self, jobs: Sequence[Job]) -> None:
        """Compute how likely the jobs' texts are without a profile, once for all applicants."""
        new = [row for row in self._rows(jobs) if row not in self._baseline]
        if new:
            self._baseline |= dict(zip(new, self._means(CONTENT_FREE, new), strict=True))

    def likelihood(self, applicant: Candidate, jobs: Sequence[Job]) -> Values:
        """Rewards `[jobs]`."""
        self.know(jobs)
        config, rows = self.configs["likelihood"], self._rows(jobs)
        prefix = likelihood_prefix(self._texts["likelihood"].applicant_text(applicant))
        self.tokens = len(self._tokens.untrusted(prefix))
        gains = [mean - self._baseline[row] for mean, row in zip(self._means(prefix, rows), rows, strict=True)]
        return np.array([expected_reward(label_probabilities(gain, config.cut_points)) for gain in gains])

    def _means(self, prefix: str, rows: Sequence[str]) -> list[float]:
        ids = [list(self._tokens.untrusted(row)) for row in rows]
        return [float(one.mean()) for one in self._scorer.text(list(self._tokens.untrusted(prefix)), ids)]

    def choice(self, applicant: Candidate, jobs: Sequence[Job]) -> Values:
        """Rewards `[jobs]`."""
        config = self.configs["choice"]
        profile = self._texts["choice"].applicant_text(applicant)
        texts = [job_text(job, config.job_limit, self._tokens.offsets) for job in jobs]
        prompts = [configured_prompt(config, profile, text) for text in texts]
        ids = [self._tokens.chat(prompt) for prompt in prompts]
        shared = min(_shared(ids[0], row) for row in ids) if len(ids) > 1 else len(ids[0]) - 1
        letters = list(self._tokens.letter_ids(LETTERS).values())
        found = self._scorer.answer(ids[0][:shared], [row[shared:] for row in ids], letters)
        return np.array([_reward(prompt, row) for prompt, row in zip(prompts, found, strict=True)])


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    same = (x == y for x, y in zip(a[:-1], b[:-1], strict=False))
    return next((i for i, equal in enumerate(same) if not equal), min(len(a), len(b)) - 1)


def _reward(prompt: ChatPrompt, logprobs: npt.NDArray[np.float32]) -> float:
    p = np.exp(logprobs - logprobs.max())
    by_label = dict(zip(prompt.letters.values(), p / p.sum(), strict=True))
    return expected_reward([float(by_label[label]) for label in LABELS])


def did(event: Did, jobs: Sequence[Job]) -> History:
    """The same event on each of the jobs."""
    return tuple(PastEvent(event=event, job_id=job.id, ago="this week", title=job.title) for job in jobs)


def occupation(job: Job) -> str:
    """Its title in ESCO, which all postings of it share."""
    return cast(str, job.metadata["esco_occupation"])


def ranking(judges: Judges, market: Market, applicants: Sequence[Candidate]) -> None:
    """AUC by history, with the tokens of the prompt before the job and the CPU seconds of a pair."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    tokens: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    pairs = 0
    for applicant in applicants:
        grades = market.qrels.grades(applicant.id)
        shuffled = [market.jobs[i] for i in rng.permutation(len(market.jobs))]
        fits = [job for job in shuffled if grades.get(job.id, 0) > 0]
        others = [job for job in shuffled if not grades.get(job.id)]
        told, asked = fits[:TOLD_EVENTS], fits[TOLD_EVENTS : TOLD_EVENTS + EACH]
        jobs = [*asked, *others[TOLD_EVENTS : TOLD_EVENTS + 2 * EACH]]
        pairs += len(jobs)
        judges.know(jobs)
        histories = {"none": (), "applied for": did("apply", told), "not for me": did("ignore", told)}
        for name, history in histories.items():
            began = time.process_time()
            rewards = judges.likelihood(with_history(applicant, history, {}), jobs)
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - began
            found.setdefault(name, []).append(auc(rewards[: len(asked)], rewards[len(asked) :]))
            tokens.setdefault(name, []).append(judges.tokens)
    print(f"likelihood, {pairs} pairs of {len(applicants)} applicants")
    print(f"{'history of ' + str(TOLD_EVENTS):34}{'AUC':>7}{'change':>26}{'tokens':>9}{'CPU s/pair':>12}")
    for name, values in found.items():
        change = shown(np.array(values) - np.array(found["none"])) if name != "none" else ""
        print(
            f"{name:34}{np.mean(values):7.3f}{change:>26}{np.mean(tokens[name]):9.0f}{seconds[name] / pairs:12.3f}",
            flush=True,
        )


def moves(judges: Judges, market: Market, applicants: Sequence[Candidate], method: str) -> None:
    """How one event moves the reward of a job, by whether it was about a similar one."""
    ask = judges.likelihood if method == "likelihood" else judges.choice
    rng = np.random.default_rng(1)
    found: dict[str, list[float]] = {}
    for applicant in applicants:
        own = [job for job in market.jobs if market.qrels.grades(applicant.id).get(job.id) == 3.0]
        far = [job for job in market.jobs if not market.qrels.grades(applicant.id).get(job.id)]
        place = int(rng.integers(len(far)))
        target = {"a fitting job": own[0], "a job that does not fit": far[place]}
        elsewhere = [job for job in far if occupation(job) != occupation(far[place])]
        same = [job for job in far if occupation(job) == occupation(far[place]) and job is not far[place]]
        twins = {"a fitting job": own[1], "a job that does not fit": same[0]}
        unrelated = elsewhere[int(rng.integers(len(elsewhere)))]
        before = dict(zip(target, ask(applicant, list(target.values())), strict=True))
        for what, job in target.items():
            histories = {
                "applied for a similar one": did("apply", [twins[what]]),
                "a similar one is not for me": did("ignore", [twins[what]]),
                "applied for an unrelated one": did("apply", [unrelated]),
            }
            for words, history in histories.items():
                after = ask(with_history(applicant, history, {}), [job])[0]
                found.setdefault(f"{what}: {words}", []).append(after - before[what])
    print(f"\n{method}: change of the reward by one event, {len(applicants)} applicants")
    for name, values in found.items():
        print(f"  {name:62}{shown(np.array(values)):>26}", flush=True)


def shown(values: Values) -> str:
    """Mean with its interval."""
    found = interval(values)
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--applicants", type=int, default=16)
    parser.add_argument("--parts", default="ranking,likelihood,choice", help="AUC, and one event's effect by method")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    market = esco_market(applicants=args.applicants)
    judges, applicants = Judges(), market.applicants
    parts = args.parts.split(",")
    if "ranking" in parts:
        ranking(judges, market, applicants)
    for method in judges.configs:
        if method in parts:
            moves(judges, market, applicants, method)


if __name__ == "__main__":
    main()
