"""Does a cascade pay? A student that answers for the judge, against other ways of asking the judge less often.

    python -m bench.cascade --onet FOLDER [--judge clean] [--fitted 96 256 400] [--strategy hybrid]

A first part of the cohort asks the judge about every pair. From its ledger a student is fitted: the networks of
`dynaq.pretraining`, which predict the judge's answer from the pair's features and from what the judge said to the same
applicant before. Then other applicants' agents ask. The student answers a pair if the deviation of the reward under its
own distribution is below a threshold, and the judge the others and a random share of the former. The agent is told the
student's distribution.

The threshold comes from the ledger: every pair is predicted by networks that were fitted without its applicant, in the
order in which it was asked, and the threshold is the highest under which at most `share` of these pairs are answered.
`risk` is what conformal risk control (Angelopoulos et al. 2024, arXiv 2208.02814) promises for that threshold: the mean
of |reward - predicted reward|, zero for pairs that the judge answers, per pair asked by a new applicant; `reached` is
that mean among the pairs that were asked.

Judges: `clean` says the relevance, `random` errs at random (AUC 0.9), `recorded` is what SmolLM2-135M-Instruct said of
the whole catalogue (bench/data/judges, 16 applicants to fit and 16 to report).

Beside the cascade stand agents that simply ask less, with and without networks pre-trained on the same ledger.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from bench.judge_ladder import LADDER_MARKETS, WAYS_OF_ASKING, LadderMarket, ReplayedJudge, distributions
from bench.simulated_judges import CohortPairs, SimulatedJudge
from bench.training import learning_curve
from dynaq.agent.bayes_world_model import SHIFT_SCALES, condition, deviation_of, head_context, surprises
from dynaq.agent.config import DynaQConfig
from dynaq.agent.pair_features import job_embedding
from dynaq.evaluation.intervals import paired_difference
from dynaq.evaluation.simulated import LabelJudge
from dynaq.judging.judgement import (
    JUDGEMENT_SCHEMA,
    LABEL_VALUES,
    LABELS,
    Judgement,
    JudgementSource,
    Slate,
    judgement_from_probabilities,
    judgement_row,
)
from dynaq.judging.sampled import chance
from dynaq.pretraining.fit import pretrain
from dynaq.pretraining.prior import Pretrained
from dynaq.tensor_cache import TensorCache

REPORTED = 96  # applicants before this one are reported on, the others are fitted on or developed with
COHORT = 1000
ANSWERS = Path(__file__).with_name("data") / "judges"
BUDGET = 50
BUDGETS = range(10, BUDGET + 1, 10)
STUDENT_SHARES = (0.2, 0.4, 0.6, 0.8)  # of the pairs of the ledger, which the student would answer
LONGER = (0.6, 0.8)  # with twice the pairs, since those of the student are free
AUDIT = 0.02
REWARDS = torch.tensor([LABEL_VALUES[label] for label in LABELS])


Told = tuple[list[int], list[Sequence[float]]]  # jobs and what the judge said of them


class Recorder:
    """Keeps what was asked, in order, and how often."""

    def __init__(self, judge: JudgementSource) -> None:
        self._judge = judge
        self.made: list[Judgement] = []

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        answers = self._judge.fetch(slates)
        self.made += [judgement for slate in answers for judgement in slate]
        return answers


def table(judgements: Sequence[Judgement]) -> pa.Table:
    return pa.Table.from_pylist([judgement_row(j) for j in judgements], schema=JUDGEMENT_SCHEMA)


class Student:
    """p(label) of a judge's answers, given what it said to the same applicant before."""

    def __init__(self, networks: Pretrained, cache: TensorCache, applicants: Sequence[str]) -> None:
        self._prior = networks.prior(cache, applicants, torch.device("cpu"))
        self._embedding = job_embedding(cache)
        self.static = self._prior.static
        nothing = torch.zeros(*self.static.shape[:2], len(SHIFT_SCALES))
        self._context = head_context(self.static, self.static @ REWARDS, nothing)[..., : -len(SHIFT_SCALES)]

    def predict(self, told: Sequence[Told], asked: torch.Tensor) -> torch.Tensor:
        """told: per applicant, jobs and answers so far. asked `[applicants, n]` jobs → `[applicants, n, 4]`."""
        longest = max(len(jobs) for jobs, _ in told)
        before = torch.zeros(len(told), longest, dtype=torch.int64)
        answers = torch.zeros(len(told), longest, len(LABELS))
        valid = torch.zeros(len(told), longest, dtype=torch.bool)
        for i, (jobs, own) in enumerate(told):
            before[i, : len(jobs)] = torch.tensor(jobs, dtype=torch.int64)
            if jobs:
                answers[i, : len(jobs)] = torch.tensor(own)
            valid[i, : len(jobs)] = True
        shift = torch.zeros(*asked.shape, len(SHIFT_SCALES))
        rows = torch.arange(len(told))[:, None]
        if longest:
            surprise, variance = surprises(self.static[rows, before], answers, valid, REWARDS, self._prior.noise)
            queried = self._embedding[torch.cat([before, asked], dim=1)]
            squared = torch.cdist(queried, queried).square()
            at = torch.arange(longest).expand(len(told), -1)
            cross, among = squared[:, :longest], squared[:, :longest, :longest]
            shift = condition(cross, among, surprise, variance, at, valid)[0][:, longest:]
        found = self._prior.head(lambda: torch.cat([self._context[rows, asked], shift], dim=-1))
        assert found is not None
        return found


