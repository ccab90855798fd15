"""Attention of one sequence in a layer whose queries see a bounded stretch of tokens: a sliding
window, or the chunk of fixed size that they stand in (Llama 4).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_PIECE = 512  # queries at a time, so that the mask stays small


def bounded_attention(
    query: Tensor, keys: Tensor, values: Tensor, *, scale: float, starts: Tensor
) -> Tensor:
    """Attention output `[H, T, D]` of queries `[H, T, D]` over keys and values `[G, C, D]`, the T
    new tokens last.

    starts: int64 `[T]` on the CPU, not falling: the first key that each query sees; it sees all
    from there up to itself.
    """
    heads, new, size = query.shape
    groups, count, _ = keys.shape
    grouped, parts = query.reshape(groups, heads // groups, new, size), []
    for first in range(0, new, _PIECE):
        stop, low = min(first + _PIECE, new), int(starts[first])
        own = torch.arange(first, stop)[:, None] + count - new
        at = torch.arange(low, int(own[-1]) + 1)
        seen = (at >= starts[first:stop, None]) & (at <= own)
        near = keys[:, None, low : low + len(at)], values[:, None, low : low + len(at)]
        parts.append(_masked(grouped[:, :, first:stop], *near, scale=scale, seen=seen))
    return torch.cat(parts, 2).reshape(heads, new, -1)


def _masked(query: Tensor, keys: Tensor, values: Tensor, *, scale: float, seen: Tensor) -> Tensor:
    """Output `[G, R, T, D]`. keys, values `[G, 1, C, D]`; seen: bool `[T, C]`; one query sees all
    of them.
    """
    groups, rows, new, size = query.shape
    if new == 1:
        # the group's heads become rows, and every key is read once
        flat = query.reshape(groups, 1, rows, size)
        out = scaled_dot_product_attention(flat, keys, values, scale=scale)
        return out.reshape(groups, rows, 1, -1)
    keys, values = (part.expand(-1, rows, -1, -1) for part in (keys, values))
    mask = seen.to(query.device)
    return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
