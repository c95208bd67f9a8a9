"""Cohort-wide pre-training: what other applicants' judgements say about whom a job suits.

Two networks, each fitted on pairs of many applicants: a prior p(label | s, a) from the pair's similarities, and a head
that reads that prior together with what an applicant's own judgements say about similar jobs
(`dynaq.world_model.head_context`). The head is trained on contexts drawn from the ledger: some of an applicant's
judgements are shown, others are to be predicted, as in a neural process (Garnelo et al. 2018, arXiv 1807.01622).

Nobody's judgements are in the networks that an agent of theirs starts from. Applicants are dealt into folds; agent of
fold k uses networks that were fitted without fold k, down to the priors inside the head's training contexts (nested
cross-fitting). An applicant who is not in the ledger uses the mean of all folds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from dynaq.classifier import Classifier, fit_classifier
from dynaq.errors import InputError
from dynaq.features import job_embedding, pair_features, scaled_cosines
from dynaq.judge import LABEL_VALUES, LABELS, Label
from dynaq.layout import Layout
from dynaq.saved import read_saved, write_saved
from dynaq.tensor_cache import TensorCache
from dynaq.world_model import CONTEXT, condition, head_context, surprises

FOLDS = 4
MIN_APPLICANTS = 8  # fewer make no folds worth fitting
MEMBERS = 3  # networks per fold that differ in their seed; averaged
CONTEXTS = 4  # drawn per applicant for the head
PRIOR_HIDDEN, HEAD_HIDDEN = 32, 16
FLOOR_QUANTILE = 0.25
FLOOR_ROWS = 200
MIN_NOISE = 1e-3
NAME = "pretrained"

Progress = Callable[[str], None]


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
    """Networks per fold (MEMBERS of each, averaged), the judge's noise, and who was in the ledger.

    Made by `pretrain` or `load`. `applicants`: those whose judgements were used.
    """

    def __init__(
        self,
        layout: str,
        noise: float,
        applicants: Sequence[str],
        priors: Sequence[Sequence[Classifier]],
        heads: Sequence[Sequence[Classifier]],
        label_values: Mapping[Label, float],
    ) -> None:
        self.layout, self.noise = layout, noise
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

    def prior(self, layout: Layout, device: torch.device) -> PretrainedPrior:
        """For a world model. Raises InputError when the store has another layout."""
        if layout.name != self.layout:
            raise InputError(f"pre-trained in the {self.layout} layout, the store is in {layout.name}; pre-train anew")
        return PretrainedPrior(self, device)

    def save(self, folder: str | Path) -> None:
        """Write `pretrained.safetensors` and `pretrained.json`."""
        tensors = {
            f"{kind}.{fold}.{member}.{name}": tensor
            for kind, folds in (("prior", self.priors), ("head", self.heads))
            for fold, members in enumerate(folds)
            for member, network in enumerate(members)
            for name, tensor in network.state_dict().items()
        }
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
        networks = {
            kind: [[_classifier(tensors, f"{kind}.{fold}.{m}.") for m in range(MEMBERS)] for fold in range(FOLDS)]
            for kind in ("prior", "head")
        }
        return cls(
            record["layout"],
            record["noise"],
            record["applicants"],
            networks["prior"],
            networks["head"],
            record["label_values"],
        )


def _classifier(tensors: Mapping[str, torch.Tensor], prefix: str) -> Classifier:
    state = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    hidden, width = state["net.0.weight"].shape
    network = Classifier(width, hidden)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


class PretrainedPrior:
    """`dynaq.world_model.Prior` from the folds that never saw an applicant."""

    def __init__(self, pretrained: Pretrained, device: torch.device) -> None:
        self.noise = pretrained.noise
        self._seen = pretrained.applicants
        self._priors = [[network.to(device) for network in members] for members in pretrained.priors]
        self._heads = [[network.to(device) for network in members] for members in pretrained.heads]

    def static(self, features: torch.Tensor, cosines: torch.Tensor, applicants: list[str]) -> torch.Tensor:
        return self._apply(self._priors, features, applicants)

    def head(self, context: Callable[[], torch.Tensor], applicants: list[str]) -> torch.Tensor | None:
        return self._apply(self._heads, context(), applicants)

    def _apply(self, folds: list[list[Classifier]], x: torch.Tensor, applicants: list[str]) -> torch.Tensor:
        with torch.no_grad():
            rows = []
            for i, applicant in enumerate(applicants):
                chosen = (
                    folds[fold_of(applicant)] if applicant in self._seen else [n for members in folds for n in members]
                )
                rows.append(torch.stack([network(x[i]) for network in chosen]).mean(0))
            return torch.stack(rows)


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
    folds = torch.tensor([fold_of(a) for a in pairs.applicants])
    row_folds = folds[pairs.applicant]

    def fit_prior(member: int, *without: int) -> Classifier:
        keep = ~torch.isin(row_folds, torch.tensor(without))
        progress(f"prior without fold {' and '.join(map(str, without))}: {int(keep.sum())} pairs")
        start = seed + 1000 * member + 31 * sum(without)
        return fit_classifier(rows[keep], pairs.answers[keep], pairs.applicant[keep], noise, PRIOR_HIDDEN, start)

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
                with torch.no_grad():
                    static = network(features[i])[None]
                drawn = _draw_contexts(pairs, i, static, embedding, values, noise, rng)
                x.append(drawn[0])
                answers.append(drawn[1])
                groups.append(torch.full((len(drawn[1]),), i))
        progress(f"head without fold {k}: {sum(map(len, x))} contexts")
        data = torch.cat(x), torch.cat(answers), torch.cat(groups)
        heads.append([fit_classifier(*data, noise, HEAD_HIDDEN, seed + 1000 * member + k) for member in range(MEMBERS)])
    return Pretrained(cache.layout.name, noise, pairs.applicants, priors, heads, label_values)


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
