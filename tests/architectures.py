"""Small random models in memory, with weights large enough that attention is not flat."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 300
SHAPE = {  # of configurations of other architectures
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}


def random_llama(
    *, heads: int = 4, kv_heads: int = 2, head_dim: int = 16, layers: int = 3, dtype=torch.float32
) -> LlamaForCausalLM:
    """A Llama whose queries and keys are scaled up, so that some tokens receive much attention and
    others none.
    """
    torch.manual_seed(heads * 100 + kv_heads)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=heads * head_dim,
        intermediate_size=2 * heads * head_dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=65536,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval().to(dtype)


def random_ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Token ids `[batch, length]` without padding."""
    return torch.randint(
        2, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed)
    )
