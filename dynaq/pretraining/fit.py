"""Pre-training across applicants: what other applicants' judgements say about which jobs suit an applicant.

Two networks are fitted on the pairs of many applicants: a prior p(label | s, a) from the pair's similarities, and a
head that reads that prior together with what an applicant's own judgements say about similar jobs
(`dynaq.agent.bayes_world_model.head_context`). The head is trained on contexts drawn from the ledger: it sees some of
an applicant's judgements and predicts others, as in a neural process (Garnelo et al. 2018, arXiv 1807.01622).

Applicants are divided into folds (`dynaq.pretraining.prior`). Everything that fold k uses is fitted without fold k,
including the priors inside the head's training contexts and the scaling of the priors (nested cross-fitting). On the
applicants of fold k those networks are compared with the cosine; unless they are credibly better, agents start from the
cosine (`Pretrained.falls_back`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from dynaq.agent.answer_noise import AnswerNoise
from dynaq.agent.bayes_world_model import SHIFT_SCALES, condition, head_context, surprises
from dynaq.agent.judge_table import (
    ITERATIONS_TO_CONVERGE,
    Answers,
    Array,
    estimate,
    sharpened,
    unknown_judge,
    usual_mix,
)
from dynaq.agent.pair_features import (
    action_blocks,
    job_embedding,
    pair_features,
    scaled_cosines,
    similarity_features,
    state_blocks,
)
from dynaq.errors import InputError
from dynaq.evaluation.intervals import paired_difference
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.judging.judgement import LABEL_VALUES, LABELS, Label
from dynaq.means import mean_known
from dynaq.pretraining.label_networks import Classifier, PairClassifier, Scaling, fit_classifier, principal_directions
from dynaq.pretraining.prior import FOLDS, MEMBERS, Gain, Pretrained, fold_of
from dynaq.tensor_cache import TensorCache

MIN_APPLICANTS = 8  # fewer would leave the folds too small to fit
CONTEXTS = 12  # random contexts per applicant for the head, beside as many copies of the leave-one-out context
PRIOR_HIDDEN, HEAD_HIDDEN = 32, 16
COORDINATES, METRIC_RANK = 96, 32  # principal coordinates of the texts' vectors, and rank of the learned metric
FLOOR_SHARE = 0.25  # of the misfits: those that the similarities are sure of
MIN_NOISE, MOST_NOISE = 1e-3, 0.95
GAIN_K = 10

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Pairs:
    """Judged pairs of some applicants: indices `applicant` and `job` `[rows]`, and `answers` `[rows, 4]`."""

    applicants: list[str]
    applicant: torch.Tensor
    job: torch.Tensor
    answers: torch.Tensor


class _Priors:
    """Fits p(label | s, a) without some folds, and predicts the ledger's pairs."""

    def __init__(self, cache: TensorCache, pairs: Pairs, features: torch.Tensor, noise: AnswerNoise, seed: int) -> None:
        """features `[applicants, n_jobs, width]`."""
        self.pairs, self.noise, self.seed = pairs, noise, seed
        self.features = features
        actions = action_blocks(cache)
        self.basis = principal_directions(actions.flatten(0, 1), COORDINATES)
        self.states, self.actions = state_blocks(cache, pairs.applicants) @ self.basis, actions @ self.basis
        self.folds = torch.tensor([fold_of(a) for a in pairs.applicants])
        self.row_folds = self.folds[pairs.applicant]

    def rows(self, fold: int) -> torch.Tensor:
        """The ledger's rows of a fold's applicants."""
        return torch.nonzero(self.row_folds == fold).squeeze(1)

    def fit(self, member: int, *without: int) -> PairClassifier:
        """A network fitted on the pairs outside some folds; the members of an ensemble differ in their seeds."""
        pairs = self.pairs
        keep = torch.nonzero(~torch.isin(self.row_folds, torch.tensor(without))).squeeze(1)
        start = self.seed + 1000 * member + 31 * sum(without)
        torch.manual_seed(start)
        blocks = self.states.shape[1], self.actions.shape[1]
        network = PairClassifier(self.features.shape[2], PRIOR_HIDDEN, *blocks, self.basis.shape[1], METRIC_RANK)
        network.classifier.standardise(self.features[pairs.applicant[keep], pairs.job[keep]])
        network.classifier.expect(pairs.answers[keep], self.noise)
        answers, groups = pairs.answers[keep], pairs.applicant[keep]
        fit_classifier(network, lambda rows: self.predict(network, keep[rows]), answers, groups, self.noise, start)
        return network

    def predict(self, network: PairClassifier, rows: torch.Tensor) -> torch.Tensor:
        """p(label) `[rows, 4]` for rows of the ledger."""
        applicant, job = self.pairs.applicant[rows], self.pairs.job[rows]
        states, actions = network.project_states(self.states[applicant]), network.project_actions(self.actions[job])
        p: torch.Tensor = network(self.features[applicant, job], states, actions)
        return p

    def catalogue(self, network: PairClassifier, applicant: int) -> torch.Tensor:
        """p(label) `[n_jobs, 4]` for one applicant and every job."""
        states = network.project_states(self.states[applicant][None])
        p: torch.Tensor = network(self.features[applicant], states, network.project_actions(self.actions))
        return p

    def scaling(self, networks: Mapping[int, PairClassifier]) -> Scaling:
        """Calibrates each network on the fold it was not trained on. networks: held-out fold → network."""
        predicted = torch.cat([self.predict(network, self.rows(fold)) for fold, network in networks.items()])
        answers = torch.cat([self.pairs.answers[self.rows(fold)] for fold in networks])
        return Scaling.fitted(predicted, answers, self.noise)


