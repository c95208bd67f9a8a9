from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from dynaq.agent.answer_noise import AnswerNoise
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.reward_strategy import make_strategy
from dynaq.errors import InputError
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, LABELS, Judgement, judgement_from_probabilities, judgement_row
from dynaq.pretraining import fit as module
from dynaq.pretraining import prior as pretrained_module
from dynaq.pretraining.fit import Pairs, estimate_noise, pretrain
from dynaq.pretraining.prior import Pretrained, fold_of
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from tests.support.toy_market import GradeSource, ToyMarket, small_config, toy_market

CPU = torch.device("cpu")
TRAINING_STEPS = "dynaq.pretraining.label_networks.TRAINING_STEPS"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    return toy_market(tmp_path_factory.mktemp("market"), jobs=60, applicants=48)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Enough steps to tell two fits apart; what is learned is tested with more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINING_STEPS, 20)
        patch.setattr("dynaq.pretraining.label_networks.CHECK_EVERY", 5)
        patch.setattr("dynaq.pretraining.label_networks.BATCH_SIZE", 256)
        patch.setattr(module, "MEMBERS", 1)
        patch.setattr(module, "CONTEXTS", 2)
        patch.setattr(pretrained_module, "MEMBERS", 1)
        yield


@pytest.fixture(scope="module")
def honest(market: ToyMarket, quick: None) -> Pretrained:
    """Fitted on everyone's judgements."""
    return pretrain(market.cache, ledger(market, list(market.cache.applicant_ids)))


def ledger(market: ToyMarket, applicants: list[str], flipped: str | None = None, per_applicant: int = 40) -> pa.Table:
    """Each applicant's grade as label for the first pairs of a seeded order; `flipped` says the opposite."""
    rows = []
    for applicant in applicants:
        rng = np.random.default_rng(market.cache.applicant_index(applicant))
        for j in rng.permutation(len(market.cache.job_ids))[:per_applicant]:
            job_id = market.cache.job_ids[j]
            grade = int(market.grades[applicant][job_id])
            label = np.eye(4)[grade if applicant == flipped else 3 - grade]
            rows.append(judgement_row(judgement_from_probabilities(applicant, job_id, label.tolist(), judge="t")))
    return pa.Table.from_pylist(rows, schema=JUDGEMENT_SCHEMA)


def first_view(market: ToyMarket, networks: Pretrained, applicant: str) -> torch.Tensor:
    """What an agent believes of every job before its first judgement."""
    config = small_config()
    block = DynaQBlock(market.cache, [applicant], make_strategy("llm", config), config, networks)
    return block.model.mean


