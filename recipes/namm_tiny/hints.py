"""Hints: what training tells a middle layer beside the next token, so that a small model finds how lists are made.

The next name of a list takes two steps that the loss on tokens alone did not find (docs/log.md): each record must know the
name that the record before of its kind has, and a list must look for the record whose name before is the one it just said.
One layer is told the first (deep supervision, Lee et al. 2015, arXiv 1409.5185), one head of the next layer the second.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast

from recipes.namm_tiny.batches import NO_HINT, Batch

BEFORE_LOSS, SOURCE_LOSS = 0.5, 0.2
EAGER_LENGTH = 640
"""Longest examples of which attention is made whole, to see where a head looks."""


class Hints:
    """`told_layer`: hidden states that must know the name before. `looking`: layer and head that must find its record."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        config = model.config
        self.told_layer = max(1, config.num_hidden_layers - 2)
        self.looking = min(self.told_layer, config.num_hidden_layers - 1), config.num_attention_heads - 1
        # Turned away from the embeddings, or the name before would be what the model says next.
        random = torch.randn(config.hidden_size, config.hidden_size, generator=torch.Generator().manual_seed(0))
        self.turn = torch.linalg.qr(random).Q.to(model.device)

    def look(self, batch: Batch) -> bool:
        """Whether the batch needs attention made whole."""
        return batch.ids.shape[1] <= EAGER_LENGTH and bool((batch.sources != NO_HINT).any())

    def loss(self, model: LlamaForCausalLM, batch: Batch, output: BaseModelOutputWithPast) -> Tensor:
        """0 for a batch without hints."""
        loss = torch.zeros((), device=batch.ids.device)
        told = batch.before != NO_HINT
        if told.any():
            states = output.hidden_states[self.told_layer][told]
            turned = nn.functional.rms_norm(states, states.shape[-1:]) @ self.turn.to(states.dtype)
            loss = loss + BEFORE_LOSS * nn.functional.cross_entropy(model.lm_head(turned).float(), batch.before[told])
        if output.attentions is not None:
            rows, asking = (batch.sources != NO_HINT).nonzero(as_tuple=True)
            layer, head = self.looking
            seen = output.attentions[layer][rows, head, asking, batch.sources[rows, asking]].float()
            loss = loss - SOURCE_LOSS * (seen + 1e-6).log().mean()
        return loss