def pretrain(
    cache: TensorCache,
    judgements: pa.Table,
    *,
    exclude: Sequence[str] = (),
    label_values: Mapping[Label, float] = LABEL_VALUES,
    seed: int = 0,
    progress: Progress = lambda message: None,
) -> Pretrained:
    """Fit the networks on a ledger.

    Args:
        cache: the catalogue, and applicants including those of the ledger.
        judgements: with the columns of JUDGEMENT_SCHEMA; pairs that the cache lacks are left out.
        exclude: applicants whose judgements must not be used, for instance those to be evaluated.
        label_values: reward of each label.
        seed: seed of initial weights, batches and contexts.
        progress: called with a message at each step.

    Raises InputError when too few applicants have judgements.
    """
    pairs = _pairs(cache, judgements, set(exclude))
    if len({fold_of(a) for a in pairs.applicants}) < FOLDS or len(pairs.applicants) < MIN_APPLICANTS:
        raise InputError(
            f"pre-training needs judgements of at least {MIN_APPLICANTS} applicants, "
            f"the ledger has {len(pairs.applicants)}; train a first cohort without it"
        )
    values = torch.tensor([label_values[label] for label in LABELS])
    cosines = scaled_cosines(cache, pairs.applicants)
    noise = estimate_noise(similarity_features(cache, pairs.applicants, cosines), pairs)
    pairs = replace(pairs, answers=noise.read(pairs.answers))
    progress(f"the judge errs in about {noise.errors:.1%} of its answers")
    fits = _Priors(cache, pairs, pair_features(cache, pairs.applicants), noise, seed)
    nested = {}
    for j in range(FOLDS):
        for k in range(j):
            progress(f"prior without folds {k} and {j}")
            nested[j, k] = nested[k, j] = fits.fit(0, j, k)
    embedding = job_embedding(cache)
    priors, heads = [], []
    for k in range(FOLDS):
        progress(f"networks without fold {k}")
        unseen = {j: nested[j, k] for j in range(FOLDS) if j != k}
        scaling = fits.scaling(unseen)
        priors.append([fits.fit(member, k) for member in range(MEMBERS)])
        for network in priors[k]:
            network.classifier.scaling = scaling
        x, answers, groups = [], [], []
        for j, network in unseen.items():
            rng = np.random.default_rng([seed, k, j])
            for i in torch.nonzero(fits.folds == j).squeeze(1).tolist():
                static = scaling(fits.catalogue(network, i))[None]
                drawn = _draw_contexts(pairs, i, static, embedding, values, noise, rng)
                x.append(drawn[0])
                answers.append(drawn[1])
                groups.append(torch.full((len(drawn[1]),), i))
        data = torch.cat(x), torch.cat(answers), torch.cat(groups)
        heads.append([_fit_head(*data, noise, seed + 1000 * member + k) for member in range(MEMBERS)])
    found = Pretrained(
        cache.layout.name, noise, fits.basis, pairs.applicants, priors, heads, label_values, cache.encoder
    )
    found.gain = _gain(found, cache, pairs, fits.features, cosines, values)
    return found


