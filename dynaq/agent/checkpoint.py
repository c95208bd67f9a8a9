"""Checkpoints of a block.

A block that was saved and loaded continues exactly as if it had not been interrupted, bit for bit on the same machine:
random generators and optimizer moments are part of the checkpoint, and what follows from the judged pairs (the world
model's posterior) is recomputed in the same order.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.agent.reward_strategy import RewardStrategy
from dynaq.agent.stacked_mlp import StackedMLP, without_row
from dynaq.agent.tensor_files import read_saved, write_saved
from dynaq.agent.world_model import StartingNetworks
from dynaq.errors import InputError
from dynaq.tensor_cache import TensorCache, check_encoder_of

NAME = "block"
JUDGE_TENSORS = ("trust.theta", "trust.confusion", "trust.error")


def save_block(block: DynaQBlock, folder: str | Path) -> None:
    """Write `block.safetensors` and `block.json` into a folder."""
    tensors = block.q.state() | block.judged.state() | block.model.state()
    tensors |= {f"generator.{i}": g.get_state() for i, g in enumerate(block.generators)}
    tensors |= {f"finished.{i}": q for i, q in block.finished.items()}
    if (candidates := block.candidates()) is not None:
        tensors["candidates"] = torch.from_numpy(candidates)
    record = {
        "applicant_ids": block.applicant_ids,
        "n_jobs": block.cache.n_jobs,
        "layout": block.cache.layout.name,
        "block_dim": block.cache.layout.block_dim,
        "encoder": block.cache.encoder,
        "round": block.round,
        "cumulative": block.cumulative,
        "failures": block.failures,
        "strategy": asdict(block.strategy),
        "config": block.config.model_dump(mode="json"),
        "pretrained": block.pretrained.fingerprint if block.pretrained else None,
    }
    write_saved(folder, NAME, tensors, record)


def load_block(
    folder: str | Path, cache: TensorCache, pretrained: StartingNetworks | None = None, device: str = "cpu"
) -> DynaQBlock:
    """Restore a saved block. `cache` and `pretrained` must be those it was trained with.

    Raises InputError when the folder is not a checkpoint, or was made over another catalogue or its older vectors.
    """
    tensors, record = read_saved(folder, NAME, "checkpoint")
    if record["pretrained"] != (pretrained.fingerprint if pretrained else None):
        start = record["pretrained"] or "no pre-trained networks"
        raise InputError(f"checkpoint {folder} started from {start}; load it with the same")
    if record["n_jobs"] != cache.n_jobs or record["layout"] != cache.layout.name:
        raise InputError(
            f"checkpoint {folder} was made over {record['n_jobs']} jobs in the {record['layout']} layout, "
            f"the store has {cache.n_jobs} in {cache.layout.name}; train anew"
        )
    check_encoder_of(f"checkpoint {folder} was made", record, cache)
    config = DynaQConfig(**record["config"])
    # The warm start is not repeated: the saved tensors contain its result.
    block = DynaQBlock(
        cache,
        record["applicant_ids"],
        RewardStrategy(**record["strategy"]),
        config.model_copy(update={"warm_start": False}),
        pretrained,
        device,
        candidates=tensors["candidates"].numpy() if "candidates" in tensors else None,
    )
    block.config = config
    block.q.load_state(tensors)
    block.judged.load_state(tensors)
    block.round, block.cumulative, block.failures = record["round"], record["cumulative"], record["failures"]
    # A block that asks no judge keeps cosines in its replay, which its world model has never observed.
    asks = block.strategy.needs_judge
    observed = block.judged if asks else JudgedPairs(len(block.applicant_ids), block.pool.size, 0, block.device)
    block.model.load_state(tensors, observed)
    block.settle()
    for i, generator in enumerate(block.generators):
        generator.set_state(tensors[f"generator.{i}"])
        if (finished := tensors.get(f"finished.{i}")) is not None:
            block.finished[i] = finished.to(block.device)
    return block


def without_agent(source: str | Path, target: str | Path, applicant_id: str) -> None:
    """Write a saved block into another folder without one applicant; the other agents are as they were.

    It needs neither the store nor the applicant's vectors. Raises InputError when the folder is not a checkpoint.
    """
    tensors, record = read_saved(source, NAME, "checkpoint")
    applicants = list(record["applicant_ids"])
    agent, agents = applicants.index(applicant_id), len(applicants)
    config = DynaQConfig(**record["config"])
    hidden = {"q": config.q_hidden, "q_target": config.q_hidden, "model": config.model_hidden}
    left: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        kind, _, part = name.partition(".")
        if kind in ("generator", "finished"):  # one tensor per agent
            number = int(part)
            if number != agent:
                left[f"{kind}.{number - (number > agent)}"] = tensor
        elif kind in hidden:
            left[name] = tensor if part == "step" else StackedMLP.without_agent(tensor, agent, agents, hidden[kind])
        elif name.startswith("trust.gold."):
            left[name] = tensor[tensors["trust.gold.agent"] != agent]
        elif name in JUDGE_TENSORS:  # of the judge, estimated from the whole block's answers
            left[name] = tensor
        else:
            left[name] = without_row(tensor, agent)
    if (own := left.get("trust.gold.agent")) is not None:
        left["trust.gold.agent"] = own - (own > agent).to(own.dtype)
    record["applicant_ids"] = [one for one in applicants if one != applicant_id]
    record["cumulative"] = [total for i, total in enumerate(record["cumulative"]) if i != agent]
    record["failures"].pop(applicant_id, None)
    write_saved(target, NAME, left, record)