@pytest.mark.slow
def test_an_agent_starts_from_networks_that_never_saw_its_own_judgements(
    market: ToyMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge's errors are not an applicant's: they are estimated from all answers, and the same here."""
    monkeypatch.setattr(module, "estimate_noise", lambda phi, pairs: AnswerNoise.random(0.001))
    everyone = list(market.cache.applicant_ids)
    ann = everyone[0]
    honest = pretrain(market.cache, ledger(market, everyone))
    lied = pretrain(market.cache, ledger(market, everyone, flipped=ann))
    assert torch.equal(first_view(market, honest, ann), first_view(market, lied, ann))
    other = next(a for a in everyone if fold_of(a) != fold_of(ann))
    assert not torch.equal(first_view(market, honest, other), first_view(market, lied, other))


@pytest.mark.slow
def test_excluded_applicants_change_nothing_for_anybody(market: ToyMarket) -> None:
    everyone = list(market.cache.applicant_ids)
    ann = everyone[0]
    without = pretrain(market.cache, ledger(market, everyone[1:]))
    excluded = pretrain(market.cache, ledger(market, everyone), exclude=[ann])
    assert ann not in excluded.applicants
    for applicant in everyone[:4]:
        assert torch.equal(first_view(market, without, applicant), first_view(market, excluded, applicant))


@pytest.mark.slow
def test_others_judgements_rank_better_than_the_cosine_for_a_newcomer(
    market: ToyMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TRAINING_STEPS, 80)
    everyone = list(market.cache.applicant_ids)
    newcomers, others = everyone[:12], everyone[12:]
    networks = pretrain(market.cache, ledger(market, others))
    config = small_config()

    def score(start: Pretrained | None) -> float:
        block = DynaQBlock(market.cache, newcomers, make_strategy("llm", config), config, start)
        ranked = zip(newcomers, block.recommendations(10), strict=True)
        return float(np.mean([ndcg_at_k([job for job, _ in top], market.grades[a]) for a, top in ranked]))

    assert score(networks) > score(None) + 0.05


@pytest.mark.slow
def test_networks_that_rank_held_out_applicants_better_are_used(market: ToyMarket, honest: Pretrained) -> None:
    assert honest.gain is not None
    assert honest.gain.applicants == 48
    assert honest.gain.low > 0.0
    assert honest.gain.networks - honest.gain.cosine == pytest.approx(honest.gain.difference)
    assert not honest.falls_back


@pytest.mark.slow
def test_without_a_gain_on_held_out_applicants_agents_start_from_the_cosine(market: ToyMarket, tmp_path: Path) -> None:
    """The wishes of each of these applicants are foreign to all others: nothing can be learned from them."""
    rng = np.random.default_rng(5)
    alien = dict(market.grades)
    for applicant in list(alien)[:20]:
        wanted = set(rng.permutation(market.cache.job_ids)[:10])
        alien[applicant] = {job: 3.0 * (job in wanted) for job in market.cache.job_ids}
    foreign = ToyMarket(market.cache, alien, market.store)
    networks = pretrain(market.cache, ledger(foreign, list(alien)[:20]))
    networks.save(tmp_path)
    loaded = Pretrained.load(tmp_path)
    assert loaded.gain == networks.gain
    assert loaded.falls_back
    config = small_config()
    newcomers = list(market.cache.applicant_ids[30:34])
    blocks = [
        DynaQBlock(market.cache, newcomers, make_strategy("llm", config), config, start) for start in (loaded, None)
    ]
    np.testing.assert_array_equal(blocks[0].q_values(), blocks[1].q_values())


@pytest.mark.slow
def test_saved_networks_are_the_same_when_loaded(market: ToyMarket, honest: Pretrained, tmp_path: Path) -> None:
    honest.save(tmp_path)
    loaded = Pretrained.load(tmp_path)
    assert loaded.fingerprint == honest.fingerprint
    torch.testing.assert_close(loaded.noise.confusion, honest.noise.confusion)
    ann = market.cache.applicant_ids[0]
    assert torch.equal(first_view(market, honest, ann), first_view(market, loaded, ann))


@pytest.mark.slow
@pytest.mark.parametrize("of", ["every pair", "misfits"])
@pytest.mark.parametrize("towards", [[0, 1, 2, 3], [2]], ids=["any label", "CLICK"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_judges_errors_are_found_in_the_ledger(share: float, towards: list[int], of: str) -> None:
    """A share of the answers is one of some labels, whatever the pair, or of the pairs that do not fit only."""
    rng = np.random.default_rng(0)
    phi = torch.stack([torch.from_numpy(rng.standard_normal((80, 100))), torch.ones(80, 100)], dim=-1)
    chance = torch.sigmoid(4.0 * phi[..., 0] - 6.0).flatten().numpy()
    truth = np.where(rng.random(8000) < chance, rng.integers(0, 3, 8000), 3)
    wrong = (rng.random(8000) < share) & ((truth == 3) | (of == "every pair"))
    labels = np.where(wrong, rng.choice(towards, 8000), truth)
    answers = torch.from_numpy(np.eye(4, dtype=np.float32)[labels])
    applicant, job = torch.arange(8000) // 100, torch.arange(8000) % 100
    noise = estimate_noise(phi, Pairs([str(i) for i in range(80)], applicant, job, answers))
    misfits = (1.0 - share) * np.eye(4)[3] + share * np.eye(4)[towards].mean(0)
    np.testing.assert_allclose(noise.confusion[3], misfits, atol=0.03)
    assert noise.errors == pytest.approx(float((labels != truth).mean()), abs=0.05)
    assert (noise.confusion > 0).all()
    # A label is doubted as far as misfits are given it in error, and no further.
    believed = (noise.truth(torch.full((4, 4), 0.25), torch.eye(4))[:3, 3] < 0.05).tolist()
    assert believed == [share == 0.0 or label not in towards for label in range(3)]


@pytest.mark.slow
def test_what_the_judge_says_in_error_is_not_learned(market: ToyMarket) -> None:
    """Three answers in ten are CLICK whatever the pair; agents expect a CLICK as often as the truth has one."""
    rng = np.random.default_rng(1)
    true = ledger(market, list(market.cache.applicant_ids))
    rows = []
    for row in true.to_pylist():
        p = [0, 0, 1, 0] if rng.random() < 0.3 else [row[f"p_{label.lower()}"] for label in LABELS]
        rows.append(judgement_row(judgement_from_probabilities(row["applicant_id"], row["job_id"], p, judge="t")))
    networks = pretrain(market.cache, pa.Table.from_pylist(rows, schema=JUDGEMENT_SCHEMA))
    expected = networks.prior(market.cache, market.cache.applicant_ids, CPU).static.mean((0, 1))
    assert float(expected[2]) == pytest.approx(true.column("p_click").to_numpy().mean(), abs=0.1)


@pytest.mark.slow
def test_agents_doubt_answers_as_far_as_pretraining_found_errors(
    market: ToyMarket, honest: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when agents take the answers as they are, whatever the networks say of the judge."""

    def always_apply(applicant: str, job: str, grade: float) -> Judgement:
        return judgement_from_probabilities(applicant, job, [1.0, 0.0, 0.0, 0.0], judge="apply")

    def believed(share: float) -> float:
        monkeypatch.setattr(honest, "noise", AnswerNoise.random(share))
        config = small_config(budget=10)
        names = market.cache.applicant_ids[:2]
        block = DynaQBlock(market.cache, names, make_strategy("llm", config), config, honest)
        block.fit(GradeSource(market.grades, answer=always_apply))
        return float(block.model.believed.mean())

    assert believed(0.0) == pytest.approx(1.0)
    assert believed(0.6) < 0.9


def test_networks_that_know_only_a_share_of_random_answers_still_load(honest: Pretrained, tmp_path: Path) -> None:
    honest.save(tmp_path)
    path = tmp_path / "pretrained.json"
    record = json.loads(path.read_text())
    del record["confusion"], record["usual_answer"]
    path.write_text(json.dumps(record | {"noise": 0.2}))
    loaded = Pretrained.load(tmp_path)
    torch.testing.assert_close(loaded.noise.confusion, 0.8 * torch.eye(4) + 0.05)
    assert loaded.noise.errors == pytest.approx(0.15)


def test_a_small_ledger_is_an_input_error(market: ToyMarket) -> None:
    with pytest.raises(InputError, match="at least 8 applicants"):
        pretrain(market.cache, ledger(market, list(market.cache.applicant_ids)[:3]))


def test_another_layout_is_an_input_error(market: ToyMarket, honest: Pretrained) -> None:
    with open_store(market.store, read_only=True) as store:
        classic = TensorCache.copy_from_database(store, layout="classic")
    with pytest.raises(InputError, match="classic"):
        honest.prior(classic, ["ann00"], CPU)


@pytest.mark.parametrize("missing", ["basis", "head.0.0.scaling.slope"])
def test_networks_of_another_version_are_an_input_error(honest: Pretrained, tmp_path: Path, missing: str) -> None:
    honest.save(tmp_path)
    tensors = load_file(tmp_path / "pretrained.safetensors")
    del tensors[missing]
    save_file(tensors, tmp_path / "pretrained.safetensors")
    with pytest.raises(InputError, match=r"(?s)scaling.slope.*pre-train anew|basis.*pre-train anew"):
        Pretrained.load(tmp_path)


def test_a_folder_that_holds_no_networks_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Pretrained.load(tmp_path)


def test_networks_of_another_encoder_are_refused(honest: Pretrained, market: ToyMarket, tmp_path: Path) -> None:
    other = toy_market(tmp_path / "store", jobs=60, applicants=48, dimension=50)
    with pytest.raises(InputError, match="384 numbers, the store has 50"):
        honest.prior(other.cache, other.cache.applicant_ids[:2], torch.device("cpu"))
    manifest, arrays = market.cache.to_arrays()
    honest.save(tmp_path)
    loaded = Pretrained.load(tmp_path)
    loaded.encoder = "one"
    two = TensorCache.from_arrays(manifest | {"encoder": "two"}, arrays)
    with pytest.raises(InputError, match="encoder one, the store has those of two"):
        loaded.prior(two, two.applicant_ids[:2], torch.device("cpu"))


@pytest.mark.slow
def test_networks_are_fitted_to_vectors_of_any_dimension(tmp_path: Path) -> None:
    small = toy_market(tmp_path / "store", jobs=60, applicants=48, dimension=50)
    fitted = pretrain(small.cache, ledger(small, list(small.cache.applicant_ids)))
    fitted.save(tmp_path / "networks")
    prior = Pretrained.load(tmp_path / "networks").prior(
        small.cache, small.cache.applicant_ids[:2], torch.device("cpu")
    )
    assert prior.static.shape == (2, 60, 4)
    assert torch.isfinite(prior.static).all()