def _gain(
    networks: Pretrained,
    cache: TensorCache,
    pairs: Pairs,
    features: torch.Tensor,
    cosines: torch.Tensor,
    values: torch.Tensor,
) -> Gain:
    """nDCG@10 gained over the cosine on the applicants of each fold, with networks that have not seen that fold.

    The whole catalogue is ranked, and jobs that were not judged count as irrelevant. The ledger's pairs were mostly
    chosen by the cosine, so this favours the cosine. Ranking only the judged pairs would favour the networks: nearly
    all of these pairs have a high cosine, so the cosine could hardly tell them apart.
    """
    static = networks.prior(cache, pairs.applicants, torch.device("cpu"), features).static
    grades = (pairs.answers @ torch.arange(len(LABELS) - 1, -1, -1.0)).tolist()
    told: list[dict[str, float]] = [{} for _ in pairs.applicants]
    for applicant, job, grade in zip(pairs.applicant.tolist(), pairs.job.tolist(), grades, strict=True):
        told[applicant][cache.job_ids[job]] = grade
    scores = []
    for ranked_by in (static @ values, cosines):
        tops = torch.argsort(ranked_by, dim=1, descending=True, stable=True)[:, :GAIN_K].tolist()
        scores.append(
            [ndcg_at_k([cache.job_ids[j] for j in top], own, GAIN_K) for top, own in zip(tops, told, strict=True)]
        )
    difference = paired_difference(*scores).interval
    networks_mean, cosine_mean = (mean_known(np.array(one)) for one in scores)
    compared = int((~np.isnan(scores[0])).sum())
    return Gain(compared, networks_mean, cosine_mean, difference.mean, difference.low, difference.high)


def _fit_head(
    x: torch.Tensor, answers: torch.Tensor, groups: torch.Tensor, noise: AnswerNoise, seed: int
) -> Classifier:
    torch.manual_seed(seed)
    network = Classifier(x.shape[1], HEAD_HIDDEN, corrects=True)
    network.standardise(x)
    fit_classifier(network, lambda rows: network(x[rows]), answers, groups, noise, seed)
    network.scaling = Scaling.fitted(network(x), answers, noise)
    return network


def _pairs(cache: TensorCache, judgements: pa.Table, exclude: set[str]) -> Pairs:
    jobs = {job_id: i for i, job_id in enumerate(cache.job_ids)}
    known = set(cache.applicant_ids) - exclude
    columns = [judgements.column(name).to_pylist() for name in ("applicant_id", "job_id")]
    answers = (
        np.stack([judgements.column(f"p_{label.lower()}").to_numpy() for label in LABELS], axis=1)
        if judgements.num_rows
        else np.zeros((0, len(LABELS)))
    )
    keep = [r for r, (a, j) in enumerate(zip(*columns, strict=True)) if a in known and j in jobs]
    applicants = sorted({columns[0][r] for r in keep})
    index = {a: i for i, a in enumerate(applicants)}
    return Pairs(
        applicants,
        torch.tensor([index[columns[0][r]] for r in keep], dtype=torch.int64),
        torch.tensor([jobs[columns[1][r]] for r in keep], dtype=torch.int64),
        torch.from_numpy(answers[keep].astype(np.float32)),
    )


