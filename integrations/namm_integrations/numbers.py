"""The numbers of an answer, the same for both frameworks and ready for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from namm_llm import Generation


def numbers_of(generation: Generation) -> dict[str, Any]:
    """Those of `CacheStats` and `Timings`, `evicted_tokens` (mean over layers and KV heads),
    `tokens_per_second` of decoding (None if nothing was decoded), and `closed_early`.
    """
    cache, timings = asdict(generation.cache), asdict(generation.timings)
    # the first token comes with the prefill
    decoded, seconds = max(generation.usage.output_tokens - 1, 0), timings["decode_seconds"]
    return {
        "closed_early": generation.closed_early,
        **cache,
        "evicted_tokens": cache["seen_tokens"] - cache["stored_tokens"],
        **timings,
        "tokens_per_second": decoded / seconds if seconds > 0 else None,
    }
