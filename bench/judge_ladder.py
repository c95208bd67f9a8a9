"""What judges of several models and ways of asking are worth, from the answers that `bench.judge_questions` saved.

    python -m bench.judge_ladder --onet FOLDER [--answers FOLDER] [--first 0] [--agents] [--out FOLDER]

The answers are files MARKET.MODEL.FIRST.npz, of the markets of LADDER_MARKETS and from their FIRST applicant on; those
of two models are in bench/data/judges, so no model is needed. Ways of asking were compared on esco-seed1 from 48 and on
onet from 96; the published figures are of esco-seed0 and onet from 0.

Ways of asking, each a score per pair: see WAYS_OF_ASKING. A combination is a logistic regression on several of them,
standardised per market; every applicant's coefficients are fitted on the other folds' applicants. Columns:

    AUC       of an applicant's relevant jobs (grade > 0) against the others, mean over applicants
    nDCG@10   of the whole catalogue ranked by the score, mean over applicants
    best      AUC of the applicant's own occupation (grade 3) against the merely related ones
    error     expected calibration error: the score becomes a distribution over the labels as `dynaq judge --calibrate`
              makes one, and P(better than IGNORE) is compared with relevance, ten bins
    mass      probability on the allowed answers before normalising
    order     mean absolute change of a label's probability with the order of the options
    pairs/s   of transformers in batches, on the card or the CPU that answered
    J         energy per 1,000 judgements, where it was readable
    llm, hybrid   nDCG@10 of agents after 30 judgements, with --agents; the cosine's is in the table's head
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.training import learning_curve
from dynaq.agent.config import DynaQConfig
from dynaq.encoder import Encoder
from dynaq.evaluation.ranking import auc, ndcg_at_k
from dynaq.evaluation.simulated import LabelJudge
from dynaq.ingest import ingest_market
from dynaq.judging.judgement import LABEL_VALUES, LABELS, Judgement, judgement_from_probabilities
from dynaq.markets import Market, esco_market, onet_market
from dynaq.qrels import Qrels
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from reward_service.calibration import thresholds_from_scores
from reward_service.llm_judge import label_probabilities

Array = npt.NDArray[np.float64]
Answers = Mapping[str, Any]

LADDER_MARKETS: dict[str, Callable[[Path], Market]] = {
    "esco-seed0": lambda onet: esco_market(applicants=48),
    "esco-seed1": lambda onet: esco_market(applicants=72, seed=1),
    "onet": lambda onet: onet_market(onet, applicants=512),
}
FOLDS = 4
BUDGET = 30
CALIBRATION_PAIRS = 400
REFERENCES = 16  # profiles in the place of an empty one


@dataclass(frozen=True)
class LadderMarket:
    """The pairs that were asked: grades `[applicants, jobs]` and what else is known of them."""

    cache: TensorCache
    qrels: Qrels
    applicants: tuple[str, ...]
    grades: Array
    cosine: Array

    @classmethod
    def of(cls, name: str, onet: Path, folder: Path, applicants: Sequence[str]) -> LadderMarket:
        """One of LADDER_MARKETS, embedded into the folder on the first run."""
        with open_store(str(folder / name), create=True) as store:
            ingest_market(store, LADDER_MARKETS[name](onet), encoder=Encoder(), layout="extended")
            cache = TensorCache.copy_from_database(store, text=True)
            qrels = store.qrels()
        assert qrels is not None
        grades = np.zeros((len(applicants), len(cache.job_ids)))
        for row, applicant in enumerate(applicants):
            for job, grade in qrels.grades(applicant).items():
                grades[row, cache.job_index(job)] = grade
        cosine = np.stack([cache.calculate_cosine_similarities(a) for a in applicants]).astype(np.float64)
        return cls(cache, qrels, tuple(applicants), grades, cosine)

    def ndcg(self, scores: Array) -> float:
        """Mean nDCG@10 of the catalogue ranked by scores `[applicants, jobs]`; ties in a random order."""
        ties = np.random.default_rng(0).random(scores.shape)
        best = np.lexsort((ties, -scores), axis=1)[:, :10]
        lists = ([self.cache.job_ids[j] for j in row] for row in best)
        found = (ndcg_at_k(ids, self.qrels.grades(a)) for a, ids in zip(self.applicants, lists, strict=True))
        return float(np.mean(list(found)))

    def auc(self, scores: Array, above: float = 0.0, among: float = -1.0) -> float:
        """Mean over applicants: jobs of a grade above `above` against the other ones above `among`."""
        found = [auc(s[g > above], s[(g <= above) & (g > among)]) for s, g in zip(scores, self.grades, strict=True)]
        return float(np.nanmean(found))


def per_token(answers: Answers, title: float = 1.0, rest: float = 1.0) -> Array:
    """Log-likelihood ratio of a job behind the profile and behind none, per token; `title`, `rest` weigh the halves."""
    n, m = answers["tokens_title"], answers["tokens_rest"]
    gain = title * (answers["forward_title"] - answers["empty_title"])
    gain = gain + rest * (answers["forward_rest"] - answers["empty_rest"])
    return np.asarray(gain / np.maximum(title * n + rest * m, 1), np.float64)


def against_others(answers: Answers, title: float = 1.0, rest: float = 1.0) -> Array:
    """As `per_token`, but against the mean over other applicants' profiles instead of an empty one.

    What any profile makes likelier is no sign of a fit (domain-conditional mutual information, Holtzman et al. 2021,
    arXiv 2104.08315).
    """
    n, m = answers["tokens_title"], answers["tokens_rest"]
    text = title * answers["forward_title"] + rest * answers["forward_rest"]
    scores = np.empty(text.shape)
    for row in range(len(text)):
        others = np.delete(text, row, axis=0)[:REFERENCES]
        scores[row] = text[row] - others.mean(0)
    return np.asarray(scores / np.maximum(title * n + rest * m, 1), np.float64)


def by_root(answers: Answers, score: Callable[[Answers, float, float], Array]) -> Array:
    """Title and rest apart, each sum divided by the root of its tokens: with `per_token` what `halves` scores by."""
    title, rest = score(answers, 1.0, 0.0), score(answers, 0.0, 1.0)
    return title * np.sqrt(answers["tokens_title"]) + rest * np.sqrt(answers["tokens_rest"])


def corrected(answers: Answers, name: str) -> Array:
    """Log-odds less those without a profile and without a job (contextual calibration)."""
    found = answers[name] - answers[f"{name}_no_profile"][None] - answers[f"{name}_no_job"][:, None]
    return np.asarray(found, np.float64)


def shares(answers: Answers) -> Array:
    """P over LABELS of `choice` under each order of the options, `[orders, applicants, jobs, 4]`."""
    p = np.exp(answers["choice"].astype(np.float64))
    return np.asarray(p / p.sum(-1, keepdims=True))


def letters(answers: Answers) -> Array:
    """Expected reward of the four letters, mean over the orders."""
    return np.asarray(shares(answers).mean(0) @ np.array([LABEL_VALUES[label] for label in LABELS]))


WAYS_OF_ASKING: dict[str, Callable[[Answers], Array]] = {
    "likelihood": per_token,
    "likelihood, title": lambda a: per_token(a, 1, 0),
    "likelihood, skills": lambda a: per_token(a, 0, 1),
    "likelihood against others": against_others,
    "title against others": lambda a: against_others(a, 1, 0),
    "skills against others": lambda a: against_others(a, 0, 1),
    "halves": lambda a: by_root(a, per_token),
    "halves against others": lambda a: by_root(a, against_others),
    "profile given job": lambda a: np.asarray(a["reverse"] - a["reverse_empty"][:, None], np.float64),
    "profile given job, less its mean": lambda a: np.asarray(
        a["reverse"] - a["reverse"].mean(1, keepdims=True) - (a["reverse"].mean(0) - a["reverse"].mean()), np.float64
    ),
    "yes/no": lambda a: np.asarray(a["yes_no"], np.float64),
    "yes/no, corrected": lambda a: corrected(a, "yes_no"),
    "few-shot yes/no": lambda a: np.asarray(a["few_shot"], np.float64),
    "few-shot yes/no, corrected": lambda a: corrected(a, "few_shot"),
    "rating": lambda a: np.asarray(a["rating"], np.float64),
    "choice": letters,
    "setwise": lambda a: np.asarray(a["setwise"], np.float64),
}
COMBINATIONS: dict[str, tuple[str, ...]] = {
    "both halves": ("likelihood, title", "likelihood, skills"),
    "both halves against others": ("title against others", "skills against others"),
    "both directions": ("title against others", "skills against others", "profile given job, less its mean"),
    "all questions": ("yes/no, corrected", "few-shot yes/no, corrected", "rating", "choice", "setwise"),
    "all": (
        "title against others",
        "skills against others",
        "profile given job, less its mean",
        "yes/no, corrected",
        "few-shot yes/no, corrected",
        "rating",
        "choice",
        "setwise",
    ),
}


def combined(market: LadderMarket, parts: Sequence[Array]) -> Array:
    """Cross-fitted logistic regression of relevance on several scores."""
    from sklearn.linear_model import LogisticRegression

    x = np.stack([(part - part.mean()) / (part.std() or 1.0) for part in parts], -1)
    relevant = market.grades > 0
    scores = np.empty(relevant.shape)
    fold = np.arange(len(x)) % FOLDS
    for held_out in range(FOLDS):
        fitted = LogisticRegression().fit(
            x[fold != held_out].reshape(-1, len(parts)), relevant[fold != held_out].ravel()
        )
        inside = x[fold == held_out]
        scores[fold == held_out] = fitted.decision_function(inside.reshape(-1, len(parts))).reshape(inside.shape[:2])
    return scores


def distributions(scores: Array) -> Array:
    """P over LABELS of every pair `[applicants, jobs, 4]`, calibrated without relevance on random pairs."""
    scaled = scores / scores.std()
    sample = np.random.default_rng(0).choice(scaled.ravel(), CALIBRATION_PAIRS, replace=False)
    cut = thresholds_from_scores(sample.tolist(), "ladder")
    return np.array([[label_probabilities(float(s), cut) for s in row] for row in scaled])


def calibration_error(p: Array, relevant: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error with ten equal bins (Naeini et al. 2015)."""
    bins = np.minimum((p * 10).astype(int), 9)
    gaps = [abs(p[bins == b].mean() - relevant[bins == b].mean()) * (bins == b).mean() for b in set(bins.ravel())]
    return float(sum(gaps))