@dataclass(frozen=True)
class Calibration:
    """Of the pairs of the ledger in the order asked: deviation and absolute error of the student's reward `[pairs]`."""

    deviation: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]

    @classmethod
    def of(cls, networks: Pretrained, cache: TensorCache, made: Sequence[Judgement], slate_size: int) -> Calibration:
        own: dict[str, list[Judgement]] = {}
        for judgement in made:
            own.setdefault(judgement.applicant_id, []).append(judgement)
        deviations, errors = [], []
        student = Student(networks, cache, list(own))
        jobs = torch.tensor([[cache.job_index(j.job_id) for j in one] for one in own.values()])
        answers = torch.tensor([[j.probabilities for j in one] for one in own.values()])
        for start in range(0, jobs.shape[1], slate_size):
            told = [(a[:start].tolist(), p[:start].tolist()) for a, p in zip(jobs, answers, strict=True)]
            now = slice(start, start + slate_size)
            p = student.predict(told, jobs[:, now])
            deviations.append(deviation_of(p, REWARDS).flatten())
            errors.append((p @ REWARDS - answers[:, now] @ REWARDS).abs().flatten())
        return cls(torch.cat(deviations).double().numpy(), torch.cat(errors).double().numpy())

    def threshold(self, share: float) -> float:
        return float(np.quantile(self.deviation, share))

    def risk(self, threshold: float) -> float:
        """Conformal bound on the expected error per pair; no error is above the range of the rewards."""
        lost = self.error[self.deviation <= threshold].sum() + float(REWARDS.max() - REWARDS.min())
        return float(lost / (len(self.error) + 1))


class Cascade:
    """A JudgementSource: the student, and behind it the judge. The student is told what the judge alone said.

    calls: pairs that the judge answered, audited ones included. errors: of the student, where it was sure.
    """

    def __init__(self, judge: JudgementSource, networks: Pretrained, cache: TensorCache, threshold: float) -> None:
        self._judge, self._networks, self._cache, self._threshold = judge, networks, cache, threshold
        self._block: tuple[str, ...] = ()
        self._told: dict[str, Told] = {}
        self.pairs = self.calls = 0
        self.errors: list[float] = []

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        """As the judge. All slates have the same length, as in a block whose agents have the same budget."""
        block = tuple(slate.applicant_id for slate in slates)
        if block != self._block:
            self._block, self._student = block, Student(self._networks, self._cache, block)
        told = [self._told.setdefault(applicant, ([], [])) for applicant in block]
        jobs = [[self._cache.job_index(job_id) for job_id in slate.job_ids] for slate in slates]
        p = self._student.predict(told, torch.tensor(jobs))
        sure = (deviation_of(p, REWARDS) <= self._threshold).tolist()
        answers = self._judge.fetch(slates)
        for i, own in enumerate(answers):
            for k, judged in enumerate(own):
                self.pairs += 1
                if sure[i][k]:
                    assert judged.reward is not None
                    self.errors.append(abs(float(p[i, k] @ REWARDS) - judged.reward))
                    if chance(0, "audit", judged.applicant_id, judged.job_id) >= AUDIT:
                        own[k] = judgement_from_probabilities(
                            judged.applicant_id, judged.job_id, p[i, k].tolist(), judge="student"
                        )
                        continue
                self.calls += 1
                told[i][0].append(jobs[i][k])
                told[i][1].append(judged.probabilities)
        return answers


@dataclass(frozen=True)
class Setting:
    """A judge, the applicants to fit on and to report on, and judgements to fit on beside those that were asked for."""

    market: LadderMarket
    judge: JudgementSource
    fitted: Sequence[str]
    reported: Sequence[str]
    beside: Sequence[Judgement] = ()


def recorded(onet: Path, store: Path) -> Setting:
    """The saved answers of the packaged model, by `halves`: those of applicants from 96 on are fitted on."""
    parts = [np.load(ANSWERS / f"onet.smollm2-135m.{first}.npz") for first in (0, REPORTED)]
    applicants = [part["applicants"].tolist() for part in parts]
    market = LadderMarket.of("onet", onet, store, [*applicants[0], *applicants[1]])
    p = distributions(np.concatenate([WAYS_OF_ASKING["halves"](part) for part in parts]))
    judge = ReplayedJudge(market, p)
    beside = [judge.judgement(applicant, job) for applicant in applicants[1] for job in market.cache.job_ids]
    return Setting(market, judge, applicants[1], applicants[0], beside)


