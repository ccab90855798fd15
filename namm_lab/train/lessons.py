"""What a NAMM learns from: how much attention later queries paid to each token of a document, with
the full cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

CHUNK = 512


@dataclass(frozen=True)
class TrainDocument:
    """Token ids of a document, and of what is asked of it afterwards (questions with their
    answers).
    """

    document: list[int]
    queries: list[int]


@torch.no_grad()
def later_attention(model: PreTrainedModel, lesson: TrainDocument) -> list[Tensor]:
    """For each layer the most attention `[G, N]` that any later query of the group paid to each of
    the document's N tokens.
    """
    before = model.config._attn_implementation
    device = cast(torch.nn.Embedding, model.get_input_embeddings()).weight.device
    cache = DynamicCache(config=model.config)
    heads = model.config.get_text_config(decoder=True).num_key_value_heads
    try:
        model.set_attn_implementation("sdpa")
        for piece in torch.split(torch.tensor([lesson.document], device=device), CHUNK, 1):
            model(piece, past_key_values=cache, logits_to_keep=1)
        model.set_attn_implementation(
            "eager"
        )  # the only one that returns attention, and only the queries need it
        most: list[Tensor] | None = None
        for piece in torch.split(torch.tensor([lesson.queries], device=device), CHUNK // 4, 1):
            attentions = model(
                piece, past_key_values=cache, output_attentions=True, logits_to_keep=1
            ).attentions
            found = [
                _group_most(attention[0, :, :, : len(lesson.document)], heads)
                for attention in attentions
            ]
            most = (
                found
                if most is None
                else [torch.maximum(a, b) for a, b in zip(most, found, strict=True)]
            )
    finally:
        model.set_attn_implementation(before)
    assert most is not None, "a lesson without queries"
    return most


def _group_most(attention: Tensor, kv_heads: int) -> Tensor:
    """`[H, T, N]` to `[G, N]`."""
    return attention.float().reshape(kv_heads, -1, attention.shape[-1]).amax(1)