class ReplayedJudge(LabelJudge):
    """A `JudgementSource` that answers with saved distributions `[applicants, jobs, 4]`."""

    def __init__(self, market: LadderMarket, p: Array) -> None:
        super().__init__(market.cache, market.applicants, p.argmax(-1))
        self._p = p

    def judgement(self, applicant_id: str, job_id: str) -> Judgement:
        p = self._p[self._row[applicant_id], self._cache.job_index(job_id)]
        return judgement_from_probabilities(applicant_id, job_id, p.tolist(), judge="replayed")


def trained(market: LadderMarket, p: Array, strategy: str) -> float:
    """Mean nDCG@10 of agents after BUDGET judgements."""
    config = DynaQConfig.load(None, {"budget": BUDGET})
    judge = ReplayedJudge(market, p)
    scores = learning_curve(market.cache, market.qrels, market.applicants, judge, strategy, config, [BUDGET])
    return float(np.mean(scores[BUDGET]))


def rows(market: LadderMarket, answers: Answers, agents: bool, wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row per way of asking, and per combination of which all parts were asked; only those wanted, if any are."""
    scores: dict[str, Array] = {}
    for name, method in WAYS_OF_ASKING.items():
        try:
            scores[name] = method(answers)
        except KeyError:  # not asked
            continue
    for name, parts in COMBINATIONS.items():
        if (not wanted or name in wanted) and all(part in scores for part in parts):
            scores[name] = combined(market, [scores[part] for part in parts])
    found = []
    for name, values in scores.items():
        if wanted and name not in wanted:
            continue
        p = distributions(values)
        row: dict[str, Any] = {
            "method": name,
            "AUC": market.auc(values),
            "nDCG@10": market.ndcg(values),
            "best": market.auc(values, above=2.0, among=0.0),
            "error": calibration_error(1.0 - p[..., 3], market.grades > 0),
        }
        if agents:
            row |= {strategy: trained(market, p, strategy) for strategy in ("llm", "hybrid")}
        found.append(row | costs(name, answers, values.size))
    return found


def costs(name: str, answers: Answers, pairs: int) -> dict[str, float]:
    """What the question behind a method took; nothing for combinations."""
    found: dict[str, float] = {}
    if name in COMBINATIONS:
        return found
    question = next(question for word, question in QUESTIONS.items() if word in name)
    if f"seconds_{question}" not in answers:
        return found
    if f"{question}_mass" in answers:
        found["mass"] = float(answers[f"{question}_mass"])
    if question == "choice":
        p = shares(answers)
        found["order"] = float(np.abs(p[0] - p[1]).mean())
    found["pairs/s"] = pairs / float(answers[f"seconds_{question}"])
    if f"joules_{question}" in answers:
        found["J"] = 1000.0 * float(answers[f"joules_{question}"]) / pairs
    return found


QUESTIONS = {
    "few-shot": "few_shot",
    "yes/no": "yes_no",
    "rating": "rating",
    "choice": "choice",
    "setwise": "setwise",
    "profile given job": "reverse",
    "against others": "forward",
    "halves": "forward",
    "likelihood": "forward",
}


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of rows; a figure that a row lacks is a dash."""
    columns = list(dict.fromkeys(key for row in found for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "--:|" * (len(columns) - 1)]
    for row in found:
        cells = [_cell(column, row.get(column)) for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if column == "pairs/s" else f"{value:.1f}" if column == "J" else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onet", type=Path, required=True, help="folder of O*NET tables")
    parser.add_argument("--answers", type=Path, default=Path(__file__).with_name("data") / "judges")
    parser.add_argument("--store", type=Path, default=Path("data"), help="where the embedded markets are kept")
    parser.add_argument("--first", type=int, default=0, help="which files: those that begin with this applicant")
    parser.add_argument("--method", action="append", default=[], help="only this way of asking; may be repeated")
    parser.add_argument("--agents", action="store_true", help="train agents too; minutes per row")
    parser.add_argument("--out", type=Path, help="folder for ladder.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    every: dict[str, Any] = {}
    for path in sorted(args.answers.glob(f"*.{args.first}.npz")):
        answers = np.load(path)
        name, _, model = path.name.removesuffix(f".{args.first}.npz").partition(".")
        market = LadderMarket.of(name, args.onet, args.store, answers["applicants"].tolist())
        if list(market.cache.job_ids) != answers["jobs"].tolist():
            parser.error(f"{path} was asked about other jobs than {name} has")
        found = rows(market, answers, args.agents, args.method)
        cosine = {"AUC": market.auc(market.cosine), "nDCG@10": market.ndcg(market.cosine)}
        print(f"\n## {model} on {name}: {len(market.applicants)} applicants x {market.grades.shape[1]} jobs")
        print(f"\nThe cosine: AUC {cosine['AUC']:.3f}, nDCG@10 {cosine['nDCG@10']:.3f}\n\n{table(found)}", flush=True)
        every[path.stem] = {"cosine": cosine, "rows": found}
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "ladder.json").write_text(json.dumps(every, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
