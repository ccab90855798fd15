"""Which places of a cache still hold which token."""

from __future__ import annotations

import torch
from torch import Tensor

from namm_llm.cache import ManagedCache


def kept_entries(cache: ManagedCache, row: int = 0) -> Tensor:
    """Whether each KV head of each managed layer still holds each token of a sequence: booleans
    `[layers, heads, tokens seen]`.

    row: which sequence of a batch. What came since the last update is not judged yet, so it is held
    everywhere.
    """
    layers = [layer.sequences[row] for layer in cache.managed]
    held = torch.zeros(
        len(layers), len(layers[0].retained.lengths), layers[0].seen, dtype=torch.bool
    )
    for index, sequence in enumerate(layers):
        heads = torch.split(
            sequence.retained.positions.cpu().long(), list(sequence.retained.lengths)
        )
        for head, positions in enumerate(heads):
            held[index, head, positions] = True
        held[index, :, sequence.seen - sequence.window.count :] = True
    return held
