"""Cohort-wide pre-training: what other applicants' judgements say about whom a job suits.

Two networks, each fitted on pairs of many applicants: a prior p(label | s, a) from the pair's similarities, and a head
that reads that prior together with what an applicant's own judgements say about similar jobs
(`dynaq.world_model.head_context`). The head is trained on contexts drawn from the ledger: some of an applicant's
judgements are shown, others are to be predicted, as in a neural process (Garnelo et al. 2018, arXiv 1807.01622).

Nobody's judgements are in the networks that an agent of theirs starts from. Applicants are dealt into folds; agent of
fold k uses networks that were fitted without fold k, down to the priors inside the head's training contexts (nested
cross-fitting). An applicant who is not in the ledger uses all folds'.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch

from dynaq.classifier import Classifier, PairClassifier, fit_classifier, principal_directions
from dynaq.errors import InputError
from dynaq.features import action_blocks, job_embedding, pair_features, scaled_cosines, state_blocks
from dynaq.judge import LABEL_VALUES, LABELS, Label
from dynaq.saved import read_saved, write_saved
from dynaq.tensor_cache import TensorCache
from dynaq.world_model import CONTEXT, condition, head_context, surprises

FOLDS = 4
MIN_APPLICANTS = 8  # fewer make no folds worth fitting
MEMBERS = 3  # networks per fold that differ in their seed; pooled
CONTEXTS = 24  # drawn per applicant for the head
PRIOR_HIDDEN, HEAD_HIDDEN = 32, 16
COORDINATES, METRIC_RANK = 96, 32  # of the texts' vectors
FLOOR_QUANTILE = 0.25
FLOOR_ROWS = 200
MIN_NOISE = 1e-3
RARE = 1e-9
NAME = "pretrained"

Progress = Callable[[str], None]
Network = TypeVar("Network", Classifier, PairClassifier)


def fold_of(applicant_id: str) -> int:
    """Fold of an applicant, by a hash of the id alone: adding others moves nobody."""
    return hashlib.sha256(applicant_id.encode()).digest()[0] % FOLDS


@dataclass(frozen=True)
class Pairs:
    """Judged pairs of some applicants. features `[rows, width]`, answers `[rows, 4]`, applicant, job `[rows]`."""

    applicants: list[str]
    applicant: torch.Tensor
    job: torch.Tensor
    answers: torch.Tensor


class Pretrained:
    """Networks per fold (MEMBERS of each, pooled), the judge's noise, and who was in the ledger.

    Made by `pretrain` or `load`. `applicants`: those whose judgements were used. `basis` `[BLOCK_DIM, COORDINATES]`:
    the coordinates in which the priors read the texts.
    """

    def __init__(
        self,
        layout: str,
        noise: float,
        basis: torch.Tensor,
        applicants: Sequence[str],
        priors: Sequence[Sequence[PairClassifier]],
        heads: Sequence[Sequence[Classifier]],
        label_values: Mapping[Label, float],
    ) -> None:
        self.layout, self.noise, self.basis = layout, noise, basis
        self.applicants = frozenset(applicants)
        self.priors, self.heads = list(priors), list(heads)
        self.label_values = dict(label_values)

    @property
    def fingerprint(self) -> str:
        """`pretrained-` and 12 hex digits of the SHA-256 of the networks' weights."""
        digest = hashlib.sha256()
        for members in (*self.priors, *self.heads):
            for network in members:
                for tensor in network.state_dict().values():
                    digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return f"pretrained-{digest.hexdigest()[:12]}"

    def prior(
        self,
        cache: TensorCache,
        applicants: Sequence[str],
        device: torch.device,
        features: torch.Tensor | None = None,
    ) -> PretrainedPrior:
        """For a world model of these applicants. Raises InputError when the cache has another layout.

        features: what `pair_features` gave for them, where the caller has it already.
        """
        if cache.layout.name != self.layout:
            raise InputError(
                f"pre-trained in the {self.layout} layout, the store is in {cache.layout.name}; pre-train anew"
            )
        features = pair_features(cache, applicants) if features is None else features.cpu()
        return PretrainedPrior(self, cache, applicants, features, device)

    def save(self, folder: str | Path) -> None:
        """Write `pretrained.safetensors` and `pretrained.json`."""
        tensors = {
            f"{kind}.{fold}.{member}.{name}": tensor
            for kind, folds in (("prior", self.priors), ("head", self.heads))
            for fold, members in enumerate(folds)
            for member, network in enumerate(members)
            for name, tensor in network.state_dict().items()
        }
        tensors["basis"] = self.basis
        record = {
            "layout": self.layout,
            "noise": self.noise,
            "applicants": sorted(self.applicants),
            "label_values": self.label_values,
        }
        write_saved(folder, NAME, tensors, record)

    @classmethod
    def load(cls, folder: str | Path) -> Pretrained:
        """Raises InputError when the folder is not a pre-trained checkpoint."""
        tensors, record = read_saved(folder, NAME, "pre-trained networks in")

        def networks(kind: str, make: Callable[[dict[str, torch.Tensor]], Network]) -> list[list[Network]]:
            return [[_load(tensors, f"{kind}.{fold}.{m}.", make) for m in range(MEMBERS)] for fold in range(FOLDS)]

        try:
            return cls(
                record["layout"],
                record["noise"],
                tensors["basis"],
                record["applicants"],
                networks("prior", _empty_prior),
                networks("head", _empty_head),
                record["label_values"],
            )
        except KeyError as error:
            raise InputError(f"pre-trained networks in {folder} lack {error}; pre-train anew") from error


