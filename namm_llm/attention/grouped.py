"""Grouped-query attention of new tokens over the retained (ragged) tokens and the window (dense) of
one sequence.

Retained tokens are visible to every new token; the window is causal. Retained heads of equal length
are one call; otherwise each head is its own. 8-bit keys and values become numbers again piece by
piece, so that no copy of a layer is made for a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from namm_llm.attention import backend
from namm_llm.attention.partial import merge, partial_attention
from namm_llm.tokens import HeadTokens, RaggedTokens, VarlenTokens

_PIECE = 4096  # 8-bit tokens of one head that are numbers at a time
Attended = tuple[Tensor, Tensor]  # output and log-sum-exp


def grouped_attention(
    query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor, *, scale: float
) -> Attended:
    """Attention output `[H, T, D]` and log-sum-exp `[H, T]` of queries `[H, T, D]`.

    keys, values: the window `[G, C, D]`, the T new tokens last. Query head h belongs to KV head
    h // (H / G).
    """
    if run := backend.kernel("grouped_attention", query):
        attended: Attended | None = run(query, retained, keys, values, scale=scale)
        if attended is not None:
            return attended
    return by_torch(query, retained, keys, values, scale=scale)


def by_torch(
    query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor, *, scale: float
) -> Attended:
    """The definition of `grouped_attention`."""
    heads, new, size = query.shape
    grouped = query.reshape(keys.shape[0], heads // keys.shape[0], new, size)
    out, lse = _over_window(grouped, keys, values, scale)
    if retained.longest:
        out, lse = merge((out, lse), _over_retained(grouped, retained, scale))
    return out.reshape(heads, new, -1), lse.reshape(heads, new)


def varlen_attention(query: Tensor, parts: Sequence[VarlenTokens], *, scale: float) -> Attended:
    """Output `[H, 1, D]` and log-sum-exp `[H, 1]` of one new token's queries `[H, 1, D]` over all
    parts, all of them visible.

    Shapes and addresses stay while lengths grow: these are numbers on the device, so that a
    recorded CUDA graph can run it again.
    """
    if run := backend.kernel("varlen_attention", query):
        attended: Attended = run(query.contiguous(), [(part, False) for part in parts], scale=scale)
        return attended
    return reduce(merge, (_over_varlen(query, part, scale) for part in parts))


def _over_window(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Attended:
    """query `[G, R, T, D]`; keys, values `[G, C, D]`."""
    groups, rows, new, size = query.shape
    count = keys.shape[1]
    if new == 1:
        # one query sees everything: the group's heads become rows, and every key is read once
        flat = query.reshape(groups, 1, rows, size)
        out, lse = partial_attention(flat, keys[:, None], values[:, None], scale=scale)
        return out.reshape(groups, rows, 1, -1), lse.reshape(groups, rows, 1)
    key, value = (t[:, None].expand(-1, rows, -1, -1) for t in (keys, values))
    if new == count:
        return partial_attention(query, key, value, scale=scale, causal=True)
    mask = torch.ones(new, count, dtype=torch.bool, device=query.device).tril(count - new)
    return partial_attention(query, key, value, scale=scale, mask=mask)


def _over_retained(query: Tensor, retained: RaggedTokens, scale: float) -> Attended:
    """query `[G, R, T, D]`."""
    groups, rows, new, size = query.shape
    flat = query.reshape(groups, 1, rows * new, size)
    if retained.is_uniform and retained.scales is None:
        shape = (groups, 1, retained.longest, -1)
        keys, values = retained.keys.view(shape), retained.values.view(shape)
        out, lse = partial_attention(flat, keys, values, scale=scale)
    else:
        out = flat.new_zeros(groups, 1, rows * new, retained.values.shape[-1])
        lse = torch.full((groups, 1, rows * new), -torch.inf, device=flat.device)
        for g, head in enumerate(retained.heads()):
            if len(head):
                out[g : g + 1], lse[g : g + 1] = _over_head(flat[g : g + 1], head, scale)
    return out.reshape(groups, rows, new, -1), lse.reshape(groups, rows, new)


def _over_head(query: Tensor, head: HeadTokens, scale: float) -> Attended:
    """query `[1, 1, R * T, D]` over the tokens of one head, at least one."""
    size = len(head) if head.scales is None else _PIECE
    pieces = (head.floats(slice(at, at + size)) for at in range(0, len(head), size))
    return reduce(
        merge,
        (
            partial_attention(query, p.keys[None, None], p.values[None, None], scale=scale)
            for p in pieces
        ),
    )


def _over_varlen(query: Tensor, part: VarlenTokens, scale: float) -> Attended:
    """The definition: a mask over the flat storage."""
    groups, keys, values = len(part.starts), part.keys, part.values
    if part.scales is not None:
        keys, values = keys * part.scales[:, :1], values * part.scales[:, 1:]
    at = torch.arange(len(keys), device=query.device)
    seen = (at >= part.starts[:, None]) & (at < (part.starts + part.lengths)[:, None])  # [G, S]
    logits = query.float().reshape(groups, -1, query.shape[-1]) @ keys.float().T * scale
    logits = logits.masked_fill(~seen[:, None], -torch.inf)
    lse = logits.logsumexp(-1)
    weight = (logits - lse.clamp_min(torch.finfo(torch.float32).min)[..., None]).exp()
    # unwritten memory may be NaN
    values = values.float().masked_fill(~seen.any(0)[:, None], 0.0)
    out = (weight @ values).to(query.dtype).reshape(*query.shape[:-1], -1)
    return out, lse.reshape(query.shape[:-1])
