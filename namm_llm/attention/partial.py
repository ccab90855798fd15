"""Attention over one part of the keys, with its log-sum-exp, so that parts can be merged exactly.

`reference` is the definition in plain torch and runs on every device; on the CPU torch's fused
kernel computes the same without an attention matrix. Shapes: queries `[B, H, T, D]`, keys and
values `[B, H, N, D]`, N >= 1; the log-sum-exp is `[B, H, T]`, float32, natural.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_LOGITS = 2**27  # half a GiB
_FUSED_ON_CPU = (torch.float32, torch.bfloat16, torch.float16)


def partial_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention and log-sum-exp. `causal`: query i sees keys up to i (T = N). `mask`: bool
    `[T, N]`, true where visible.
    """
    if (
        query.device.type == "cpu"
        and query.dtype in _FUSED_ON_CPU
        and query.dtype == key.dtype == value.dtype
    ):
        return _fused_cpu(query, key, value, scale, causal, mask)
    return reference(query, key, value, scale=scale, causal=causal, mask=mask)


def reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition. Needs memory for H x T x N float32 logits, of one item of the batch at a time
    where they are many.
    """
    if len(query) > 1 and query.numel() // query.shape[-1] * key.shape[-2] > _MOST_LOGITS:
        items = zip(*(torch.split(tensor, 1) for tensor in (query, key, value)), strict=True)
        parts = [reference(*item, scale=scale, causal=causal, mask=mask) for item in items]
        return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts])
    logits = query.float() @ key.float().transpose(-1, -2) * scale
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    lse = logits.logsumexp(-1)
    return ((logits - lse[..., None]).exp() @ value.float()).to(query.dtype), lse


def _fused_cpu(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    bias = (
        None
        if mask is None
        else torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
    )
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=bias, scale=scale
    )
    return out, lse


def merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Attention over two disjoint sets of keys from the attention over each (log-sum-exp merge)."""
    (out1, lse1), (out2, lse2) = first, second
    lse = torch.logaddexp(lse1, lse2)
    weight1, weight2 = ((part - lse).exp()[..., None] for part in (lse1, lse2))
    return (out1 * weight1 + out2 * weight2).to(out1.dtype), lse
