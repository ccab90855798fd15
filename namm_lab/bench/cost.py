"""What will it cost? The memory of weights and cache by arithmetic; `tests/lab/bench/test_cost.py`
holds it to real caches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from namm_lab.bench.shapes import Shape
from namm_llm import CacheConfig, ObservingPolicy
from namm_llm.policies.budget import TokenCost

POSITION_NBYTES = 4  # int32
LSE_NBYTES = 4  # float32


@dataclass(frozen=True)
class Cost:
    """Bytes after reading some tokens, right before the eviction step if one falls due; the spare
    capacity of buffers is not counted.
    """

    tokens: int
    weights_nbytes: int
    full_nbytes: int
    """Keys and values of all tokens, as transformers holds them."""
    kept: int
    """Tokens that each KV head retains, on average."""
    kept_nbytes: int
    """Their keys and values, with the scales of 8-bit ones."""
    state_nbytes: int
    """Their positions and the policy's state."""
    window_nbytes: int
    """Keys and values since the last eviction step, which are never 8-bit, and the queries that the
    policy looks back on."""

    @property
    def cache_nbytes(self) -> int:
        """Everything that the cache holds."""
        return self.kept_nbytes + self.state_nbytes + self.window_nbytes

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
    config: CacheConfig,
    dtype: torch.dtype,
    quantization: str | None = None,
    batch: int = 1,
) -> Cost:
    """The cost of `batch` sequences of `tokens` tokens on a model of this shape. dtype: of keys,
    values and what is not quantised.
    """
    heads, interval = shape.layers * shape.kv_heads, config.interval
    pair = 2 * shape.head_dim * dtype.itemsize  # key and value of one token in one head
    # 8 bits a number, and a scale for each key and value
    kept_pair = pair if config.kv_bits is None else 2 * (shape.head_dim + dtype.itemsize)
    state = POSITION_NBYTES + config.state_nbytes()
    # the eviction step that falls due has not run yet
    window = (tokens - 1) % interval + 1 if tokens else 0
    retained = tokens - window
    policy, query, carried = config.policy, 0, 0
    if isinstance(policy, ObservingPolicy):
        carried = policy.num_carried_queries(retained)
        query = shape.layers * shape.heads * (shape.head_dim * dtype.itemsize + LSE_NBYTES)
    kept = retained
    if config.budget is not None and retained:
        fixed = heads * pair * interval + query * (interval + carried)
        token = TokenCost(kept_pair + state, heads, fixed)
        kept = min(retained, config.budget.tokens(retained, token))
    queries = window + min(carried, retained)
    return Cost(
        tokens=tokens,
        weights_nbytes=shape.weights_nbytes(dtype, quantization),
        full_nbytes=batch * heads * pair * tokens,
        kept=kept,
        kept_nbytes=batch * heads * kept_pair * kept,
        state_nbytes=batch * heads * state * kept,
        window_nbytes=batch * (heads * pair * window + query * queries),
    )
