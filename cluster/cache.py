"""The TensorCache in the Ray object store: put once, pulled once per node, mapped read-only by every actor there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray

from dynaq.tensor_cache import TensorCache


@dataclass(frozen=True)
class CacheRef:
    """A handle for actors and trials. Ray passes a nested reference on as it is instead of copying the arrays."""

    ref: ray.ObjectRef[Any]

    def attach(self) -> TensorCache:
        """The cache over this node's shared memory, without a copy."""
        manifest, arrays = ray.get(self.ref)
        return TensorCache.from_arrays(manifest, arrays)


def put_cache(cache: TensorCache) -> CacheRef:
    """Copy the cache's arrays into the object store of this node."""
    return CacheRef(ray.put(cache.to_arrays()))
