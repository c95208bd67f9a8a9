"""A run or a comparison in three sentences: what was compared, what the judge says, what an independent measure says.

Everything in them comes from comparison.json and the run's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from dynaq.evaluation.comparison import PRIMARY, line_name
from dynaq.evaluation.run_quality import K
from dynaq.judging.ledger_file import LEDGER
from jobs.terminal.tables import interval_words, number
from reward_service.model import DEFAULT_MODEL

NDCG = f"ndcg@{K}"
INDEPENDENT = "relevance that came with the data and that no agent has seen"


def story(comparison: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The three sentences."""
    if len(comparison["strategies"]) == 1:
        return _of_run(comparison, config)
    return [_what_was_compared(comparison, config), *_outcome(comparison)]


def judge_words(config: Mapping[str, Any]) -> str | None:
    """The judge by its model and method; None for a run without one."""
    judge, fingerprint = config.get("judge"), config.get("judge_fingerprint")
    if not judge or not fingerprint:
        return None
    if str(judge).startswith(LEDGER):
        return f"recorded answers ({PurePath(judge.removeprefix(LEDGER)).name})"
    model = config.get("judge_model") or (DEFAULT_MODEL if judge == "vllm" else judge)
    return f"{model}, method {str(fingerprint).partition('-')[0]}"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _of_run(comparison: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    (arm,) = comparison["strategies"]
    asked = arm["judgements_per_applicant"]
    source = f"from {asked:.0f} judgements each by {judge_words(config)}" if asked else "without asking a judge"
    reward, ndcg = arm["metrics"].get(PRIMARY), arm["metrics"].get(NDCG)
    said = [
        f"An agent for each of {comparison['applicants']:,} applicants learned to rank {config['jobs']:,} jobs, by the "
        f"strategy {line_name(arm)} and {source}."
    ]
    if _mean(reward) is None:
        said.append("The judge has not judged their final lists.")
    else:
        said.append(f"The judge's own mean reward of their final top {K} is {_with_interval(reward)}.")
    if _mean(ndcg) is None:
        said.append("No independent measure is known for this store; --qrels or --gold give one.")
    else:
        said.append(f"By {INDEPENDENT}, nDCG@{K} of their rankings is {_with_interval(ndcg)}, where 1 is ideal.")
    return said


def _what_was_compared(comparison: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    arms = comparison["strategies"]
    silent = [line_name(arm) for arm in arms if not arm["judgements_per_applicant"]]
    judge = judge_words(config)
    source = f"learned from {config['config']['budget']} judgements each" + (f" by {judge}" if judge else "")
    apart = f", {listed(silent)} without any" if silent and len(silent) < len(arms) else ""
    seeds = len(comparison["seeds"])
    return (
        f"This compares {listed([line_name(arm) for arm in arms])} on {comparison['applicants']:,} applicants and "
        f"{config['jobs']:,} jobs{f' over {seeds} seeds' if seeds > 1 else ''}: the agents {source}{apart}."
    )


def _outcome(comparison: Mapping[str, Any]) -> list[str]:
    """What the judge says of the lists, and whether the independent measure agrees."""
    rewards = _means(comparison, PRIMARY)
    if not rewards:
        return ["The judge has not judged the final lists.", _of_relevance(comparison)]
    best = max(rewards, key=lambda name: rewards[name])
    others = [name for name in rewards if name != best]
    beaten = [name for name in others if _better(comparison, PRIMARY, best, name) == best]
    level = [name for name in others if name not in beaten]
    by_judge = f"By the judge's own mean reward of the final top {K}, "
    if beaten:
        by_judge += f"{_valued([best], rewards)} is better than {_valued(beaten, rewards)}"
        by_judge += f", and the data cannot tell it from {_valued(level, rewards)}." if level else "."
    else:
        by_judge += f"the data cannot tell {_valued([best], rewards)} from {_valued(level, rewards)}."
    return [by_judge, _checked(comparison, best, beaten) if beaten else _of_relevance(comparison)]


def _checked(comparison: Mapping[str, Any], best: str, beaten: Sequence[str]) -> str:
    """Whether nDCG agrees that `best` is better than `beaten`."""
    ndcg = _means(comparison, NDCG)
    known = [name for name in beaten if name in ndcg and best in ndcg]
    if not known:
        return _of_relevance(comparison)
    better = {name: _better(comparison, NDCG, best, name) for name in known}
    groups = {
        "confirms it against": [name for name in known if better[name] == best],
        "contradicts it for": [name for name in known if better[name] == name],
        "does not confirm it against": [name for name in known if better[name] is None],
    }
    clauses = [f"{what} {_valued(names, ndcg)}" for what, names in groups.items() if names]
    said = INDEPENDENT[0].upper() + INDEPENDENT[1:]
    return f"{said} {', and '.join(clauses)}: nDCG@{K} of {best} is {number(ndcg[best])}."


def _of_relevance(comparison: Mapping[str, Any]) -> str:
    """What nDCG alone says."""
    ndcg = _means(comparison, NDCG)
    if len(ndcg) < 2:
        return "No independent measure is known for this store; --qrels or --gold give one."
    best = max(ndcg, key=lambda name: ndcg[name])
    others = [name for name in ndcg if name != best]
    beaten = [name for name in others if _better(comparison, NDCG, best, name) == best]
    if beaten:
        return f"By {INDEPENDENT}, nDCG@{K} of {_valued([best], ndcg)} is better than that of {_valued(beaten, ndcg)}."
    return f"Nor does {INDEPENDENT} tell them apart: nDCG@{K} of {_valued([best, *others], ndcg)}."


def _means(comparison: Mapping[str, Any], metric: str) -> dict[str, float]:
    found = {line_name(arm): _mean(arm["metrics"].get(metric)) for arm in comparison["strategies"]}
    return {name: mean for name, mean in found.items() if mean is not None}


def _mean(cell: Mapping[str, Any] | None) -> float | None:
    return cell["mean"] if cell else None


def _better(comparison: Mapping[str, Any], metric: str, one: str, other: str) -> str | None:
    """Which of two is credibly better at the end; None when the data cannot tell."""
    for pair in comparison["pairs"]:
        if (pair["metric"], pair["phase"]) == (metric, "final") and {pair["a"], pair["b"]} == {one, other}:
            better: str | None = pair["better"]
            return better
    return None


def _valued(names: Sequence[str], values: Mapping[str, float]) -> str:
    return listed([f"{name} ({number(values[name])})" for name in names])


def _with_interval(cell: Mapping[str, Any]) -> str:
    between = interval_words(cell["low"], cell["high"])
    return number(cell["mean"]) + (f" ({between})" if between else "")
