"""Pre-trained networks, fitted by `dynaq.pretraining.fit`, as the prior of an agent.

An agent never starts from networks that saw its applicant's judgements: applicants are divided into folds, and an agent
of fold k uses networks fitted without fold k. An applicant who is not in the ledger uses the networks of all folds.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dynaq.agent.answer_noise import AnswerNoise
from dynaq.agent.candidate_pool import TILE, CandidatePool
from dynaq.agent.job_pool import Change, Rows
from dynaq.agent.pair_features import action_blocks, pair_features, state_blocks
from dynaq.agent.tensor_files import read_saved, write_saved
from dynaq.errors import InputError
from dynaq.judging.judgement import Label
from dynaq.pretraining.label_networks import RARE, Classifier, PairClassifier
from dynaq.tensor_cache import TensorCache, check_encoder_of

FOLDS = 4
MEMBERS = 3  # networks per fold that differ in their seeds and are pooled
PRETRAINED = "pretrained"  # name of the files in the folder


@dataclass(frozen=True)
class Gain:
    """nDCG@10 before the first judgement, on held-out applicants of the ledger: networks against cosine.

    Args:
        applicants: how many were compared.
        networks, cosine: means over them.
        difference, low, high: networks minus cosine, paired, with its 95 % interval; NaN bounds below two applicants.
    """

    applicants: int
    networks: float
    cosine: float
    difference: float
    low: float
    high: float

    @property
    def credible(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0.0


Network = TypeVar("Network", Classifier, PairClassifier)


def fold_of(applicant_id: str) -> int:
    """Fold of an applicant, a hash of the id: adding applicants moves no other to another fold."""
    return hashlib.sha256(applicant_id.encode()).digest()[0] % FOLDS


class Pretrained:
    """Networks per fold (MEMBERS of each kind, pooled), the judge's errors, and the applicants of the ledger.

    Made by `pretrain` or `load`.
    noise: the judge's errors in the ledger.
    applicants: those whose judgements were used.
    basis: `[block_dim, COORDINATES]`, the principal directions of the priors' text inputs.
    encoder: the revision of the encoder that made the vectors.
    gain: over the cosine on held-out applicants; None if it was not measured (networks of an older version).
    """

    def __init__(
        self,
        layout: str,
        noise: AnswerNoise,
        basis: torch.Tensor,
        applicants: Sequence[str],
        priors: Sequence[Sequence[PairClassifier]],
        heads: Sequence[Sequence[Classifier]],
        label_values: Mapping[Label, float],
        encoder: str | None = None,
        gain: Gain | None = None,
    ) -> None:
        self.encoder, self.gain = encoder, gain
        self.layout, self.noise, self.basis = layout, noise, basis
        self.applicants = frozenset(applicants)
        self.priors, self.heads = list(priors), list(heads)
        self.label_values = dict(label_values)

    @property
    def falls_back(self) -> bool:
        """Whether agents start from the cosine instead, because the networks gain nothing on held-out applicants."""
        return self.gain is not None and not self.gain.credible

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
        candidates: CandidatePool | None = None,
    ) -> PretrainedPrior:
        """The prior for a world model of these applicants. Raises InputError if the cache's layout or encoder differs.

        features: the `pair_features` of the applicants, if the caller has them already. candidates: the applicants'
        jobs, if not the whole catalogue.
        """
        if cache.layout.name != self.layout:
            raise InputError(
                f"pre-trained in the {self.layout} layout, the store is in {cache.layout.name}; pre-train anew"
            )
        check_encoder_of("pre-trained", {"block_dim": len(self.basis), "encoder": self.encoder}, cache)
        if candidates is not None:
            return PretrainedPrior(self, cache, applicants, candidates.features.cpu(), device, candidates)
        features = pair_features(cache, applicants) if features is None else features.cpu()
        return PretrainedPrior(self, cache, applicants, features, device)

    def save(self, folder: str | Path, fitted_on: Mapping[str, Any] | None = None) -> None:
        """Write `pretrained.safetensors` and `pretrained.json`.

        fitted_on: judge and seed, so that the networks can be fitted again without some applicants.
        """
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
            "encoder": self.encoder,
            "confusion": self.noise.confusion.tolist(),
            "usual_answer": None if self.noise.usual is None else self.noise.usual.tolist(),
            "noise": self.noise.random_share,  # a summary for people, and all that older versions read
            "applicants": sorted(self.applicants),
            "label_values": self.label_values,
            "gain": asdict(self.gain) if self.gain else None,
            "falls_back": self.falls_back,
            "fitted_on": dict(fitted_on or {}),
        }
        write_saved(folder, PRETRAINED, tensors, record)

    @classmethod
    def load(cls, folder: str | Path) -> Pretrained:
        """Read saved networks. Raises InputError if the folder has none, or those of another version."""
        tensors, record = read_saved(folder, PRETRAINED, "pre-trained networks in")

        def networks(kind: str, make: Callable[[dict[str, torch.Tensor]], Network]) -> list[list[Network]]:
            return [[_load(tensors, f"{kind}.{fold}.{m}.", make) for m in range(MEMBERS)] for fold in range(FOLDS)]

        try:
            return cls(
                record["layout"],
                _noise(record),
                tensors["basis"],
                record["applicants"],
                networks("prior", _empty_prior),
                networks("head", _empty_head),
                record["label_values"],
                record.get("encoder"),
                Gain(**record["gain"]) if record.get("gain") else None,
            )
        # torch raises RuntimeError if tensors do not match the network.
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"pre-trained networks in {folder} are not what this version reads ({error}); pre-train anew"
            ) from error


def _noise(record: Mapping[str, Any]) -> AnswerNoise:
    """The judge's errors; older networks know a share of random answers only."""
    if "confusion" not in record:
        return AnswerNoise.random(record["noise"])
    usual = record["usual_answer"]
    usual = None if usual is None else torch.tensor(usual)
    return AnswerNoise(torch.tensor(record["confusion"]), usual, record["noise"])


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
    """`dynaq.agent.bayes_world_model.Prior` of some applicants, each from networks that never saw that applicant."""

    def __init__(
        self,
        pretrained: Pretrained,
        cache: TensorCache,
        applicants: Sequence[str],
        features: torch.Tensor,
        device: torch.device,
        candidates: CandidatePool | None = None,
    ) -> None:
        self.noise = pretrained.noise
        self._pretrained, self._cache, self._candidates, self._device = pretrained, cache, candidates, device
        self._heads = [[copy.deepcopy(network).to(device) for network in members] for members in pretrained.heads]
        self._folds = [[fold_of(a)] if a in pretrained.applicants else list(range(FOLDS)) for a in applicants]
        self._states = state_blocks(cache, applicants) @ pretrained.basis
        if candidates is None:
            self.static = self._static(features).to(device)
        else:
            everywhere = np.arange(candidates.size)
            own = [self._static_at(agent, everywhere) for agent in range(len(applicants))]
            self.static = torch.stack(own).to(device)

    def exchanged(self, changes: Sequence[Change]) -> None:
        """Recompute `static` of the jobs that some places hold now."""
        for agent, places in changes:
            self.static[agent, torch.from_numpy(places)] = self._static_at(agent, places).to(self._device)

    def _static_at(self, agent: int, places: Rows) -> torch.Tensor:
        """`static` of some of an agent's candidates, `[places, 4]`, in pieces of one size (`job_pool`)."""
        assert self._candidates is not None
        features, rows = self._candidates.features[agent].cpu(), self._candidates.candidates[agent]
        found = []
        for start in range(0, len(places), TILE):
            part = np.resize(places[start : start + TILE], TILE)
            actions = action_blocks(self._cache, rows[part]) @ self._pretrained.basis
            members = [member for fold in self._folds[agent] for member in self._pretrained.priors[fold]]
            state = self._states[agent : agent + 1]
            said = [n(features[part], n.project_states(state), n.project_actions(actions)) for n in members]
            found.append(pooled(said)[: len(places) - start])
        return torch.cat(found)

    def _static(self, features: torch.Tensor) -> torch.Tensor:
        pretrained, states = self._pretrained, self._states
        actions = action_blocks(self._cache) @ pretrained.basis
        projected = [
            [(n, n.project_states(states), n.project_actions(actions)) for n in members]
            for members in pretrained.priors
        ]
        rows = []
        for i in range(len(states)):
            chosen = [member for fold in self._folds[i] for member in projected[fold]]
            rows.append(pooled([network(features[i], s[i][None], a) for network, s, a in chosen]))
        return torch.stack(rows)

    def head(self, context: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """p(label | context) `[agents, n, 4]`, pooled over the networks of each agent's folds."""
        x = context()
        return torch.stack(
            [
                pooled([network(x[i]) for fold in folds for network in self._heads[fold]])
                for i, folds in enumerate(self._folds)
            ]
        )


def pooled(members: Sequence[torch.Tensor]) -> torch.Tensor:
    """Geometric mean of distributions `[..., 4]`, normalised (a logarithmic opinion pool, Genest & Zidek 1986).

    The arithmetic mean would be dominated, for rare labels, by the member that gives them the highest probability.
    """
    return torch.softmax(torch.log(torch.stack(list(members)) + RARE).mean(0), dim=-1)
