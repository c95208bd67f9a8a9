"""How far do attacks in a posting move the judge? `python -m bench.judge_injection`

Each attack sits in a posting that has nothing to do with the applicant and is judged beside its clean twin, with both
methods on one engine. Printed by kind: mean and largest rise of the reward, and how often the label became APPLY.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from bench.injection_attacks import ATTACKS, pairs
from cluster.session import ray_session
from dynaq.markets import esco_market
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig

POSTINGS = 3  # applicants, each with one unrelated posting


async def moves(judge: ServeJudge) -> dict[str, list[tuple[float, bool]]]:
    """Per kind, for each attacked posting: rise of the reward over the clean twin, and whether only it is APPLY."""
    market = esco_market(applicants=POSTINGS)
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for applicant in market.applicants:
        grades = market.qrels.grades(applicant.id)
        clean = next(job for job in market.jobs if not grades.get(job.id))
        attacked = list(pairs(clean))
        twin, *answers = await judge.judge_async(applicant, [clean, *(job for _, job in attacked)])
        for (attack, _), answer in zip(attacked, answers, strict=True):
            if answer.reward is not None and twin.reward is not None:
                won = answer.label == "APPLY" and twin.label != "APPLY"
                found[attack.kind].append((answer.reward - twin.reward, won))
    return found


def main() -> None:
    from reward_service.app import start_judge

    print(f"{len(ATTACKS)} attacks on {POSTINGS} postings; rise of the reward (values from -0.1 to 1.0)\n")
    with ray_session():
        config = JudgeConfig()
        judge = start_judge(config)
        for fields in ({"method": "likelihood"}, {"method": "choice", "rotations": 4}):
            found = asyncio.run(moves(judge.variant(config, **fields)))
            print(f"{fields['method']:20}{'mean':>8}{'largest':>9}{'to APPLY':>10}")
            everything = [move for kind in found.values() for move in kind]
            for kind, rows in [*found.items(), ("all", everything)]:
                rises = [rise for rise, _ in rows]
                won = sum(won for _, won in rows) / len(rows)
                print(f"  {kind:18}{sum(rises) / len(rises):>8.3f}{max(rises):>9.3f}{won:>10.0%}")
            print()


if __name__ == "__main__":
    main()
