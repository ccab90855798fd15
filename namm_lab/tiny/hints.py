"""Hints: what training tells middle layers beside the next token, so that a small model finds how
lists are made.

The next name of a list takes two steps that the loss on tokens alone did not find (docs/log.md):
each record must know the name that the record before of its kind has, and a list must look for the
record whose name before is the one it just said. One layer is told the first (deep supervision, Lee
et al. 2015, arXiv 1409.5185) and a head below it where to fetch it; a head of the next layer is
told the second.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from namm_lab.tiny.batches import NO_HINT, Batch

BEFORE_LOSS, LOOK_LOSS = 0.25, 0.2


class Head(NamedTuple):
    layer: int
    head: int


class Hints:
    """`told_layer`: hidden states that must know the name before. `fetching`: the head that looks
    where that name ends, `looking`: the head that looks at the record whose name before it is.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        config = model.config
        self.told_layer = max(1, config.num_hidden_layers - 2)
        self.fetching = Head(max(0, self.told_layer - 2), config.num_attention_heads - 1)
        self.looking = Head(
            min(self.told_layer, config.num_hidden_layers - 1), config.num_attention_heads - 1
        )
        # Turned away from the embeddings, or the name before would be what the model says next. Its
        # first token one way, its last
        # another: one name in six begins like another of its list.
        generator = torch.Generator().manual_seed(0)
        size = (config.hidden_size, config.hidden_size)
        self.turns = [
            torch.linalg.qr(torch.randn(size, generator=generator)).Q.to(model.device)
            for _ in range(2)
        ]

    def loss(
        self, model: LlamaForCausalLM, batch: Batch, output: BaseModelOutputWithPast
    ) -> Tensor:
        """0 for a batch without hints."""
        loss = torch.zeros((), device=batch.ids.device)
        told = batch.before[..., 0] != NO_HINT
        if not told.any():
            return loss
        rows, _ = told.nonzero(as_tuple=True)
        states = nn.functional.rms_norm(
            output.hidden_states[self.told_layer][told], (model.config.hidden_size,)
        )
        for turn, places in zip(self.turns, batch.before[told].unbind(-1), strict=True):
            logits = model.lm_head(states @ turn.to(states.dtype)).float()
            loss = loss + BEFORE_LOSS * nn.functional.cross_entropy(logits, batch.ids[rows, places])
        for head, wanted in ((self.fetching, batch.before[..., 1]), (self.looking, batch.sources)):
            looks = [look(model, batch, output, head, wanted, row) for row in range(len(wanted))]
            if found := [missed for missed in looks if len(missed)]:
                loss = loss + LOOK_LOSS * torch.cat(found).mean()
        return loss


def look(
    model: LlamaForCausalLM,
    batch: Batch,
    output: BaseModelOutputWithPast,
    at: Head,
    wanted: Tensor,
    row: int,
) -> Tensor:
    """How a head of a row misses the places that it should look at, without an attention matrix of
    the whole row.

    `wanted`: (batch, length), NO_HINT where the head may look anywhere. Returns (asking), the cross
    entropy of each place.
    """
    layer, config = model.model.layers[at.layer], model.config
    states = layer.input_layernorm(output.hidden_states[at.layer][row])
    asking = (wanted[row] != NO_HINT).nonzero().flatten()
    query = layer.self_attn.q_proj(states[asking]).unflatten(-1, (-1, config.head_dim))[:, at.head]
    group = config.num_attention_heads // config.num_key_value_heads
    key = layer.self_attn.k_proj(states).unflatten(-1, (-1, config.head_dim))[:, at.head // group]
    cos, sin = (
        table[0] for table in model.model.rotary_emb(states, batch.positions[row : row + 1])
    )
    query, _ = apply_rotary_pos_emb(query, query, cos[asking], sin[asking], unsqueeze_dim=0)
    key, _ = apply_rotary_pos_emb(key, key, cos, sin, unsqueeze_dim=0)
    scores = (query.squeeze(0) @ key.squeeze(0).T).float() * layer.self_attn.scaling
    later = torch.arange(len(states), device=states.device) > asking[:, None]
    return nn.functional.cross_entropy(
        scores.masked_fill(later, float("-inf")), wanted[row, asking], reduction="none"
    )
