"""Features that say where a token stands among the tokens of its head, so that they mean the same
in a text of thousands of tokens and in an episode of thirty, whatever the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from namm_llm.namm.recency import recency
from namm_llm.namm.settings import NammSettings

_SMALLEST_DEVIATION = 1e-3  # of logarithms and cosines; less is rounding


def relative_features(
    settings: NammSettings,
    state: Tensor,
    ages: Tensor,
    lengths: Sequence[int] | None = None,
    span: int | None = None,
) -> Tensor:
    """[recency | age as a share of the text | state, with mean 0 and variance 1 over the head's
    tokens]; see `Namm.features` for the arguments. Returns `[..., N, d]` in float32.
    """
    known = settings.scaled(state)
    heads = [known] if lengths is None else torch.split(known, list(lengths), dim=-2)
    beside = torch.cat([_standardised(head) for head in heads], dim=-2)
    if span is None:
        span = int(ages.max()) + 1 if ages.numel() else 1
    share = (ages.float() / max(span, 1))[..., None]
    return torch.cat([recency(ages, settings.recency), share, beside], dim=-1)


def _standardised(head: Tensor) -> Tensor:
    """`[..., N, W]` with mean 0 and variance 1 over N."""
    if not head.shape[-2]:
        return head
    centred = head - head.mean(-2, keepdim=True)
    deviation = centred.square().mean(-2, keepdim=True).sqrt()
    return centred / deviation.clamp_min(_SMALLEST_DEVIATION)
