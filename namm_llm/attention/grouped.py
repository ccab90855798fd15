"""Grouped-query attention of new tokens over the retained (ragged) and the recent (dense) tokens of
one sequence.

What is retained is visible to every new token; what is recent is causal. Settled heads of equal
length are one call; otherwise each head is its own. 8-bit keys and values become numbers again
piece by piece, so that no copy of a layer is made for a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from namm_llm.attention import backend as kernels
from namm_llm.attention.partial import merge, partial_attention
from namm_llm.tokens import HeadTokens, RaggedTokens

_PIECE = 4096  # 8-bit tokens of one head that are numbers at a time


def grouped_attention(
    query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention output `[H, T, D]` and log-sum-exp `[H, T]` of queries `[H, T, D]`.

    keys, values: `[G, C, D]`, the recent tokens, the T new ones last. Query head h belongs to KV
    head h // (H / G).
    """
    if kernels.usable(query):
        from namm_llm.attention.triton.grouped import grouped_attention as on_gpu

        return on_gpu(query, retained, keys, values, scale=scale)
    heads, new, size = query.shape
    grouped = query.reshape(keys.shape[0], heads // keys.shape[0], new, size)
    out, lse = _recent(grouped, keys, values, scale)
    if retained.longest:
        out, lse = merge((out, lse), _settled(grouped, retained, scale))
    return out.reshape(heads, new, -1), lse.reshape(heads, new)


def _recent(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """query `[G, R, T, D]`; keys, values `[G, C, D]`."""
    groups, rows, new, size = query.shape
    count = keys.shape[1]
    if (
        new == 1
    ):  # one query sees everything: the group's heads become rows, and every key is read once
        out, lse = partial_attention(
            query.reshape(groups, 1, rows, size), keys[:, None], values[:, None], scale=scale
        )
        return out.reshape(groups, rows, 1, -1), lse.reshape(groups, rows, 1)
    key, value = (t[:, None].expand(-1, rows, -1, -1) for t in (keys, values))
    if new == count:
        return partial_attention(query, key, value, scale=scale, causal=True)
    mask = torch.ones(new, count, dtype=torch.bool, device=query.device).tril(count - new)
    return partial_attention(query, key, value, scale=scale, mask=mask)


def _settled(query: Tensor, retained: RaggedTokens, scale: float) -> tuple[Tensor, Tensor]:
    """query `[G, R, T, D]`."""
    groups, rows, new, size = query.shape
    flat = query.reshape(groups, 1, rows * new, size)
    if retained.is_uniform and retained.scales is None:
        keys, values = (
            t.view(groups, 1, retained.longest, -1) for t in (retained.keys, retained.values)
        )
        out, lse = partial_attention(flat, keys, values, scale=scale)
    else:
        out = flat.new_zeros(groups, 1, rows * new, retained.values.shape[-1])
        lse = torch.full((groups, 1, rows * new), -torch.inf, device=flat.device)
        for g, segment in enumerate(retained.segments()):
            if len(segment):
                out[g : g + 1], lse[g : g + 1] = _segment(flat[g : g + 1], segment, scale)
    return out.reshape(groups, rows, new, -1), lse.reshape(groups, rows, new)


def _segment(query: Tensor, segment: HeadTokens, scale: float) -> tuple[Tensor, Tensor]:
    """query `[1, 1, R * T, D]` over the tokens of one head."""
    found = None
    size = len(segment) if segment.scales is None else _PIECE
    for at in range(0, len(segment), size):
        piece = segment.floats(slice(at, at + size))
        part = partial_attention(
            query, piece.keys[None, None], piece.values[None, None], scale=scale
        )
        found = part if found is None else merge(found, part)
    assert found is not None
    return found
