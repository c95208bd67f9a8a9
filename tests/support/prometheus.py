"""What Prometheus would get from the Ray of the tests."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

import httpx
import ray

LABELS = ("judge", "source", "outcome", "strategy", "run", "state")
PATIENCE = 40.0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape() -> Samples:
    """(name, labels) -> value of our metrics and vLLM's, summed over nodes and over all labels but LABELS."""
    samples: Samples = {}
    for node in ray.nodes():
        text = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics").text
        for name, labels, value in re.findall(r"^(ray_(?:dynaq|vllm)\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            key = (name, frozenset((k, v) for k, v in re.findall(r'(\w+)="([^"]*)"', labels) if k in LABELS))
            samples[key] = samples.get(key, 0.0) + float(value)
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), math.nan)


def wait_until(condition: Callable[[], bool]) -> None:
    """The asserts after this say what never came."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(1)
