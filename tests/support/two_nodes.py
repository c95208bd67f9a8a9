"""Trains on two nodes of one machine and takes one away in the middle. Prints what happened as one JSON line.

python -m tests.support.two_nodes STORE FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from cluster.block_actor import TrainingJob
from cluster.broker import start_broker
from cluster.cache import put_cache
from cluster.session import ray_session
from cluster.trainer import ActorSize, CohortProgress, CohortTrainer
from dynaq.runs.folder import RunFolder
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from tests.support.cohort_training import COHORT, CONFIG
from tests.support.judges import RuleJudge

NODE = {"num_cpus": 2, "object_store_memory": 128 << 20, "node_ip_address": "127.0.0.1"}


def main(store: str, folder: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    with ray_session(cluster.address):
        second = cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        with open_store(store, read_only=True) as opened:
            cache = put_cache(TensorCache.copy_from_database(opened))
        holders = [_holders(cache.ref)]
        nodes = [sum(node["Alive"] for node in ray.nodes())]
        broker = start_broker(store, RuleJudge(folder / "asked.log", delay=0.3).backend())
        job = TrainingJob(cache, "llm", CONFIG, broker, RunFolder.at(folder / "run"))

        def take_away(progress: CohortProgress) -> None:
            if progress.round >= 3 and len(holders) == 1:
                holders.append(_holders(cache.ref))
                cluster.remove_node(second, allow_graceful=False)

        result = CohortTrainer(job, COHORT, size=ActorSize(actors=3), on_progress=take_away).run()
        nodes.append(sum(node["Alive"] for node in ray.nodes()))
    cluster.shutdown()
    print(json.dumps({"holders": holders, "nodes": nodes, "failures": result.failures}))


def _holders(ref: ray.ObjectRef) -> int:
    """Nodes whose object store has a copy."""
    return len(ray.experimental.get_object_locations([ref])[ref]["node_ids"])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
