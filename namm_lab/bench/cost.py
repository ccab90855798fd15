"""What will it cost? The memory of weights and cache by arithmetic; `tests/bench/test_cost.py`
holds it to real caches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from namm_lab.bench.shapes import Shape
from namm_llm.config import CacheConfig
from namm_llm.policies.budget import Room

POSITION_NBYTES = 4  # int32
LSE_NBYTES = 4  # float32


@dataclass(frozen=True)
class Cost:
    """Bytes after reading `tokens`, right before the update if one falls due; empty room in buffers
    is not counted.

    full_nbytes: keys and values of all tokens, as transformers holds them. kept: tokens that each
    KV head keeps, on average. kept_nbytes: their keys and values, with the scales of 8-bit ones.
    state_nbytes: their positions and the policy's state. recent_nbytes: keys and values since the
    last update, which are never 8-bit, and the queries that the policy looks back on.
    """

    tokens: int
    weights_nbytes: int
    full_nbytes: int
    kept: int
    kept_nbytes: int
    state_nbytes: int
    recent_nbytes: int

    @property
    def cache_nbytes(self) -> int:
        """Everything that the cache holds."""
        return self.kept_nbytes + self.state_nbytes + self.recent_nbytes

    @property
    def total_nbytes(self) -> int:
        """Weights and cache; what a forward pass needs for its own numbers comes on top."""
        return self.weights_nbytes + self.cache_nbytes

    @property
    def full_total_nbytes(self) -> int:
        """Weights and full cache."""
        return self.weights_nbytes + self.full_nbytes


def cost_of(
    shape: Shape,
    tokens: int,
    eviction: CacheConfig,
    dtype: torch.dtype,
    quantization: str | None = None,
    batch: int = 1,
) -> Cost:
    """The cost of `batch` sequences of `tokens` tokens on a model of this shape. dtype: of keys,
    values and what is not quantised.
    """
    heads, interval = shape.layers * shape.kv_heads, eviction.interval
    pair = 2 * shape.head_dim * dtype.itemsize  # key and value of one token in one head
    kept_pair = (
        pair if eviction.kv_bits is None else 2 * (shape.head_dim + dtype.itemsize)
    )  # bytes of 8 bits, and a scale for each
    beside = POSITION_NBYTES + eviction.state_nbytes()
    recent = (
        (tokens - 1) % interval + 1 if tokens else 0
    )  # tokens not yet judged, right before the update falls due
    retained = tokens - recent
    carry = eviction.policy.carry(retained) if eviction.policy.observes else 0
    query = (
        shape.layers * shape.heads * (shape.head_dim * dtype.itemsize + LSE_NBYTES)
        if eviction.policy.observes
        else 0
    )
    kept = retained
    if eviction.budget is not None and retained:
        room = Room(kept_pair + beside, heads, heads * pair * interval + query * (interval + carry))
        kept = min(retained, eviction.budget.tokens(retained, room))
    looked_back = recent + min(carry, retained)
    return Cost(
        tokens=tokens,
        weights_nbytes=shape.weights_nbytes(dtype, quantization),
        full_nbytes=batch * heads * pair * tokens,
        kept=kept,
        kept_nbytes=batch * heads * kept_pair * kept,
        state_nbytes=batch * heads * beside * kept,
        recent_nbytes=batch * (heads * pair * recent + query * looked_back),
    )