def _empty_prior(state: dict[str, torch.Tensor]) -> PairClassifier:
    hidden, width = state["classifier.net.0.weight"].shape
    blocks = len(state["state_weights"]), len(state["action_weights"])
    dim, rank = state["projection"].shape
    return PairClassifier(width - rank, hidden, *blocks, dim, rank)


def _empty_head(state: dict[str, torch.Tensor]) -> Classifier:
    hidden, width = state["net.0.weight"].shape
    return Classifier(width, hidden, corrects=True)


def _load(
    tensors: Mapping[str, torch.Tensor], prefix: str, make: Callable[[dict[str, torch.Tensor]], Network]
) -> Network:
    state = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    network = make(state)
    network.load_state_dict(state)
    network.eval().requires_grad_(False)
    return network


class PretrainedPrior:
    """`dynaq.world_model.Prior` of some applicants, each from the folds that never saw it."""

    def __init__(
        self,
        pretrained: Pretrained,
        cache: TensorCache,
        applicants: Sequence[str],
        features: torch.Tensor,
        device: torch.device,
    ) -> None:
        self.noise = pretrained.noise
        self._heads = [[copy.deepcopy(network).to(device) for network in members] for members in pretrained.heads]
        self._folds = [[fold_of(a)] if a in pretrained.applicants else list(range(FOLDS)) for a in applicants]
        self.static = self._static(pretrained, cache, applicants, features).to(device)

    def _static(
        self, pretrained: Pretrained, cache: TensorCache, applicants: Sequence[str], features: torch.Tensor
    ) -> torch.Tensor:
        states, actions = state_blocks(cache, applicants) @ pretrained.basis, action_blocks(cache) @ pretrained.basis
        projected = [
            [(n, n.project_states(states), n.project_actions(actions)) for n in members]
            for members in pretrained.priors
        ]
        rows = []
        for i in range(len(applicants)):
            chosen = [member for fold in self._folds[i] for member in projected[fold]]
            rows.append(pooled([network(features[i], s[i][None], a) for network, s, a in chosen]))
        return torch.stack(rows)

    def head(self, context: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        x = context()
        return torch.stack(
            [
                pooled([network(x[i]) for fold in folds for network in self._heads[fold]])
                for i, folds in enumerate(self._folds)
            ]
        )


def pooled(members: Sequence[torch.Tensor]) -> torch.Tensor:
    """Geometric mean of distributions `[..., 4]`, normalised (a logarithmic opinion pool, Genest & Zidek 1986).

    The arithmetic mean of rare labels is that of the member who thinks them least rare.
    """
    return torch.softmax(torch.log(torch.stack(list(members)) + RARE).mean(0), dim=-1)


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
        cache: catalogue and applicants, those of the ledger among them.
        judgements: with the columns of JUDGEMENT_SCHEMA; pairs that the cache lacks are left out.
        exclude: applicants whose judgements must not be used at all, for instance those to be evaluated.
        label_values: reward of each label.
        seed: of initial weights, batches and contexts.
        progress: told what is being fitted.

    Raises InputError when too few applicants have judgements.
    """
    pairs = _pairs(cache, judgements, set(exclude))
    if len({fold_of(a) for a in pairs.applicants}) < FOLDS or len(pairs.applicants) < MIN_APPLICANTS:
        raise InputError(
            f"pre-training needs judgements of at least {MIN_APPLICANTS} applicants, "
            f"the ledger has {len(pairs.applicants)}; train a first cohort without it"
        )
    values = torch.tensor([label_values[label] for label in LABELS])
    features = pair_features(cache, pairs.applicants)
    cosines = scaled_cosines(cache, pairs.applicants)
    noise = estimate_noise(cosines[pairs.applicant, pairs.job], pairs.answers)
    progress(f"share of random answers: {noise:.3f}")
    rows = features[pairs.applicant, pairs.job]
    actions = action_blocks(cache)
    basis = principal_directions(actions.flatten(0, 1), COORDINATES)
    states, actions = state_blocks(cache, pairs.applicants) @ basis, actions @ basis
    folds = torch.tensor([fold_of(a) for a in pairs.applicants])
    row_folds = folds[pairs.applicant]

    def fit_prior(member: int, *without: int) -> PairClassifier:
        keep = torch.nonzero(~torch.isin(row_folds, torch.tensor(without))).squeeze(1)
        progress(f"prior without fold {' and '.join(map(str, without))}: {len(keep)} pairs")
        start = seed + 1000 * member + 31 * sum(without)
        torch.manual_seed(start)
        blocks = states.shape[1], actions.shape[1]
        network = PairClassifier(rows.shape[1], PRIOR_HIDDEN, *blocks, basis.shape[1], METRIC_RANK)
        network.classifier.standardise(rows[keep])
        network.classifier.expect(pairs.answers[keep], noise)

        def predict(batch: torch.Tensor) -> torch.Tensor:
            of = keep[batch]
            s, a = network.project_states(states[pairs.applicant[of]]), network.project_actions(actions[pairs.job[of]])
            p: torch.Tensor = network(rows[of], s, a)
            return p

        fit_classifier(network, predict, pairs.answers[keep], pairs.applicant[keep], noise, start)
        return network

    priors = [[fit_prior(member, k) for member in range(MEMBERS)] for k in range(FOLDS)]
    nested = {(j, k): fit_prior(0, j, k) for k in range(FOLDS) for j in range(k)}
    embedding = job_embedding(cache)
    heads = []
    for k in range(FOLDS):
        x, answers, groups = [], [], []
        for j in (fold for fold in range(FOLDS) if fold != k):
            network = nested[min(j, k), max(j, k)]
            members = torch.nonzero(folds == j).squeeze(1).tolist()
            rng = np.random.default_rng([seed, k, j])
            for i in members:
                projected = network.project_states(states[i][None]), network.project_actions(actions)
                static = network(features[i], *projected)[None]
                drawn = _draw_contexts(pairs, i, static, embedding, values, noise, rng)
                x.append(drawn[0])
                answers.append(drawn[1])
                groups.append(torch.full((len(drawn[1]),), i))
        progress(f"head without fold {k}: {sum(map(len, x))} contexts")
        data = torch.cat(x), torch.cat(answers), torch.cat(groups)
        heads.append([_fit_head(*data, noise, seed + 1000 * member + k) for member in range(MEMBERS)])
    return Pretrained(cache.layout.name, noise, basis, pairs.applicants, priors, heads, label_values)


def _fit_head(x: torch.Tensor, answers: torch.Tensor, groups: torch.Tensor, noise: float, seed: int) -> Classifier:
    torch.manual_seed(seed)
    network = Classifier(x.shape[1], HEAD_HIDDEN, corrects=True)
    network.standardise(x)
    fit_classifier(network, lambda rows: network(x[rows]), answers, groups, noise, seed)
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


def estimate_noise(cosines: torch.Tensor, answers: torch.Tensor) -> float:
    """Share of random answers, from the pairs that fit least.

    A judge that answers at random gives each label a quarter of the time whatever the pair; one that does not gives
    APPLY, SAVE and CLICK hardly ever to the quarter of pairs with the lowest cosine. The middle of those three rates is
    a quarter of the noise, and the upper end of its 95 % interval is taken: a network that is told too little noise
    learns the rest as a small chance that every job suits, and false answers then outrank true ones.
    cosines `[rows]`, answers `[rows, 4]`. Without enough such pairs the judge is believed.
    """
    low = cosines <= torch.quantile(cosines, FLOOR_QUANTILE)
    if int(low.sum()) < FLOOR_ROWS:
        return MIN_NOISE
    floor = float(answers[low][:, : len(LABELS) - 1].mean(0).median())
    floor += 1.96 * math.sqrt(floor * (1.0 - floor) / int(low.sum()))
    return min(max(len(LABELS) * floor, MIN_NOISE), 0.95)


def _draw_contexts(
    pairs: Pairs,
    applicant: int,
    static: torch.Tensor,
    embedding: torch.Tensor,
    values: torch.Tensor,
    noise: float,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Head inputs `[rows, CONTEXT]` and answers `[rows, 4]`: some judgements shown, the others to be predicted."""
    own = torch.nonzero(pairs.applicant == applicant).squeeze(1)
    jobs, answers = pairs.job[own], pairs.answers[own]
    between = torch.cdist(embedding[jobs], embedding[jobs]).square()
    x, y = [], []
    for _ in range(CONTEXTS):
        order = torch.from_numpy(rng.permutation(len(own)))
        shown = order[: int(rng.integers(0, len(own)))]
        asked = order[len(shown) :]
        shift = torch.zeros(1, len(jobs), CONTEXT - len(LABELS) - 2)
        if len(shown):
            told = answers[shown][None]
            valid = torch.ones(1, len(shown), dtype=torch.bool)
            surprise, variance = surprises(static[:, jobs[shown]], told, told @ values, valid, values, noise)
            shift, _ = condition(between[shown][None], between[shown][:, shown][None], surprise, variance)
        everywhere = torch.zeros(1, static.shape[1], shift.shape[-1])
        everywhere[0, jobs] = shift[0]
        x.append(head_context(static, static @ values, everywhere)[0, jobs[asked]])
        y.append(answers[asked])
    return torch.cat(x), torch.cat(y)
