"""Dyna-Q agents, one per applicant, that learn which jobs the applicant would apply to.

This is the learning library: no Ray, no vLLM, no HTTP. Everything here runs in one process, for example a notebook:

    from dynaq import DynaQBlock, DynaQConfig, TensorCache, make_strategy, open_store

Names are imported on first use, so that a program that needs only a few of them does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynaq.agent.checkpoint import load_block, save_block
    from dynaq.agent.config import DynaQConfig
    from dynaq.agent.dyna_q import DynaQBlock
    from dynaq.agent.reward_strategy import RewardStrategy, make_strategy
    from dynaq.encoder import Encoder
    from dynaq.env import JobMarketEnv
    from dynaq.errors import DynaqError, InputError, JudgeError
    from dynaq.evaluation.ranking import ndcg_at_k, ranking_metrics
    from dynaq.evaluation.run_quality import evaluate_run
    from dynaq.ingest import embed_pending, ingest_files, ingest_market
    from dynaq.judging.judgement import Judge, Judgement, judgement_from_probabilities
    from dynaq.judging.ledger_file import ReplayJudge, read_ledger, write_ledger
    from dynaq.judging.ledger_first import LedgerJudge
    from dynaq.layout import Layout
    from dynaq.markets import Market, esco_market, onet_market
    from dynaq.pretraining.fit import pretrain
    from dynaq.pretraining.prior import Pretrained
    from dynaq.qrels import Qrels, read_qrels
    from dynaq.records import Candidate, Job
    from dynaq.runs.reading import Run, read_runs
    from dynaq.stores import Store, open_store
    from dynaq.tensor_cache import TensorCache

    __version__: str

_PUBLIC_NAMES = {
    "dynaq.agent.checkpoint": ("load_block", "save_block"),
    "dynaq.agent.config": ("DynaQConfig",),
    "dynaq.agent.dyna_q": ("DynaQBlock",),
    "dynaq.agent.reward_strategy": ("RewardStrategy", "make_strategy"),
    "dynaq.encoder": ("Encoder",),
    "dynaq.env": ("JobMarketEnv",),
    "dynaq.errors": ("DynaqError", "InputError", "JudgeError"),
    "dynaq.evaluation.ranking": ("ndcg_at_k", "ranking_metrics"),
    "dynaq.evaluation.run_quality": ("evaluate_run",),
    "dynaq.ingest": ("embed_pending", "ingest_files", "ingest_market"),
    "dynaq.judging.judgement": ("Judge", "Judgement", "judgement_from_probabilities"),
    "dynaq.judging.ledger_file": ("ReplayJudge", "read_ledger", "write_ledger"),
    "dynaq.judging.ledger_first": ("LedgerJudge",),
    "dynaq.layout": ("Layout",),
    "dynaq.markets": ("Market", "esco_market", "onet_market"),
    "dynaq.pretraining.fit": ("pretrain",),
    "dynaq.pretraining.prior": ("Pretrained",),
    "dynaq.qrels": ("Qrels", "read_qrels"),
    "dynaq.records": ("Candidate", "Job"),
    "dynaq.runs.reading": ("Run", "read_runs"),
    "dynaq.stores": ("Store", "open_store"),
    "dynaq.tensor_cache": ("TensorCache",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC_NAMES.items() for name in names}

__all__ = [
    "Candidate",
    "DynaQBlock",
    "DynaQConfig",
    "DynaqError",
    "Encoder",
    "InputError",
    "Job",
    "JobMarketEnv",
    "Judge",
    "JudgeError",
    "Judgement",
    "Layout",
    "LedgerJudge",
    "Market",
    "Pretrained",
    "Qrels",
    "ReplayJudge",
    "RewardStrategy",
    "Run",
    "Store",
    "TensorCache",
    "__version__",
    "embed_pending",
    "esco_market",
    "evaluate_run",
    "ingest_files",
    "ingest_market",
    "judgement_from_probabilities",
    "load_block",
    "make_strategy",
    "ndcg_at_k",
    "onet_market",
    "open_store",
    "pretrain",
    "ranking_metrics",
    "read_ledger",
    "read_qrels",
    "read_runs",
    "save_block",
    "write_ledger",
]


if not TYPE_CHECKING:  # with a module `__getattr__`, a type checker accepts any misspelt name

    def __getattr__(name: str) -> Any:
        """A public name, imported on first use."""
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("dynaq-jobs")  # as pyproject.toml says
        elif name in _MODULE_OF:
            value = getattr(import_module(_MODULE_OF[name]), name)
        else:
            raise AttributeError(f"module 'dynaq' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
