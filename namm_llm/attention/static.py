"""Attention whose shapes and addresses stay while lengths grow: they are numbers on the device, so a recorded CUDA graph can run it again.

The definition in plain torch masks flat storage; on a GPU the ragged kernel reads the same lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from namm_llm.attention import kernels
from namm_llm.attention.partial import merge


@dataclass(frozen=True)
class Segments:
    """keys, values: `[S, D]`, head after head, rows that may lie apart. starts, lengths: `[G]`, int32, on the device. longest: at least
    the longest length.
    """

    keys: Tensor
    values: Tensor
    starts: Tensor
    lengths: Tensor
    longest: int


def static_attention(query: Tensor, parts: tuple[Segments, Segments], *, scale: float) -> tuple[Tensor, Tensor]:
    """Output `[H, 1, D]` and log-sum-exp `[H, 1]` of one new token's queries `[H, 1, D]` over settled and recent tokens, all visible."""
    if kernels.usable(query):
        from namm_llm.attention.kernels.ragged import attend

        return attend(query.contiguous(), [(part, False) for part in parts], scale=scale)
    return merge(*(_masked(query, part, scale) for part in parts))


def _masked(query: Tensor, part: Segments, scale: float) -> tuple[Tensor, Tensor]:
    groups = len(part.starts)
    at = torch.arange(len(part.keys), device=query.device)
    seen = (at >= part.starts[:, None]) & (at < (part.starts + part.lengths)[:, None])  # [G, S]
    logits = query.float().reshape(groups, -1, query.shape[-1]) @ part.keys.float().T * scale
    logits = logits.masked_fill(~seen[:, None], -torch.inf)
    lse = logits.logsumexp(-1)
    weight = (logits - lse.clamp_min(torch.finfo(torch.float32).min)[..., None]).exp()
    values = part.values.float().masked_fill(~seen.any(0)[:, None], 0.0)  # what was never written may be NaN
    return (weight @ values).to(query.dtype).reshape(*query.shape[:-1], -1), lse.reshape(query.shape[:-1])
