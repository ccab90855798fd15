"""Attention whose shapes and addresses stay while lengths grow: they are numbers on the device, so
a recorded CUDA graph can run it again.

The definition in plain torch masks flat storage; on a GPU the ragged kernel reads the same lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from namm_llm.attention import backend as kernels
from namm_llm.attention.partial import merge
from namm_llm.tokens import VarlenTokens


def static_attention(
    query: Tensor, parts: Sequence[VarlenTokens], *, scale: float
) -> tuple[Tensor, Tensor]:
    """Output `[H, 1, D]` and log-sum-exp `[H, 1]` of one new token's queries `[H, 1, D]` over all
    parts, all of them visible.
    """
    if kernels.usable(query):
        from namm_llm.attention.triton.ragged import attend

        return attend(query.contiguous(), [(part, False) for part in parts], scale=scale)
    return reduce(merge, (_masked(query, part, scale) for part in parts))


def _masked(query: Tensor, part: VarlenTokens, scale: float) -> tuple[Tensor, Tensor]:
    groups, keys, values = len(part.starts), part.keys, part.values
    if part.scales is not None:
        keys, values = keys * part.scales[:, :1], values * part.scales[:, 1:]
    at = torch.arange(len(keys), device=query.device)
    seen = (at >= part.starts[:, None]) & (at < (part.starts + part.lengths)[:, None])  # [G, S]
    logits = query.float().reshape(groups, -1, query.shape[-1]) @ keys.float().T * scale
    logits = logits.masked_fill(~seen[:, None], -torch.inf)
    lse = logits.logsumexp(-1)
    weight = (logits - lse.clamp_min(torch.finfo(torch.float32).min)[..., None]).exp()
    values = values.float().masked_fill(
        ~seen.any(0)[:, None], 0.0
    )  # what was never written may be NaN
    return (weight @ values).to(query.dtype).reshape(*query.shape[:-1], -1), lse.reshape(
        query.shape[:-1]
    )