def simulated(kind: str, onet: Path, store: Path, first: int, size: int) -> Setting:
    """A judge who says the relevance, or one of AUC 0.9."""
    every = LADDER_MARKETS["onet"](onet).qrels.applicants
    reported = every[first : first + size]
    market = LadderMarket.of("onet", onet, store, every)
    fitted = [a for a in every[REPORTED:] if a not in reported]
    if kind == "clean":
        judge = LabelJudge(market.cache, every, 3 - market.grades.astype(np.int64))
    else:
        judge = SimulatedJudge(market.cache, CohortPairs.of(market.cache, market.qrels, every, 0), kind, 0.9, 0)
    return Setting(market, judge, fitted, reported)


class Table:
    """Rows of one judge, printed as they come. `full`: the scores at the whole budget that a row is compared with."""

    COLUMNS = ("fitted on", "agents", "start", "who answers", "calls", "saved", "of 1,000", "nDCG@10", "change")

    def __init__(self) -> None:
        self.full: list[float] = []
        self._print(*self.COLUMNS, "risk", "reached")
        self._print(*["---"] * (len(self.COLUMNS) + 2))

    def _print(self, *cells: str) -> None:
        print("| " + " | ".join(cells) + " |", flush=True)

    def add(self, names: Sequence[object], n: int, calls: float, scores: list[float], risk: str = "–|–") -> None:
        """names: the first columns. n: applicants whose every pair the judge answered before."""
        saved = 1.0 - calls / BUDGET
        change = paired_difference(scores, self.full).interval
        shares = [f"{saved:.0%}", f"{saved * (1.0 - n / COHORT):.0%}"]
        found = [f"{np.mean(scores):.3f}", f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"]
        self._print(*map(str, names), f"{calls:.1f}", *shares, *found, *risk.split("|"))


def measure(setting: Setting, strategies: Sequence[str], sizes: Sequence[int]) -> None:
    """Print the table of one judge."""
    cache, qrels = setting.market.cache, setting.market.qrels

    def agents(
        applicants: Sequence[str], judge: JudgementSource, strategy: str, networks: Pretrained | None, budget: int
    ) -> dict[int, list[float]]:
        config = DynaQConfig.load(None, {"budget": budget})
        budgets = {*BUDGETS, budget}
        return learning_curve(cache, qrels, applicants, judge, strategy, config, budgets, pretrained=networks)

    recorder = Recorder(setting.judge)
    agents(setting.fitted[: max(sizes)], recorder, "llm", None, BUDGET)
    rows = Table()
    for n in sizes:
        members = set(setting.fitted[:n])
        made = [j for j in recorder.made if j.applicant_id in members]
        networks = pretrain(cache, table([*made, *setting.beside]))
        calibration = Calibration.of(networks, cache, made, slate_size=DynaQConfig().slate_size)
        for strategy in strategies:
            for start, used in (("cosine", None), ("pre-trained", networks)):
                alone = agents(setting.reported, setting.judge, strategy, used, BUDGET)
                rows.full = alone[BUDGET]
                for budget in BUDGETS if used or n == sizes[0] else ():
                    rows.add([n if used else 0, strategy, start, "judge"], n if used else 0, budget, alone[budget])
                for budget, share in [(BUDGET, share) for share in STUDENT_SHARES] + [
                    (2 * BUDGET, share) for share in LONGER
                ]:
                    threshold = calibration.threshold(share)
                    cascade = Cascade(setting.judge, networks, cache, threshold)
                    scores = agents(setting.reported, cascade, strategy, used, budget)[budget]
                    calls = cascade.calls / len(setting.reported)
                    risk = f"{calibration.risk(threshold):.3f}|{sum(cascade.errors) / cascade.pairs:.3f}"
                    who = f"cascade {share}, {budget} pairs"
                    rows.add([n, strategy, start, who], n, calls, scores, risk)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onet", type=Path, required=True, help="folder of O*NET tables")
    parser.add_argument("--store", type=Path, default=Path("data"), help="where the embedded market is kept")
    parser.add_argument("--judge", choices=("clean", "random", "recorded"), default="clean")
    parser.add_argument("--strategy", choices=("llm", "hybrid"), nargs="+", default=["llm", "hybrid"])
    parser.add_argument("--fitted", type=int, nargs="+", default=[96, 256, 400], help="applicants to fit a student on")
    parser.add_argument("--first", type=int, default=0, help=f"applicant to report from; {REPORTED} to develop")
    parser.add_argument("--applicants", type=int, default=48, help="to report on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.judge == "recorded":
        setting = recorded(args.onet, args.store)
        measure(setting, args.strategy, [len(setting.fitted)])
    else:
        setting = simulated(args.judge, args.onet, args.store, args.first, args.applicants)
        measure(setting, args.strategy, args.fitted)


if __name__ == "__main__":
    main()
