"""An independent definition of attention with compact positions: a dense cache of keys before RoPE,
which are rotated in float64 to where the definition puts them.

Each head's stored keys stand as far from the window as in the text, and those too old for that at
the first positions; layers with a sliding window count on from the beginning of the text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from namm_llm.cache.sequence import LayerSequence

stored: dict[int, torch.Tensor] = {}  # managed layer -> bool [B, G, columns so far]
windows: dict[int, tuple[int, int]] = {}  # managed layer -> first column of the window, moved by


def rotated(rows: torch.Tensor, positions: torch.Tensor, rotary, kind: str) -> torch.Tensor:
    """`[..., N, D]` at positions `[..., N]`, as RoPE defines it."""
    name = "inv_freq" if hasattr(rotary, "inv_freq") else f"{kind}_inv_freq"
    scaling = getattr(rotary, name.replace("inv_freq", "attention_scaling"), 1.0)
    angle = positions[..., None].double() * getattr(rotary, name).double()
    first, second = rows.double().chunk(2, -1)
    cos, sin = angle.cos() * scaling, angle.sin() * scaling
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).float()


def attention(module, query, key, value, attention_mask, scaling, **kwargs):
    kinds = getattr(module.config, "layer_types", None) or ["full_attention"] * 99
    kind = kinds[module.layer_idx]
    model, rows = attention.model, query.shape[1] // key.shape[1]
    new, columns = query.shape[2], key.shape[2]
    at = torch.arange(columns).expand(*key.shape[:2], -1).clone()
    mask = torch.ones(new, columns, dtype=torch.bool).tril(columns - new)
    mask = mask.expand(*key.shape[:2], -1, -1).clone()
    if kind == "full_attention":
        index = [i for i, other in enumerate(kinds) if other == kind].index(module.layer_idx)
        start, moved = windows.get(index, (0, 0))
        if start:
            kept = stored[index][..., :start]
            mask[..., :start] &= kept[:, :, None]
            # as far from the window as in the text; those that came too early at 0, 1, 2 ...
            first = moved + kept.long().cumsum(-1) - 1
            at[..., :start] = torch.maximum(at[..., :start], first)
    else:
        mask &= torch.ones(new, columns, dtype=torch.bool).triu(
            columns - new - module.sliding_window + 1
        )
    query = rotated(query, at[:, :, -new:].repeat_interleave(rows, 1), model.rotary_emb, kind)
    key = rotated(key, at, model.rotary_emb, kind).repeat_interleave(rows, 1)
    logits = (query @ key.transpose(2, 3) * scaling).masked_fill(
        ~mask.repeat_interleave(rows, 1), -torch.inf
    )
    return (logits.softmax(-1) @ value.repeat_interleave(rows, 1)).transpose(1, 2), None


AttentionInterface.register("tests_rotated", attention)


@contextmanager
def rotated_attention(model: PreTrainedModel) -> Iterator[DynamicCache]:
    """The model with this definition, and an empty cache for it."""
    before, attention.model = model.config._attn_implementation, model.model
    module = sys.modules[type(model).__module__]
    rope = module.apply_rotary_pos_emb
    one = len(rope.__code__.co_varnames) and "q" not in rope.__code__.co_varnames
    module.apply_rotary_pos_emb = (
        (lambda x, *_, **__: x) if one else (lambda q, k, *_, **__: (q, k))
    )
    model.set_attn_implementation("tests_rotated")
    stored.clear()
    windows.clear()
    try:
        yield DynamicCache()
    finally:
        module.apply_rotary_pos_emb = rope
        model.set_attn_implementation(before)


def moved_by(sequence: LayerSequence) -> int:
    """Tokens by which the window stands further in front than in the text."""
    start = sequence.window_start
    return 0 if start is None else sequence.compacted_at - start


def state_of(cache) -> tuple[dict[int, torch.Tensor], dict[int, tuple[int, bool]]]:
    """What a managed cache stores now, as `stored` and `windows` want it."""
    from tests import dense

    starts = {
        index: (layer.sequences[0].compacted_at, moved_by(layer.sequences[0]))
        for index, layer in enumerate(cache.managed)
        if layer.sequences
    }
    return (dense.stored_positions(cache) if starts else {}), starts
