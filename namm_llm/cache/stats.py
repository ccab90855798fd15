"""What a cache holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheStats:
    """The numbers of a cache; those of a batch are summed up."""

    seen_tokens: int
    """Tokens that went through."""
    stored_tokens: int
    """Tokens kept, mean over layers and KV heads."""
    kept_fraction: float
    """Stored over seen, mean over all layers and KV heads."""
    nbytes: int
    """Bytes of all live memory of the cache, the policy's state and buffers included."""
    full_nbytes: int
    """Bytes of keys and values of all tokens seen, as transformers' own cache would hold them."""
    eviction_steps: int
    """How many eviction steps there were."""
    policy: str
    """Settings in one line."""