def estimate_noise(phi: torch.Tensor, pairs: Pairs) -> AnswerNoise:
    """The judge's confusion, estimated from its answers and the similarities (`dynaq.agent.judge_table`).

    phi: the applicants' `similarity_features` `[applicants, n_jobs, width]`.
    """
    said = pairs.answers.double().numpy()
    usual = usual_mix(said)
    agent, job = pairs.applicant.numpy(), pairs.job.numpy()
    rows = Answers(
        phi[pairs.applicant, pairs.job].double().numpy(), sharpened(said, usual), agent, job, np.full(len(said), np.nan)
    )
    judge, _, truth = estimate(rows, unknown_judge(phi.shape[-1]), iterations=ITERATIONS_TO_CONVERGE, tied=True)
    confusion = _at_least(judge.confusion, FLOOR_SHARE * truth[:, -1].sum())
    errors = float(1.0 - truth.mean(0) @ confusion.diagonal())
    random_share = min(errors * len(LABELS) / (len(LABELS) - 1), MOST_NOISE)
    return AnswerNoise(torch.from_numpy(confusion).float(), torch.from_numpy(usual).float(), random_share)


def _at_least(confusion: Array, misfits: float) -> Array:
    """The confusion with the upper ends of the 95 % intervals of the misfits' errors, `[4, 4]`.

    A network told too few errors learns the rest as a small chance that every job suits, and false answers then outrank
    true ones. misfits: how many the rates are estimated from.
    """
    rates = confusion[-1, :-1]
    beyond = np.maximum(1.96 * np.sqrt(rates * (1.0 - rates) / max(misfits, 1.0)), MIN_NOISE / len(LABELS))
    beyond = np.append(beyond, beyond.mean())
    share = min(beyond.sum(), MOST_NOISE)
    found: Array = (1.0 - share) * confusion + share * beyond / beyond.sum()
    return found


def _draw_contexts(
    pairs: Pairs,
    applicant: int,
    static: torch.Tensor,
    embedding: torch.Tensor,
    values: torch.Tensor,
    noise: AnswerNoise,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Head inputs `[rows, CONTEXT]` and the answers to predict `[rows, 4]`, given some of the judgements."""
    own = torch.nonzero(pairs.applicant == applicant).squeeze(1)
    jobs, answers = pairs.job[own], pairs.answers[own]
    between = torch.cdist(embedding[jobs], embedding[jobs]).square()
    nothing = torch.zeros(1, static.shape[1], len(SHIFT_SCALES))
    prior = head_context(static, static @ values, nothing)[0, jobs, : -len(SHIFT_SCALES)]

    def read(shown: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Head inputs of the asked pairs; a pair that is also shown is read without its own answer."""
        shift = torch.zeros(1, len(jobs), len(SHIFT_SCALES))
        if len(shown):
            valid = torch.ones(1, len(shown), dtype=torch.bool)
            surprise, variance = surprises(static[:, jobs[shown]], answers[shown][None], valid, values, noise)
            among = between[shown][:, shown]
            shift, _ = condition(between[shown][None], among[None], surprise, variance, at=shown[None], valid=valid)
        return torch.cat([prior, shift[0]], dim=1)[asked]

    # An agent also queries its head about judged pairs, each without its own answer but with all the others.
    everything = torch.arange(len(own))
    x, y = [read(everything, everything)] * CONTEXTS, [answers] * CONTEXTS
    for _ in range(CONTEXTS):
        order = torch.from_numpy(rng.permutation(len(own)))
        split = int(rng.integers(0, len(own)))
        x.append(read(order[:split], order[split:]))
        y.append(answers[order[split:]])
    return torch.cat(x), torch.cat(y)
