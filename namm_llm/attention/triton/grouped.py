"""`grouped_attention` on a GPU: torch's `varlen_attn` for many queries over retained tokens, our
ragged kernel for everything else.

`varlen_attn` (FlashAttention) takes half precision only. A KV head is one of its sequences and the
rows of the head's group are the queries, which is exact because retained tokens are visible to all;
so no more of its API is used than torch 2.11 has.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from namm_llm.attention.triton.ragged import attend, bounds, combine
from namm_llm.tokens import RaggedTokens, VarlenTokens

_HALF = (torch.float16, torch.bfloat16)
_MANY = 64  # rows of a group from which on the work is arithmetic, not reading


def grouped_attention(
    query: Tensor, retained: RaggedTokens, keys: Tensor, values: Tensor, *, scale: float
) -> tuple[Tensor, Tensor]:
    """See `namm_llm.attention.grouped`: output `[H, T, D]` and log-sum-exp `[H, T]`."""
    query = query.contiguous()
    window = window_tokens(keys, values)
    if not retained.longest:
        return attend(query, [(window, True)], scale=scale)
    if query.dtype in _HALF and query.shape[0] // len(retained.lengths) * query.shape[1] >= _MANY:
        new, old = (
            attend(query, [(window, True)], scale=scale),
            varlen(query, retained.floats(), scale=scale),
        )
        return combine(
            torch.stack([new[0].float(), old[0].float()]),
            torch.stack([new[1], old[1]]),
            query.dtype,
        )
    return attend(query, [(retained_tokens(retained), False), (window, True)], scale=scale)


def retained_tokens(retained: RaggedTokens) -> VarlenTokens:
    """The retained tokens as the kernel takes them."""
    return VarlenTokens(
        retained.keys,
        retained.values,
        *bounds(retained.lengths, retained.keys.device),
        retained.longest,
        retained.scales,
    )


def window_tokens(keys: Tensor, values: Tensor) -> VarlenTokens:
    """The window `[G, C, D]`, views of buffers `[G, capacity, D]` that may lie anywhere, as the
    kernel takes them.
    """
    groups, count, _ = keys.shape
    capacity = keys.stride(0) // keys.stride(1)
    assert values.stride(0) // values.stride(1) == capacity, "keys and values lie alike"
    starts, _ = bounds((capacity,) * groups, keys.device)
    lengths = torch.full(
        (groups,), count, dtype=torch.int32, device=keys.device
    )  # filled on the device: nobody waits
    return VarlenTokens(_rows(keys, capacity), _rows(values, capacity), starts, lengths, count)


def _rows(buffer: Tensor, capacity: int) -> Tensor:
    groups, count, size = buffer.shape
    return buffer.as_strided(((groups - 1) * capacity + count, size), buffer.stride()[1:])


def varlen(query: Tensor, retained: RaggedTokens, *, scale: float) -> tuple[Tensor, Tensor]:
    """Output `[H, T, D]` and log-sum-exp `[H, T]` of queries `[H, T, D]` over the retained tokens
    alone, all of them visible.
    """
    heads, new, size = query.shape
    groups = len(retained.lengths)
    rows = heads // groups * new
    ends = _ends((rows,) * groups, query.device), _ends(retained.lengths, query.device)
    out, lse = varlen_attn(
        query.reshape(-1, 1, size),
        retained.keys[:, None],
        retained.values[:, None],
        *ends,
        rows,
        retained.longest,
        return_aux=AuxRequest(lse=True),
        scale=scale,
    )
    # one head: [1, rows] or [rows, 1], whichever torch means; a head without keys has no sum
    lse = lse.reshape(groups, rows).masked_fill(
        bounds(retained.lengths, query.device)[1][:, None] == 0, -torch.inf
    )
    return out.reshape(heads, new, -1), lse.reshape(heads, new)


def _ends(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """`[G + 1]`, int32: 0 and where each head ends."""
    return bounds((*lengths, 0), device)[0]
