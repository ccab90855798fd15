"""What a cache holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheStats:
    """seen_tokens: tokens that went through. stored_tokens: tokens kept, mean over layers and KV
    heads. kept_fraction: stored over seen. nbytes: all live memory of the cache, the policy's state
    and buffers included. full_nbytes: keys and values of all tokens seen, as transformers' own
    cache would hold them. updates: how often the policy judged. policy: settings in one line. A
    batch is summed up.
    """

    seen_tokens: int
    stored_tokens: int
    kept_fraction: float
    nbytes: int
    full_nbytes: int
    updates: int
    policy: str
