"""An independent definition of attention under eviction: a dense cache, and a mask that says which
head still has which key.

Everything is stored and computed in full, so that it can be compared with the managed cache, which
stores and computes only what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, DynamicCache, LlamaForCausalLM

visible: dict[int, torch.Tensor] = {}  # layer -> bool [B, G, columns so far]: what is still stored
probabilities: dict[
    int, list[torch.Tensor]
] = {}  # layer -> softmax of each call, [B, H, T, columns]


def masked_attention(module, query, key, value, attention_mask, scaling, **kwargs):
    """Eager attention over the dense cache: the keys of `visible`, and causally the new ones."""
    rows = query.shape[1] // key.shape[1]
    new, columns = query.shape[2], key.shape[2]
    mask = (
        torch.ones(new, columns, dtype=torch.bool)
        .tril(columns - new)
        .expand(*query.shape[:2], -1, -1)
        .clone()
    )
    past = visible.get(module.layer_idx)
    if past is not None:
        mask[..., : past.shape[2]] &= past.repeat_interleave(rows, 1)[:, :, None]
    logits = query @ key.repeat_interleave(rows, 1).transpose(2, 3) * scaling
    weights = logits.masked_fill(~mask, -torch.inf).softmax(-1)
    probabilities.setdefault(module.layer_idx, []).append(weights)
    return (weights @ value.repeat_interleave(rows, 1)).transpose(1, 2), None


AttentionInterface.register("tests_dense", masked_attention)


@contextmanager
def dense_attention(model: LlamaForCausalLM) -> Iterator[DynamicCache]:
    """The model with the dense definition, and an empty cache for it."""
    before = model.config._attn_implementation
    model.set_attn_implementation("tests_dense")
    visible.clear()
    probabilities.clear()
    try:
        yield DynamicCache(config=model.config)
    finally:
        model.set_attn_implementation(before)


def stored_positions(cache) -> dict[int, torch.Tensor]:
    """What a managed cache still stores, as `visible` wants it: layer -> bool [B, G, seen]."""
    table = {}
    for index, layer in enumerate(cache.managed):
        rows = []
        for sequence in layer.sequences:
            heads = torch.zeros(len(sequence.retained.lengths), sequence.seen, dtype=torch.bool)
            for head, segment in enumerate(sequence.retained.heads()):
                heads[head, segment.positions.long()] = True
            heads[:, sequence.compacted_at :] = True
            rows.append(heads)
        table[index] = torch.stack(rows)
    return table
