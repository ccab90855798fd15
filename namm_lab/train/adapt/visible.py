"""The forward pass that gradients flow through: all tokens at once, and each token attends to those
that the evicting cache still held when it was read.

This is the same attention as the cache's, layer by layer, so keys and values that were kept get
gradients from everything that used them. Which ones are kept is taken as given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

IMPLEMENTATION = "namm_visible"


def logits_of(
    model: PreTrainedModel, ids: Tensor, evicted_at: Mapping[int, Tensor], count: int
) -> Tensor:
    """Logits `[count, V]` that predict the last `count` of ids `[T]`, with gradients.

    evicted_at: of a `Reading` of the same ids; empty for the full cache.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(IMPLEMENTATION)
    try:
        # the cache's forward loop has no gradients, and no way to hand on what was evicted
        out = model(
            input_ids=ids[None, :-1],
            use_cache=False,
            logits_to_keep=count,
            evicted_at={layer: at[:, :-1].to(ids.device) for layer, at in evicted_at.items()},
        )
    finally:
        model.set_attn_implementation(before)
    logits: Tensor = out.logits[0]
    return logits


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    evicted_at: Mapping[int, Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' SDPA; in a layer of `evicted_at` with what was evicted left out."""
    at = (evicted_at or {}).get(int(module.layer_idx))  # type: ignore[arg-type]
    if at is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
        return out, None
    # computed again for the gradient: a mask of every head and layer would fill the memory
    found: Tensor = checkpoint(_attend, query, key, value, at, scaling, use_reentrant=False)
    return found, None


def _attend(query: Tensor, key: Tensor, value: Tensor, at: Tensor, scale: float | None) -> Tensor:
    """`[1, T, H, D]` of queries `[1, H, T, D]`, keys and values `[1, G, T, D]`; at: `[G, T]`."""
    rows = query.shape[1] // key.shape[1]
    now = torch.arange(query.shape[2], device=query.device)
    seen = (now[:, None] >= now) & (now[:, None] < at[:, None])  # [G, T, T]
    key, value, seen = (
        part.repeat_interleave(rows, dim) for part, dim in ((key, 1), (value, 1), (seen, 0))
    )
    out = scaled_dot_product_attention(query, key, value, attn_mask=seen[None], scale=scale)
    return out.transpose(1, 2)


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
