"""What newer tokens repeat: a token whose key or value comes again says nothing that is not there
without it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_BLOCK = 512  # tokens compared at once, so that memory grows with N and not with its square


def repeated(vectors: Tensor) -> Tensor:
    """The largest similarity (cosine) of each of `vectors` `[N, D]`, oldest first, to any newer
    one: float32 `[N]`, -1 for the newest, which nothing repeats yet.
    """
    unit = normalize(vectors.float(), dim=-1)
    largest = unit.new_empty(len(unit))
    for start in range(0, len(unit), _BLOCK):
        similar = unit[start : start + _BLOCK] @ unit[start:].T
        older = torch.ones_like(similar, dtype=torch.bool).tril()
        largest[start : start + _BLOCK] = similar.masked_fill(older, -1.0).amax(-1)
    return largest
