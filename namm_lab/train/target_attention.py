"""The target of distillation: how much attention later queries paid to each token of a document,
with the full cache.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from namm_lab.train.documents import TrainDocument
from namm_llm.engine import forward

CHUNK = 512
QUERY_CHUNK = 128
"""Their attention matrices are made."""


@torch.no_grad()
def target_attention(model: PreTrainedModel, document: TrainDocument) -> list[Tensor]:
    """For each layer the largest attention `[G, N]` that any later query of the group paid to each
    of the document's N tokens.
    """
    before = model.config._attn_implementation
    cache = DynamicCache(config=model.config)
    try:
        model.set_attn_implementation("sdpa")
        for _ in forward.feed(
            model, cache, torch.tensor([document.document]), chunk=CHUNK, last_only=True
        ):
            pass
        # the only one that returns attention, and only the queries need it
        model.set_attn_implementation("eager")
        return _largest(model, cache, document)
    finally:
        model.set_attn_implementation(before)


def _largest(model: PreTrainedModel, cache: DynamicCache, document: TrainDocument) -> list[Tensor]:
    assert document.queries, "a document without queries"
    heads = model.config.get_text_config(decoder=True).num_key_value_heads
    device = cast(torch.nn.Embedding, model.get_input_embeddings()).weight.device
    queries = torch.tensor([document.queries], device=device)
    largest: list[Tensor] = []
    for piece in torch.split(queries, QUERY_CHUNK, 1):
        # attention matrices are asked for nowhere else, so `engine.forward` does not return them
        out = model(piece, past_key_values=cache, output_attentions=True, logits_to_keep=1)
        found = [
            _of_groups(attention[0, :, :, : len(document.document)], heads)
            for attention in out.attentions
        ]
        largest = [torch.maximum(*pair) for pair in zip(largest or found, found, strict=True)]
    return largest


def _of_groups(attention: Tensor, kv_heads: int) -> Tensor:
    """`[H, T, N]` to `[G, N]`."""
    return attention.float().reshape(kv_heads, -1, attention.shape[-1]).amax(1)
